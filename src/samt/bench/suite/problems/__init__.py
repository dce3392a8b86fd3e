"""The problems of the suite, a file for each family."""
