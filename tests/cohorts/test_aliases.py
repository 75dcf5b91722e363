"""Genes by any of their names."""

from __future__ import annotations

import gzip

import pytest

from chrep_model.cohorts.aliases import Aliases, GeneNames
from chrep_model.errors import GeneError

HGNC = """hgnc_id\tsymbol\tname\talias_symbol\tprev_symbol\tensembl_gene_id
HGNC:3430\tERBB2\terb-b2\t"NEU|HER-2|CD340"\tNGL\tENSG00000141736
HGNC:9999\tTWIN1\tone\tSHARED\t\tENSG00000000001
HGNC:9998\tTWIN2\tother\tSHARED|MIDDLE\tOLDTWIN\tENSG00000000002
HGNC:9997\tMIDDLE\tthird\t\t\t
"""
NCBI = """#tax_id\tGeneID\tSymbol\tSynonyms\tdbXrefs
9606\t2064\tERBB2\tNEU|CD340\tMIM:164870|HGNC:HGNC:3430|Ensembl:ENSG00000141736
9606\t1\tA1BG\t-\t-
"""


def test_what_pathologists_say():
    names = GeneNames(("MS4A1", "ERBB2", "Mki67", "CD4"))
    assert [names.find(name) for name in ("her2", "CD20", "Ki-67", "ki67", "erbb2", "CD4", "ESR1", "ER")] == [
        "ERBB2", "MS4A1", "Mki67", "Mki67", "ERBB2", "CD4", None, None,
    ]  # fmt: skip
    assert set(names.others[1]) == {"HER2", "NEU"} and names.others[3] == ()


def test_a_table_of_hgnc(tmp_path):
    path = tmp_path / "hgnc_complete_set.txt"
    path.write_text(HGNC)
    aliases = Aliases.read(path)
    names = GeneNames(("ERBB2", "TWIN1", "TWIN2"), aliases=aliases)
    found = {
        name: names.find(name)
        for name in ("cd340", "NGL", "ENSG00000141736.17", "OLDTWIN", "SHARED", "MIDDLE")
    }
    assert found == {
        "cd340": "ERBB2", "NGL": "ERBB2", "ENSG00000141736.17": "ERBB2", "OLDTWIN": "TWIN2",
        "SHARED": None,  # of two genes
        "MIDDLE": None,  # the proper name of a third one
    }  # fmt: skip
    by_id = GeneNames(("ENSG00000141736", "OLDTWIN"), aliases=aliases)
    assert (by_id.find("ERBB2"), by_id.find("HER-2"), by_id.find("TWIN2")) == ("ENSG00000141736",) * 2 + (
        "OLDTWIN",
    )
    aliases.write(tmp_path / "deep" / "kept.parquet")
    assert Aliases.read(tmp_path / "deep" / "kept.parquet").names == aliases.names


def test_a_table_of_ncbi(tmp_path):
    path = tmp_path / "Homo_sapiens.gene_info.gz"
    path.write_bytes(gzip.compress(NCBI.encode()))
    aliases = Aliases.read(path)
    assert aliases.names == (("ERBB2", "ENSG00000141736", "NEU", "CD340"), ("A1BG",))


def test_ids_of_the_panel():
    names = GeneNames(("Xist", "Cd4"), ("ENSMUSG00000015619", ""))
    assert names.find("ensmusg00000015619.9") == "Xist"
    assert names.others == (("ENSMUSG00000015619",), ())


@pytest.mark.parametrize(
    "content", [b"gene,count\nA,1\n", b"", b"\xff\xfe\x00", b'symbol\talias_symbol\n"A\tB']
)
def test_no_such_table(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(GeneError, match=r"names.txt.*hgnc_complete_set"):
        Aliases.read(path)
    with pytest.raises(GeneError, match="cannot be read"):
        Aliases.read(tmp_path / "absent.parquet")
