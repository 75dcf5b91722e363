"""Sentences of the report whose words depend on the results."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from chrep_model.evaluation.report.glossary import METRICS, Metric
from chrep_model.evaluation.report.results import Key, Results
from chrep_model.evaluation.report.score_tables import MISSING, format_number
from chrep_model.evaluation.summary import HEADLINE


@dataclass(frozen=True)
class Comparison:
    """Comparison of the method that the report is about with one other method."""

    title: str
    difference: str
    lines: list[str]


def mean_and_sd(results: Results, key: Key) -> str:
    """Return a method's mean correlation and its spread over the test sections."""
    entry = results.entry(key)
    mean = format_number(results.mean(key))
    return mean if entry is None or entry["sd"] is None else f"{mean} ± {entry['sd']:.3f}"


def further_leads(results: Results) -> str:
    """Return sentences on which method is best in the other main metrics."""
    leader = results.varying[0]
    metrics = [m for m in METRICS if m.name in HEADLINE[1:] and results.measured(m)]
    leaders = {metric.title: _leader(results, metric) for metric in metrics}
    same = [title for title, key in leaders.items() if key == leader]
    listed = " and ".join(filter(None, [", ".join(same[:-1]), *same[-1:]]))
    said = [f"It is best in {listed} as well."] if same else []
    said += [f"Best in {title}: {results.label(key)}." for title, key in leaders.items() if key != leader]
    return " ".join(said)


def _leader(results: Results, metric: Metric) -> Key:
    return max(results.varying, key=lambda key: metric.better * results.mean(key, metric))


def comparison(results: Results, key: Key) -> Comparison:
    """Compare the method that the report is about with another one, in the main metrics."""
    subject, first, lines = results.subject, "", []
    for metric in (m for m in METRICS if m.name in HEADLINE):
        found = results.difference(subject, key, metric.name)
        if found is None and key == results.rival:  # another rival is the best in this metric
            found = results.difference_to_rival(subject, metric.name)
        if found is None or found["mean"] is None:
            continue
        ratio = "" if found["ratio"] is None else f", × {found['ratio']:.3f}"
        difference = format_number(found["mean"], 4, signed=True)
        if metric.name == HEADLINE[0]:
            first = difference
            ahead = f"ahead in {found['folds_better']} of {count(found['folds'], 'section')}"
            lines.append(f"{metric.title}{ratio}, {ahead}")
        else:
            other = results.trusted_of(found["reference"])
            whom = "" if other is None or other == key else f" (against {results.label(other)})"
            lines.append(f"{metric.title} {difference}{ratio}{whom}")
    best = ", the best published rival" if key == results.rival else ""
    return Comparison(f"{results.label(subject)} against {results.label(key)}{best}", first, lines)


def facts(results: Results) -> dict[str, str]:
    """Return the methods, sections and settings of the evaluation, as text."""
    settings = results.summary["settings"]
    genes = settings["genes"]
    patients = sorted(set(results.patients.values()))
    shown = ", ".join(patients[:8]) + (", …" if len(patients) > 8 else "")
    context = ", ".join(f"{float(um):g}" for um in settings["context_um"])
    return {
        "Cohort": results.summary["cohort"],
        "Test sections": f"{len(results.folds)}, of {count(len(patients), 'patient')} ({shown})",
        "Left out in turn": f"one {settings['split']}",
        "Genes": f"{genes} chosen in every fold" if isinstance(genes, int) else f"{len(genes)}, a given list",
        "Encoder": f"{settings['encoder']} ({results.summary['encoder_id']})",
        "Tiles": f"{float(settings['tile_um']):g} µm"
        + (f", with means over {context} µm" if context else ""),
        "Seeds": settings["seeds"],
    }


def counts_by_section(results: Results, metric: str) -> str:
    """Return a count for every test section, the highest over the methods."""
    counts = pd.DataFrame(results.by_fold(metric)).max(axis=1)
    return ", ".join(f"{fold} {MISSING if math.isnan(n) else int(n)}" for fold, n in counts.items())


def constant_predictions(results: Results) -> str:
    """Return a sentence on how many genes the methods predict as constant although they vary."""
    means = {key: float(n.mean()) for key, n in results.by_fold("genes_without_prediction").items()}
    counts = ", ".join(f"{results.label(key)} {n:.4g}" for key, n in means.items() if n > 0)
    return f"{counts} genes per section." if counts else "there were none."


def count(number: int, what: str) -> str:
    """Return a number with a noun, in the singular or plural as the number requires."""
    return f"{number} {what}{'' if number == 1 else 's'}"
