"""The choice of genes and the unit of expression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_lists import read_gene_list
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section, read_section
from chrep_model.errors import GeneError


def section(counts, genes, name="A") -> Section:
    counts = np.asarray(counts)
    n = len(counts)
    return Section(
        name=name,
        patient=name,
        slide_path=Path(f"{name}.png"),
        counts_path=Path(f"{name}.h5ad"),
        counts=sparse.csr_matrix(counts, dtype=np.float32),
        genes=tuple(genes),
        xy=np.zeros((n, 2)),
        spot_ids=tuple(f"{name}{i}" for i in range(n)),
        mpp=0.5,
        spot_diameter_px=None,
    )


def by_hand(counts) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    library = counts.sum(axis=1, keepdims=True)
    return np.log10(1 + 1e4 * np.divide(counts, library, out=np.zeros_like(counts), where=library > 0))


def random_section(seed: int, genes, n=40, name="A") -> Section:
    rng = np.random.default_rng(seed)
    rates = np.geomspace(0.3, 30, len(genes)) * rng.gamma(2, 0.5, (n, len(genes)))
    return section(rng.poisson(rates), genes, name)


GENES = tuple(f"G{i:02d}" for i in range(30))


def test_values_are_log10_of_the_share_in_the_panel():
    one = section([[1, 3, 6], [2, 0, 8], [0, 0, 5]], ["A", "B", "C"])
    panel = GenePanel.fit([one], ["B", "A"])
    expected = by_hand([[3, 1], [0, 2], [0, 0]])
    values = panel.expression(one)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert not values[2].any()  # no count on the panel
    np.testing.assert_allclose(panel.mean, expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(panel.sd, expected.std(axis=0), rtol=1e-6)


def test_choice_is_the_most_variable_of_the_detected():
    sections = [random_section(1, GENES, name="A"), random_section(2, GENES, name="B")]
    panel = GenePanel.fit(sections, 8)
    pooled = np.concatenate([s.counts.toarray() for s in sections])
    detected = np.flatnonzero((pooled > 0).mean(axis=0) > 0.10)
    variance = by_hand(pooled[:, detected]).var(axis=0)
    assert panel.genes == tuple(GENES[detected[i]] for i in np.argsort(-variance)[:8])


def test_rarely_detected_genes_are_not_chosen():
    counts = np.ones((20, 3), int)
    counts[:, 1] = 0
    counts[:2, 1] = 500  # 10 % of the spots is not more than 10 %
    counts[:10, 2] = 9
    assert set(GenePanel.fit([section(counts, "ABC")], 3).genes) == {"A", "C"}
    counts[2, 1] = 1
    assert set(GenePanel.fit([section(counts, "ABC")], 3).genes) == {"A", "B", "C"}


def test_more_genes_than_there_are():
    assert len(GenePanel.fit([random_section(0, GENES[10:])], 500)) == 20


def test_order_of_sections_and_of_their_genes_changes_nothing():
    a, b = random_section(3, GENES, name="A"), random_section(4, GENES[::-1], name="B")
    one, other = GenePanel.fit([a, b], 12), GenePanel.fit([b, a], 12)
    assert one.genes == other.genes
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)


def test_a_gene_that_does_not_vary_has_sd_one():
    panel = GenePanel.fit([section([[5], [7], [2]], ["A"])], ["A"])
    assert panel.sd[0] == 1
    np.testing.assert_array_equal(panel.standardise(np.float32([[panel.mean[0]]])), [[0]])


def test_standardise_and_back():
    one = random_section(5, GENES)
    panel = GenePanel.fit([one], 10)
    values = panel.expression(one)
    z = panel.standardise(values)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(panel.unstandardise(z), values, atol=1e-5)


def test_a_test_section_changes_nothing():
    train, test = random_section(6, GENES), random_section(7, GENES, name="T")
    panel = GenePanel.fit([train], 10)
    before = panel.hash
    panel.expression(test)
    assert panel.hash == before == GenePanel.fit([train], 10).hash


def test_index_and_nearest_names():
    panel = GenePanel.fit([random_section(8, ["FASN", "ERBB2", "Krt19"])], ["FASN", "ERBB2", "Krt19"])
    assert panel.index("ERBB2") == 1
    np.testing.assert_array_equal(panel.indices(["Krt19", "FASN"]), [2, 0])
    with pytest.raises(GeneError, match="no gene 'ERBB3'") as caught:
        panel.index("ERBB3")
    assert "ERBB2" in caught.value.remedy
    with pytest.raises(GeneError, match="Krt19"):
        panel.index("KRT19")


def test_names_from_a_file(tmp_path):
    listing = tmp_path / "genes.txt"
    listing.write_text("# a comment\nG03\n\n  G01  # why\n", encoding="utf-8")
    assert read_gene_list(listing) == ("G03", "G01")
    assert GenePanel.fit([random_section(9, GENES)], listing).genes == ("G03", "G01")


def test_a_file_with_unknown_names(tmp_path):
    listing = tmp_path / "genes.txt"
    listing.write_text("G03\ng04\n", encoding="utf-8")
    said = []
    assert GenePanel.fit([random_section(9, GENES)], listing, warn=said.append).genes == ("G03",)
    (line,) = said
    assert (
        str(listing) in line
        and "1 of 2 listed genes are in no training section and are left out: g04" in line
    )
    assert "G04" in line  # the nearest
    listing.write_text("g03\ng04\n", encoding="utf-8")
    with pytest.raises(
        GeneError, match="none of the 2 listed genes is in a training section: g03, g04"
    ) as caught:
        GenePanel.fit([random_section(9, GENES)], listing)
    assert caught.value.path == str(listing)
    assert "G03" in caught.value.remedy


def test_listed_genes_are_found_by_their_other_names():
    ids = ("ENSG00000000001.4", "ENSG00000000002.1", "ENSG00000000003.2")
    named = replace(section([[1, 2, 3]], ids), gene_ids=("ERBB2", "CD24", "CD24"))
    lines: list[str] = []
    panel = GenePanel.fit([named], ["ERBB2", "ENSG00000000002"], warn=lines.append)
    assert panel.genes == ids[:2]
    assert lines == ["2 listed genes have other names in the sections: ENSG00000000001.4 is taken for ERBB2"]
    with pytest.raises(GeneError, match="none of the 1 listed genes"):  # two genes have this symbol
        GenePanel.fit([named], ["CD24"])


@pytest.mark.parametrize(
    ("genes", "fault"),
    [
        (0, "cannot be chosen"),
        ([], "empty"),
        (["G01", "G01"], "twice: G01"),
        (Path("nowhere.txt"), "cannot be read"),
    ],
)
def test_bad_requests(genes, fault):
    with pytest.raises(GeneError, match=fault):
        GenePanel.fit([random_section(9, GENES)], genes)


def test_nothing_to_fit_on():
    with pytest.raises(GeneError, match="without a training section"):
        GenePanel.fit([], 10)
    with pytest.raises(GeneError, match="no gene is detected"):
        GenePanel.fit([section(np.zeros((5, 2)), "AB")], 2)


def test_empty_and_binary_lists(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(GeneError, match="empty"):
        read_gene_list(tmp_path / "empty.txt")
    with pytest.raises(GeneError, match="no text"):
        read_gene_list(tmp_path / "binary.txt")


def test_a_section_with_names_of_another_kind_is_refused():
    panel = GenePanel.fit([random_section(0, GENES)], list(GENES))
    other = section([[1, 2]], ["ENSG1", "G01"], "E")
    with pytest.raises(GeneError, match=r"section E lists only 1 of the panel's 30 genes .*ENSG1"):
        panel.expression(other)


def test_round_trip_through_parquet_keeps_the_hash(tmp_path):
    import pandas as pd

    panel = GenePanel.fit([random_section(1, GENES)], 12)
    panel.to_frame().to_parquet(tmp_path / "genes.parquet")
    again = GenePanel.from_frame(pd.read_parquet(tmp_path / "genes.parquet"))
    assert again.genes == panel.genes
    assert again.hash == panel.hash
    assert len(panel.hash) == 64
    np.testing.assert_array_equal(again.sd, panel.sd)


def test_hash_tells_panels_apart():
    def panel(genes=("A", "B"), mean=(0, 1), sd=(1, 1)):
        return GenePanel(genes, np.float32(mean), np.float32(sd)).hash

    others = {panel(genes=("B", "A")), panel(genes=("AB", "")), panel(mean=(0, 1.0001)), panel(sd=(1, 2))}
    assert len(others | {panel()}) == 5


@pytest.mark.parametrize(
    "frame",
    [
        {"gene": ["A"], "mean": [0.0]},
        {"gene": ["A", "A"], "mean": [0.0, 0.0], "sd": [1.0, 1.0]},
        {"gene": ["A"], "mean": [np.nan], "sd": [1.0]},
        {"gene": ["A"], "mean": [0.0], "sd": [0.0]},
        {"gene": ["A"], "mean": ["much"], "sd": [1.0]},
        {"gene": [], "mean": [], "sd": []},
    ],
)
def test_bad_tables(frame):
    import pandas as pd

    with pytest.raises(GeneError):
        GenePanel.from_frame(pd.DataFrame(frame))


@pytest.mark.real
def test_real_panel_is_fitted_without_the_test_section(shared_data: Path):
    cohort = open_cohort(shared_data / "her2st")
    panel = GenePanel.fit(cohort.without(["C5"]), 200)
    assert len(panel) == 200
    assert {"SCGB2A2", "FABP7", "CEACAM6"} <= set(panel.genes)  # strong markers of this tumour
    values = panel.expression(cohort["C5"])
    assert values.shape == (181, 200)
    assert np.isfinite(values).all()


def test_ids_of_the_training_data_travel_with_the_panel(tmp_path):
    """As in an h5ad of 10x: var["gene_ids"]; the second section has none."""
    import anndata
    import pandas as pd
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(tmp_path / "A.png")
    for name, ids in (("A", {"gene_ids": ["ENSG01", "ENSG02"]}), ("B", {})):
        anndata.AnnData(
            np.array([[3.0, 1.0], [1.0, 4.0]], np.float32),
            var=pd.DataFrame(ids, index=["ERBB2", "CD4"]),
            obsm={"spatial": np.array([[10.0, 10.0], [30.0, 30.0]])},
        ).write_h5ad(tmp_path / f"{name}.h5ad")
    both = [
        read_section(tmp_path / "A.png", tmp_path / f"{name}.h5ad", um_per_px=1.0, name=name) for name in "AB"
    ]
    assert both[0].gene_ids == ("ENSG01", "ENSG02") and both[1].gene_ids is None
    panel = GenePanel.fit(both, ["CD4", "ERBB2"])
    again = GenePanel.from_frame(panel.to_frame())
    assert again.ids == ("ENSG02", "ENSG01") and again.names.find("ensg01") == "ERBB2"
    assert GenePanel.fit(both[1:], ["CD4"]).ids is None
    assert "id" not in GenePanel.fit(both[1:], ["CD4"]).to_frame()
