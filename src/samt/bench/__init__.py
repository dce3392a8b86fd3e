"""The command line `samt`: train with SAMT and compare it with other optimizers."""
