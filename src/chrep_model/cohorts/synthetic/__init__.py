"""The generator behind the sample data: synthetic H&E pictures and counts that belong together.

Everything that it writes is named SYNTHETIC. A section is planned (`Blueprint`), laid out in compartments
(`tissue`), filled with nuclei (`cells`), drawn in optical density (`render`) and measured (`counts`).
"""

from .blueprint import PATIENTS, SCANNERS, Blueprint, Patient, Scanner
from .genes import FEW_GENES, GENES, PROGRAMMES
from .tissue import COMPARTMENTS
from .write import SyntheticSection, make_section, write_section, write_tiny_cohort

__all__ = [
    "COMPARTMENTS",
    "FEW_GENES",
    "GENES",
    "PATIENTS",
    "PROGRAMMES",
    "SCANNERS",
    "Blueprint",
    "Patient",
    "Scanner",
    "SyntheticSection",
    "make_section",
    "write_section",
    "write_tiny_cohort",
]
