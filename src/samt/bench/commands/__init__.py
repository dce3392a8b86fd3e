"""The commands of `samt`, a file each."""
