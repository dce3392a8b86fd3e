"""The methods that SAMT is compared with, each for use of its own.

SGD and Adam are torch's.
"""

from samt.baselines.bcd import BCD
from samt.baselines.dante import Dante
from samt.baselines.dladmm import DLADMM
from samt.baselines.hypergradient import SGDHD, AdamHD, SGDNesterovHD
from samt.baselines.mdlam import MDLAM
from samt.baselines.scaled_admm import ScaledADMM

__all__ = [
    "BCD",
    "DLADMM",
    "MDLAM",
    "SGDHD",
    "AdamHD",
    "Dante",
    "SGDNesterovHD",
    "ScaledADMM",
]
