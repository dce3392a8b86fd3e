"""The published method: `SAMT`, one block after the other (Algorithms 1, 2 and 3)."""
