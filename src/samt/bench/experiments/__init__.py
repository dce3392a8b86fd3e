"""Experiments: grids of cells, run and kept."""
