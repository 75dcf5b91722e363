"""A list of genes as one map."""

from __future__ import annotations

import numpy as np
import pytest

from chrep_model.analysis.signature import Signature, read_names, split_names
from chrep_model.cohorts.aliases import Aliases, GeneNames
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import GeneError


@pytest.fixture
def panel():
    return GenePanel(("ERBB2", "Cd4", "CD4", "PTPRC"), np.zeros(4), np.ones(4))


def test_case_does_not_matter_unless_it_tells_two_genes_apart(panel):
    found = Signature.match("mine", ("ptprc", "Cd4", "cd4", "PTPRC", "Xyz", "xyz"), panel)
    assert found.genes == ("PTPRC", "Cd4")
    assert found.unknown == ("Xyz", "xyz")


def test_other_names_are_taken_for_genes_and_told():
    panel = GenePanel(("ERBB2", "MS4A1", "PTPRC"), np.zeros(3), np.ones(3), ("ENSG00000141736", "", ""))
    found = Signature.match("mine", ("her2", "PTPRC", "CD20", "XYZ", "ENSG00000141736"), panel)
    assert found.genes == ("ERBB2", "PTPRC", "MS4A1") and found.unknown == ("XYZ",)
    assert found.remark == "her2 → ERBB2, CD20 → MS4A1, ENSG00000141736 → ERBB2"
    more = GeneNames(panel.genes, aliases=Aliases((("PTPRC", "LCA"),)))
    assert Signature.match("mine", ("lca",), panel, more).genes == ("PTPRC",)


def test_a_list_without_a_known_gene_is_refused(panel):
    with pytest.raises(GeneError, match=r"none of the 6 listed genes .*A, B, C, D, E, \.\.\..*ERBB2"):
        Signature.match("mine", tuple("ABCDEF"), panel)
    with pytest.raises(GeneError, match="names no gene"):
        Signature.match("mine", (), panel)


def test_its_values_are_the_mean_of_the_standardised_genes(prediction):
    panel = prediction.bundle.panel
    names = panel.genes[2:5]
    z = [(prediction.gene(n) - panel.mean[panel.index(n)]) / panel.sd[panel.index(n)] for n in names]
    signature = Signature.match("three", names, panel)
    np.testing.assert_allclose(signature.values(prediction), np.mean(z, axis=0), rtol=1e-5, atol=1e-6)
    n = len(prediction)
    for tiles in (slice(3, None), slice(n, None), slice(30, 35)):  # within a batch, after the last, over two
        np.testing.assert_array_equal(
            signature.values(prediction, tiles), signature.values(prediction)[tiles]
        )


def test_names_from_text_and_file(tmp_path):
    assert split_names(' ERBB2,CD4; "PTPRC"\n\tGATA3 ') == ("ERBB2", "CD4", "PTPRC", "GATA3")
    assert split_names(" ,\n") == ()
    path = tmp_path / "immune.txt"
    path.write_text("# immune\nCD4, CD8A\nPTPRC  # CD45\n")
    assert read_names(path) == ("CD4", "CD8A", "PTPRC")
