"""The page: whole, safe, self-contained, and honest about what was and was not measured."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chrep_model.evaluation.report import gene_maps, score_tables, write_report
from chrep_model.evaluation.report.score_tables import format_number
from chrep_model.evaluation.summary import summarise
from chrep_model.evaluation.tables import INTERVAL_COLUMNS, MAP_COLUMNS, Tables

from .conftest import make_section

ORACLE = "library_size_oracle"
VOID = {"meta", "input", "link", "img", "br"}
ADDRESSES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}
SKILL = {
    ("mean", "raw"): 0.0, ("ridge", "raw"): 0.3, ("trees", "raw"): 0.34, ("bleep", "raw"): 0.2,
    ("chrep", "raw"): 0.31, ("chrep", "calibrated"): 0.36, ("chrep", "smoothed"): 0.5, (ORACLE, "raw"): 0.9,
}  # fmt: skip
GENES = ("ERBB2", "CD74", "KRT19", "ACTB")


def scores(skill=SKILL, folds=("A1", "A2", "B1"), seeds=1, extra=True):
    """Scores that follow from one number per method: correlations rise with it, errors fall."""
    rows = []
    for (method, variant), r in skill.items():
        for number, fold in enumerate(folds):
            for seed in range(seeds if method == "chrep" else 1):
                value = r + (0.01 * number + 0.001 * seed if r else 0)
                error = 0.5 - value / 5
                found = {"pcc_acg": value, "pcc_heg50": 1.2 * value, "mse": error, "mae": error + 0.1}
                more = {"ssim": value / 2, "rvd": 1 - value, "coverage_90": 0.88, "width_90": 1.4 - value}
                found |= more if extra else {}
                found |= {"genes_without_truth": number, "genes_without_prediction": 4.0 if not r else 0.0}
                rows += [
                    (method, variant, "section", fold, fold[0], seed, "log10-spot", metric, v)
                    for metric, v in found.items()
                ]
    return pd.DataFrame(
        rows, columns=["method", "variant", "split", "fold", "patient", "seed", "space", "metric", "value"]
    )


def per_gene(table, genes=GENES, extra=True):
    runs = table[["method", "variant", "split", "fold", "patient", "seed"]].drop_duplicates()
    frame = runs.merge(pd.DataFrame({"gene": genes}), how="cross")
    place = frame["gene"].map({gene: i for i, gene in enumerate(genes)})
    frame["pcc"] = frame.groupby(["method", "variant"], sort=False).ngroup() / 20 - place / 10
    frame["mean"] = 2.0 - place / 10
    return frame.assign(ssim=0.2, rvd=0.7, ceiling=0.8 - place / 10) if extra else frame


def maps(table, genes=GENES[:1], side=4):
    runs = table[["fold", "method", "variant"]].drop_duplicates()
    column, row = (axis.ravel() for axis in np.meshgrid(range(side), range(side)))
    spots = pd.DataFrame({"x_um": 200.0 * column, "y_um": 200.0 * row, "truth": (column + row) / side})
    frame = runs.merge(pd.DataFrame({"gene": genes}), how="cross").merge(spots, how="cross")
    value = frame["truth"] / 2
    value[::7] = np.nan
    return frame.assign(value=value)


def intervals(table):
    runs = table[["method", "variant", "fold", "seed"]].drop_duplicates()
    frame = runs.merge(pd.DataFrame({"level": [0.5, 0.9]}), how="cross")
    return frame.assign(coverage=frame["level"] - 0.02, width=2 * frame["level"])


def facts(table, **changes):
    settings = {
        "encoder": "stainbank", "tile_um": 150.0, "context_um": [300.0, 600.0], "split": "section",
        "genes": len(GENES), "seeds": int(table["seed"].max()) + 1,
    }  # fmt: skip
    return {**summarise(table), "settings": settings, "encoder_id": "e1", "cohort": "tiny", **changes}


def page_of(path, table, genes=None, summary=None, maps=None, intervals=None, slides=()):
    tables = Tables(
        table,
        per_gene(table) if genes is None else genes,
        pd.DataFrame(columns=INTERVAL_COLUMNS) if intervals is None else intervals,
        pd.DataFrame(columns=MAP_COLUMNS) if maps is None else maps,
    )
    write_report(path / "report.html", tables, summary or facts(table), slides)
    return (path / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements of a page, read strictly: what is opened is closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.tables, self.row, self.texts = [], [], {}, None, []
        self.text_in = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        found = dict(attributes)
        if name == "table":
            self.tables[found["id"]] = self.current = {"heads": [], "bodies": []}
        elif name == "tbody":
            self.current["bodies"].append([])
        elif name == "tr" and "tbody" in self.open:
            self.row = {"class": found.get("class"), "cells": [], "values": [], "bold": []}
            self.current["bodies"][-1].append(self.row)
        elif name in ("td", "th"):
            where = self.current["heads"] if "thead" in self.open else self.row["cells"]
            where.append("")
            if "thead" in self.open:
                self.current.setdefault("sorts", []).append(found.get("aria-sort"))
            else:
                self.row["values"].append(found.get("data-value"))
                self.row["bold"].append(False)
        elif name == "b" and "td" in self.open:
            self.row["bold"][-1] = True

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(text)
            self.text_in.append((self.open[-1], text))
        if "table" in self.open and "caption" not in self.open and {"td", "th"} & set(self.open):
            where = self.current["heads"] if "thead" in self.open else self.row["cells"]
            where[-1] += text

    @property
    def text(self):
        """What a reader sees: a line break in the source is a space."""
        return " ".join(" ".join(self.texts).split())

    def places(self, name):
        """Elements whose text and attributes whose value hold a name."""
        values = [(f"{e} {key}", value) for e, found in self.elements for key, value in found.items()]
        return {place for place, text in self.text_in + values if text and name in text}

    def has(self, name):
        return [attributes for found, attributes in self.elements if found == name]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """All frames, two seeds."""
    table = scores(seeds=2)
    return page_of(tmp_path_factory.mktemp("r"), table, maps=maps(table), intervals=intervals(table))


@pytest.fixture(scope="module")
def page(full):
    return Page(full)


def test_the_page_has_all_parts_and_links_to_each(page):
    parts = [a["id"] for a in page.has("section")]
    assert parts == [
        "all", "by-section", "by-gene", "maps", "intervals", "tests", "left-out", "definitions", "references",
    ]  # fmt: skip
    assert [a["href"] for a in page.has("a")] == [f"#{part}" for part in parts]
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_nothing_is_loaded(full, page):
    for name, attributes in page.elements:
        assert name not in ("link", "iframe", "object", "embed", "base")
        for key, value in attributes.items():
            if key in ADDRESSES:
                assert value.startswith(("#", "data:image/")), (name, key, value[:60])
            assert not key.startswith("on")
    assert "://" not in full
    assert "@import" not in full
    assert all("url(#" in found for found in re.findall(r"url\(.", full))


def test_every_method_and_variant_stands_in_the_overview(page):
    tables = [page.tables["overview"], page.tables["smoothed"]]
    rows = [row["cells"][:2] for table in tables for body in table["bodies"] for row in body]
    assert ["CHRep", "calibrated"] in rows
    assert ["BLEEP", "raw"] in rows
    assert len([row for row in rows if len(row) == 2]) == len(SKILL)


def test_smoothed_rows_and_the_oracle_stand_apart_and_are_never_best(page):
    ranked, oracle = page.tables["overview"]["bodies"]
    (smoothed,) = page.tables["smoothed"]["bodies"]
    assert [row["cells"][0] for row in ranked] == ["CHRep", "trees", "CHRep", "ridge", "BLEEP", "mean"]
    assert [(row["class"], row["cells"][1]) for row in smoothed] == [("further", "smoothed")]
    assert (oracle[0]["class"], oracle[1]["cells"][0]) == ("group", "library size (oracle)")
    assert not any(flag for row in smoothed + oracle[1:] for flag in row["bold"])
    best = ranked[0]  # calibrated: the highest correlations and the lowest errors
    assert all(best["bold"][2:8])
    assert not any(best["bold"][8:]), "coverage has no best"
    assert best["class"] == "trusted subject"
    assert [row["class"] for row in ranked[1:3]] == ["trusted", "further"]


def test_means_and_spreads_by_hand(page):
    """Folds 0, 1, 2 and seeds 0, 1 of the calibrated: .36 + .01 fold + .001 seed."""
    shown = page.tables["overview"]["bodies"][0][0]["cells"][2]
    assert re.findall(r"[\d.]+", shown) == ["0.370", "0.010", "0.001"]


def test_tables_say_how_they_are_sorted_and_by_what(page):
    for name, table in page.tables.items():
        assert set(table["sorts"]) <= {"none", "ascending", "descending"}, name
        for body in table["bodies"]:
            for row in body:
                if row["class"] != "group":
                    assert len(row["cells"]) == len(table["heads"]), name
                    assert all(math.isfinite(float(v)) for v in row["values"] if v), name
        for position, order in enumerate(table["sorts"]):
            if order != "none":
                values = [float(row["values"][position]) for row in table["bodies"][0]]
                assert values == sorted(values, reverse=order == "descending"), name
    buttons = [a for a in page.has("button") if a.get("type") == "button"]
    assert len(buttons) == sum(len(table["heads"]) for table in page.tables.values())


def test_what_the_script_looks_for_is_there(page):
    assert [a["data-filters"] for a in page.has("input")] == ["genes"]
    assert "genes" in page.tables
    choices = {a["data-chooses"] for a in page.has("select")}
    shown = [a for a in page.has("div") if a.get("class") == "map"]
    assert choices == {"section", "gene"}
    assert {(a["data-section"], a["data-gene"]) for a in shown} == {
        (fold, gene) for fold in ("A1", "A2", "B1") for gene in GENES[:1]
    }


def test_figures_take_the_colour_of_the_page(page, full):
    figures = page.has("svg")
    assert len(figures) == 3 + 3
    assert all(a["role"] == "img" and a["aria-label"] for a in figures)
    drawn = "".join(re.findall(r"<svg.*?</svg>", full, re.DOTALL))
    assert drawn.count("currentColor") > 50
    assert "#000000" not in drawn
    assert "200 µm" in drawn
    assert "log10-spot" in drawn


def test_the_headline_names_leader_references_and_what_is_not_shown(page):
    assert "Highest mean correlation over all genes on 3 sections kept out of training" in page.text
    cards = [text for text in page.texts if " against " in text]
    assert cards[:3] == [
        "CHRep calibrated against ridge",
        "CHRep calibrated against trees",
        "CHRep calibrated against BLEEP, the best published rival",
    ]
    assert "+0.0605" in page.text  # seeds averaged: .36 + .0005 - .30
    assert "ahead in 3 of 3 sections" in page.text
    assert "With 3 test sections no paired test can fall below p = 0.05" in page.text
    assert "0.25" in page.text  # 2 / 2^3
    assert "other sections of the same patient may stay in training" in page.text
    assert "A1 0, A2 1, B1 2" in page.text  # genes without truth
    assert "mean 4 genes per section" in page.text  # genes predicted as constant


def test_who_leads_is_said_even_if_it_is_not_ours(tmp_path):
    table = scores({("ridge", "raw"): 0.4, ("chrep", "raw"): 0.3}, folds=("A1", "A2"))
    text = Page(page_of(tmp_path, table)).text
    assert "kept out of training: ridge with 0.405" in text
    assert "CHRep has 0.305 ± 0.007, rank 2 of 2." in text
    assert "−0.1000" in text
    assert "All test sections are of one patient (A)" in text
    assert "No method published by others was run." in text
    assert "One seed only" in text


HOSTILE = "\"'><i>&$\\frac{a}$--></text></script></style><script>alert(1)</script><img src=x onerror=f()>"
HARMLESS = "x" * len(HOSTILE)
SHOWN_IN = {
    "COHORT": {"title", "dd"},
    "ENCODER": {"dd"},
    "IDENTITY": {"dd"},
    "PATIENT": {"dd", "li", "td"},
    "SECTION": {
        *("th", "li", "option", "option value", "div data-section", "img alt", "figcaption"),
        *("text", "svg aria-label"),
    },
    "GENE": {"th", "option", "option value", "div data-gene", "figcaption", "text", "svg aria-label"},
    "METHOD": {"b", "p", "li", "button", "th", "td", "figcaption", "text"},
    "VARIANT": {"b", "p", "h3", "caption", "button", "th", "td", "figcaption", "text", "svg aria-label"},
}
"""Name -> elements whose text and attributes whose value show it."""


def page_with_names(path, ending):
    """A page that shows a name of every kind in every place."""
    name = {kind: kind + ending for kind in SHOWN_IN}
    method, other, constant = (f"{name['METHOD']}{number}" for number in "123")
    folds, genes = (name["SECTION"], f"{name['SECTION']}2"), (name["GENE"], "CD74")
    skill = {(method, "raw"): 0.32, (other, "raw"): 0.31, (constant, "raw"): 0.0}
    for known, value in {"chrep": 0.25, "bleep": 0.2, "heclip": 0.15}.items():
        skill |= {(known, "raw"): value - 0.02, (known, name["VARIANT"]): value}
    table = scores(skill, folds=folds).assign(patient=name["PATIENT"])
    who, metric = table["method"], table["metric"]
    # the lead is smaller than its spread, and neither the leader nor the best rival is the best in all
    table.loc[(who == other) & (table["fold"] == folds[1]) & (metric == "pcc_acg"), "value"] += 0.01
    table.loc[who.isin([other, "heclip"]) & (metric == "mse"), "value"] = 0.1
    summary = facts(table, cohort=name["COHORT"], encoder_id=name["IDENTITY"])
    summary["settings"]["encoder"] = name["ENCODER"]
    Image.new("RGB", (800, 800)).save(path / "slide.png")
    section = replace(make_section("A1", side=4)[0], name=folds[0], slide_path=path / "slide.png")
    frames = {"maps": maps(table, genes), "intervals": intervals(table), "slides": [section]}
    return page_of(path, table, per_gene(table, genes), summary, **frames)


def test_hostile_names_stay_text(tmp_path, monkeypatch):
    monkeypatch.setattr(score_tables, "MAX_GENES", 1)
    text = page_with_names(tmp_path, HOSTILE)
    page, harmless = Page(text), Page(page_with_names(tmp_path, HARMLESS))
    assert {name: page.places(name) for name in SHOWN_IN} == SHOWN_IN
    assert {name: harmless.places(name) for name in SHOWN_IN} == SHOWN_IN
    assert {(name, *found) for name, found in page.elements} == {
        (name, *found) for name, found in harmless.elements
    }
    assert len(page.has("script")) == len(page.has("img")) == 1
    assert HOSTILE[:6] not in text
    assert f"GENE{HOSTILE}" in [row["cells"][0] for row in page.tables["genes"]["bodies"][0]]


@pytest.mark.parametrize("skill", [{("mean", "raw"): 0.0}, {("ridge", "raw"): 0.3}, {("x", "raw"): math.nan}])
@pytest.mark.parametrize("folds", [("A1",), ("A1", "B1")])
def test_little_was_measured(tmp_path, skill, folds):
    table = scores(skill, folds=folds, extra=False)
    page = Page(page_of(tmp_path, table, per_gene(table, extra=False)))
    parts = [a["id"] for a in page.has("section")]
    assert "maps" not in parts
    assert "intervals" not in parts
    assert "One method has nothing to be compared with." in page.text
    assert "nan" not in page.text.lower()
    assert page.tables["overview"]["heads"][2:] == ["PCC (ACG)", "PCC (HEG50)", "MSE", "MAE"]


def test_the_same_results_give_the_same_page(tmp_path):
    table = scores({("chrep", "raw"): 0.3, ("ridge", "raw"): 0.2}, folds=("A1",))
    frames = {"maps": maps(table), "intervals": intervals(table)}
    assert page_of(tmp_path, table, **frames) == page_of(tmp_path, table, **frames)


def test_many_genes_are_cut_and_many_maps_left_out(tmp_path, monkeypatch):
    table = scores({("chrep", "raw"): 0.3, ("ridge", "raw"): 0.2})
    names = [f"GENE{i}" for i in range(1000)]
    monkeypatch.setattr(gene_maps, "ROOM", 1)
    text = page_of(tmp_path, table, per_gene(table, names), maps=maps(table, names[:3]))
    page = Page(text)
    assert len(page.tables["genes"]["bodies"][0]) == 200
    assert "The 200 of 1000 genes with the highest correlation under CHRep." in page.text
    assert "8 more maps were left out" in page.text
    assert len(text.encode()) < 500_000


def test_sections_that_are_not_tested_may_be_siblings(tmp_path):
    table = scores({("ridge", "raw"): 0.4, ("trees", "raw"): 0.3}, folds=("A1", "B1"))
    said = "other sections of the same patient may stay in training"
    assert said not in Page(page_of(tmp_path, table)).text
    summary = facts(table)
    summary["settings"]["test_sections"] = ["A1", "B1"]
    assert said in Page(page_of(tmp_path, table, summary=summary)).text


def test_every_figure_is_held_against_the_best_rival_in_it(tmp_path):
    table = scores({("chrep", "raw"): 0.4, ("bleep", "raw"): 0.3, ("heclip", "raw"): 0.2})
    table.loc[(table["method"] == "heclip") & (table["metric"] == "mse"), "value"] = 0.43
    text = Page(page_of(tmp_path, table)).text
    assert "CHRep against BLEEP, the best published rival" in text
    assert "MSE −0.0120, × 0.972 (against HECLIP)" in text
    assert "MAE −0.0200, × 0.963 " in text


def test_slides_show_the_field_of_the_maps(tmp_path):
    """Spots at 100 to 700 px, 0.5 µm/px, and 200 µm more: 1100 px of a slide that is black beyond."""
    pixels = np.full((1600, 1600, 3), 255, np.uint8)
    pixels[1100:] = pixels[:, 1100:] = 0
    Image.fromarray(pixels).save(tmp_path / "A1.png")
    section = replace(make_section("A1", side=4)[0], slide_path=tmp_path / "A1.png")
    table = scores({("ridge", "raw"): 0.3}, folds=("A1", "A2"))
    page = Page(page_of(tmp_path, table, maps=maps(table), slides=[section]))
    (picture,) = page.has("img")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["src"].partition(",")[2]))))
    assert (picture["alt"], shown.shape) == ("H&E of section A1", (560, 560, 3))
    assert shown.min() > 250
    assert [a["data-section"] for a in page.has("div") if a.get("class") == "slide"] == ["A1"]
    assert "0.6 mm wide" in page.text


def test_maps_say_how_their_genes_were_chosen(page):
    assert "an upper end, and no example of what to expect" in page.text
    assert "CHRep raw, CHRep calibrated, ridge, trees, BLEEP; maps.parquet" in page.text


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [(-0.1234, False, "−0.123"), (-0.0001, False, "0.000"), (0.5, True, "+0.500"), (math.nan, False, "–")],
)
def test_numbers_for_the_eye(value, signed, expected):
    assert format_number(value, 3, signed=signed) == expected
