"""The oracles: both optimizers line by line, slow and obvious, for the tests to compare with."""

from samt.reference.auto_samt import AutoReference
from samt.reference.oracle import Reference
from samt.reference.samt import SAMTReference

__all__ = ["AutoReference", "Reference", "SAMTReference"]
