"""What concerns any tensor: finite numbers, precision, process groups, shards, refusals."""
