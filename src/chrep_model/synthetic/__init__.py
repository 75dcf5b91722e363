"""Generator of the sample data: synthetic H&E pictures with matching spot counts.

The name of every file it writes begins with SYNTHETIC. A section is planned (`Blueprint`), divided into
compartments (`layout`), filled with nuclei (`place_cells`), drawn in optical density (`render`) and measured
(`counts`).
"""

from .blueprint import NEW_PATIENT, PATIENTS, SCANNERS, Blueprint, Patient, Scanner
from .gene_programmes import FEW_GENES, GENES, PROGRAMMES
from .tissue import COMPARTMENTS
from .write import (
    SyntheticSection,
    make_section,
    write_sample_data,
    write_section,
    write_slide,
    write_tiny_cohort,
)

__all__ = [
    "COMPARTMENTS",
    "FEW_GENES",
    "GENES",
    "NEW_PATIENT",
    "PATIENTS",
    "PROGRAMMES",
    "SCANNERS",
    "Blueprint",
    "Patient",
    "Scanner",
    "SyntheticSection",
    "make_section",
    "write_sample_data",
    "write_section",
    "write_slide",
    "write_tiny_cohort",
]
