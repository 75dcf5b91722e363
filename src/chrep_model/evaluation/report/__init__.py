"""One page that says how the methods compare; opens without a network."""

from chrep_model.evaluation.report.page import write_report

__all__ = ["write_report"]
