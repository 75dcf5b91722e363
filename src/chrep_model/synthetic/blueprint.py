"""Descriptions of the synthetic patients, scanners and sections, as numbers; nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scanner:
    """Stain colours, scanner optics and sequencing depth of one laboratory.

    Attributes
    ----------
    name
        Name that the written files carry.
    haematoxylin, eosin, blood
        Optical density (base 10) in red, green and blue of one unit of stain; normalised on use.
    strength
        Factors on the amounts of haematoxylin and eosin.
    white
        Colour of the empty glass (red, green, blue), 0..255.
    blur_um
        Standard deviation of the optical blur in µm.
    grain
        Standard deviation of the camera's noise, in grey levels.
    depth
        Median number of counts of a spot.
    depth_spread
        Standard deviation of the natural logarithm of the depth.
    """

    name: str
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    blood: tuple[float, float, float]
    strength: tuple[float, float]
    white: tuple[float, float, float]
    blur_um: float
    grain: float
    depth: float
    depth_spread: float


@dataclass(frozen=True)
class Patient:
    """Composition of one patient's tumour tissue.

    Attributes
    ----------
    name
        Name that the written files carry.
    tumour, adipose, lymphoid, necrosis, glands
        Amount of each tissue, 1 = usual.
    nest_um
        Size of the tumour's nests in µm.
    pleomorphism
        Variation in size and outline of tumour nuclei, 1 = usual.
    her2
        Strength of the ERBB2 amplicon, 1 = usual.
    """

    name: str
    tumour: float = 1.0
    adipose: float = 1.0
    lymphoid: float = 1.0
    necrosis: float = 1.0
    glands: float = 1.0
    nest_um: float = 70.0
    pleomorphism: float = 1.0
    her2: float = 1.0


@dataclass(frozen=True)
class Blueprint:
    """Description of one section to generate.

    Attributes
    ----------
    name
        Name of the section and stem of its files; begins with SYNTHETIC.
    patient, scanner
        Patient of the tissue, and laboratory that stained, scanned and sequenced it.
    shape
        (rows, cols) of the picture in pixels.
    mpp
        µm per pixel.
    seed
        Random seed of this section. Sections of one patient share `patient`, not the seed.
    spot_um, pitch_um
        Diameter of the spots and distance between neighbouring centres, in µm.
    genes
        Symbols of the genes to count; empty = all of `gene_programmes.GENES`.
    """

    name: str
    patient: Patient
    scanner: Scanner
    shape: tuple[int, int]
    mpp: float
    seed: int
    spot_um: float = 100.0
    pitch_um: float = 150.0
    genes: tuple[str, ...] = ()

    @property
    def size_um(self) -> tuple[float, float]:
        """Height and width in µm."""
        return self.shape[0] * self.mpp, self.shape[1] * self.mpp


SCANNERS = (
    Scanner(
        "SYNTHETIC scanner 1",
        haematoxylin=(0.62, 0.68, 0.34),
        eosin=(0.14, 0.83, 0.50),
        blood=(0.10, 0.76, 0.60),
        strength=(0.95, 1.0),
        white=(244, 243, 245),
        blur_um=0.42,
        grain=1.2,
        depth=5200,
        depth_spread=0.35,
    ),
    Scanner(
        "SYNTHETIC scanner 2",
        haematoxylin=(0.70, 0.64, 0.26),
        eosin=(0.26, 0.80, 0.38),
        blood=(0.17, 0.78, 0.50),
        strength=(1.15, 0.82),
        white=(240, 240, 236),
        blur_um=0.35,
        grain=1.0,
        depth=2600,
        depth_spread=0.5,
    ),
)

PATIENTS = (
    Patient(
        "SYNTHETIC-1",
        tumour=1.1,
        adipose=0.8,
        lymphoid=1.2,
        necrosis=1.2,
        nest_um=75,
        pleomorphism=1.2,
        her2=1.5,
    ),
    Patient(
        "SYNTHETIC-2",
        tumour=0.9,
        adipose=1.2,
        lymphoid=0.9,
        necrosis=0.8,
        nest_um=45,
        pleomorphism=0.85,
        her2=0.8,
    ),
)
"""The patients of the sample cohort."""

NEW_PATIENT = Patient("SYNTHETIC-3", adipose=1.1, lymphoid=1.5, necrosis=1.3, glands=1.6, nest_um=60)
"""The patient of the slide without counts; not part of the cohort."""
