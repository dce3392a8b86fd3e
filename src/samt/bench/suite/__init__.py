"""The suite by which AutoSAMT is judged: problems in families, methods, runs and their report."""
