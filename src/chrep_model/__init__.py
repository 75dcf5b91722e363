"""H&E slides to gene expression: CHRep and its rivals, calibrated from a gallery of measured spots."""

__version__ = "0.1.0"
