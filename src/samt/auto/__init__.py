"""The optimizer that needs no tuning: `AutoSAMT` and its parts."""
