"""Tables of counts as other programs write them: where counts, names and positions are, and which rows."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from chrep_model.cohorts.h5ad import read_counts_file
from chrep_model.errors import CohortError

N_SPOTS, N_GENES = 30, 70
XY = np.stack(np.meshgrid(np.arange(6) * 100.0 + 50, np.arange(5) * 80.0 + 40), -1).reshape(-1, 2)
OFFSET = np.array([31.0, 17.0])


@pytest.fixture
def counts():
    """Counts in which every spot has genes counted once."""
    return np.random.default_rng(0).poisson(3.0, (N_SPOTS, N_GENES)).astype(np.int32)


@pytest.fixture
def written(tmp_path, counts):
    """Write a good table after `alter` has changed it; gives its path."""

    def write(alter=lambda table: None):
        table = anndata.AnnData(sparse.csr_matrix(counts))
        table.var_names = [f"GENE{i}" for i in range(N_GENES)]
        table.obs_names = [f"spot{i}" for i in range(N_SPOTS)]
        table.obsm["spatial"] = XY.copy()
        table = alter(table) or table
        table.write_h5ad(tmp_path / "A.h5ad")
        return tmp_path / "A.h5ad"

    return write


def said(table):
    return " ".join(finding.text for finding in table.findings)


def normalised(counts):
    return np.log1p(counts / counts.sum(1, keepdims=True) * 1e4).astype(np.float32)


def test_a_good_table_has_nothing_to_say(written, counts):
    table = read_counts_file(written())
    np.testing.assert_array_equal(table.counts.toarray(), counts)
    np.testing.assert_array_equal(table.xy, XY)
    assert (table.findings, table.array, table.gene_ids) == ((), None, None)


@pytest.mark.parametrize("place", ["counts", "raw_counts", "Counts"])
def test_counts_in_a_layer_beside_a_normalised_x(written, counts, place):
    def alter(table):
        table.layers[place] = table.X.copy()
        table.X = normalised(counts)

    table = read_counts_file(written(alter))
    np.testing.assert_array_equal(table.counts.toarray(), counts)
    assert "X has values that are not whole numbers" in said(table)
    assert f"taken from layers['{place}']" in said(table)


def test_counts_in_raw_with_more_genes_than_x(written, counts):
    def alter(table):
        table.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(N_GENES)]
        table.raw = table.copy()
        table.X = normalised(counts)
        return table[:, 5:40].copy()

    table = read_counts_file(written(alter))
    np.testing.assert_array_equal(table.counts.toarray(), counts)
    assert len(table.genes) == len(table.gene_ids) == N_GENES
    assert "taken from raw.X" in said(table)


def test_layers_without_counts_are_named(written, counts):
    def alter(table):
        table.layers["counts"] = normalised(counts)
        table.X = normalised(counts)

    with pytest.raises(CohortError, match=r"X has values .* these are not counts.*layers\['counts'\]"):
        read_counts_file(written(alter))


def test_rounded_normalised_values_are_refused(written, counts):
    def alter(table):
        table.X = np.round(counts / counts.sum(1, keepdims=True) * 1e4).astype(np.float32)

    with pytest.raises(CohortError, match="normalised and rounded"):
        read_counts_file(written(alter))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda counts: (counts > 0).astype(np.int32), "only 0 and 1"),
        (lambda counts: np.column_stack([counts, 1000 - counts.sum(1)]), "the same total"),
    ],
)
def test_doubtful_counts_are_used_with_a_warning(written, counts, change, words):
    changed = change(counts)

    def alter(table):
        return anndata.AnnData(sparse.csr_matrix(changed), obs=table.obs, obsm={"spatial": XY})

    table = read_counts_file(written(alter))
    np.testing.assert_array_equal(table.counts.toarray(), changed)
    (finding,) = table.findings
    assert finding.level == "warning" and words in finding.text and finding.remedy


def test_repeated_symbols_are_added_up(written, counts):
    def alter(table):
        names = list(table.var_names)
        names[4] = names[2]
        table.var_names = names
        table.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(N_GENES)]

    table = read_counts_file(written(alter))
    assert table.genes == tuple(f"GENE{i}" for i in range(N_GENES) if i != 4)
    np.testing.assert_array_equal(table.counts[:, 2].toarray().ravel(), counts[:, 2] + counts[:, 4])
    np.testing.assert_array_equal(table.counts[:, 4].toarray().ravel(), counts[:, 5])
    assert table.gene_ids[2] == "ENSG00000000002" and table.gene_ids[4] == "ENSG00000000005"
    assert "GENE2" in said(table) and "added up" in said(table)


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "SYMBOL", "gene_name"])
def test_symbols_beside_ensembl_ids(written, column):
    def alter(table):
        symbols = list(table.var_names)
        table.var_names = [f"ENSG{i:011d}.3" for i in range(N_GENES)]
        table.var["gene_ids"] = list(table.var_names)
        table.var[column] = pd.Categorical(symbols)

    assert read_counts_file(written(alter)).gene_ids == tuple(f"GENE{i}" for i in range(N_GENES))


def frame(x, y, **more):
    def alter(table):
        columns = {y: XY[:, 1], x: XY[:, 0]} | more
        table.obsm["spatial"] = pd.DataFrame(columns, index=table.obs_names)

    return alter


def flat_z(table):
    table.obsm["spatial"] = np.column_stack([XY, np.full(N_SPOTS, 7.0)])


@pytest.mark.parametrize(
    "alter",
    [
        frame("x", "y"),
        frame("X", "Y"),
        frame("pxl_col_in_fullres", "pxl_row_in_fullres"),
        frame("imagecol", "imagerow"),
        frame("x", "y", z=np.zeros(N_SPOTS)),
        flat_z,
    ],
)
def test_positions_by_the_names_of_their_columns(written, alter):
    np.testing.assert_array_equal(read_counts_file(written(alter)).xy, XY)


def test_positions_that_cannot_be_told_apart_are_refused(written):
    with pytest.raises(CohortError, match="has the columns first, second: which of them is x"):
        read_counts_file(written(frame("first", "second")))
    with pytest.raises(CohortError, match=r"shape \(30, 3\)"):
        read_counts_file(written(lambda t: t.obsm.update(spatial=np.column_stack([XY, np.arange(N_SPOTS)]))))


@pytest.mark.parametrize(
    "columns",
    [("x_pixel", "y_pixel"), ("pxl_col_in_fullres", "pxl_row_in_fullres"), ("imagecol", "imagerow")],
)
def test_columns_that_may_be_positions_are_named(written, columns):
    def alter(table):
        table.obs[columns[0]], table.obs[columns[1]] = table.obsm.pop("spatial").T

    with pytest.raises(CohortError, match=rf"may be in obs\['{columns[0]}'\], obs\['{columns[1]}'\]"):
        read_counts_file(written(alter))


def test_positions_under_another_key_are_named(written):
    def alter(table):
        table.obsm["X_spatial"] = table.obsm.pop("spatial")

    with pytest.raises(CohortError, match=r"may be in obsm\['X_spatial'\]"):
        read_counts_file(written(alter))


@pytest.mark.parametrize("kind", [int, bool, str, "category"])
def test_spots_off_tissue_are_left_out(written, counts, kind):
    def alter(table):
        table.obs["in_tissue"] = pd.Series([1] * 20 + [0] * 10, index=table.obs_names).astype(kind)
        table.obs["array_row"], table.obs["array_col"] = np.arange(N_SPOTS), np.arange(N_SPOTS) % 6

    table = read_counts_file(written(alter))
    np.testing.assert_array_equal(table.counts.toarray(), counts[:20])
    np.testing.assert_array_equal(table.xy, XY[:20])
    np.testing.assert_array_equal(table.array[:, 0], np.arange(20))
    assert table.spot_ids[-1] == "spot19" and len(table.spot_ids) == 20
    assert said(table) == "10 of 30 spots have in_tissue 0 and are left out."


def test_no_spot_under_tissue_is_an_error(written):
    with pytest.raises(CohortError, match=r"in_tissue.* is 0 for every spot"):
        read_counts_file(written(lambda table: table.obs.insert(0, "in_tissue", 0)))


def two_captures(column="library_id", names=("V1", "V2"), ids=lambda i: f"spot{i}"):
    """Two captures of 15 spots, each with positions of its own that lie over the other's."""

    def alter(table):
        table.obsm["spatial"] = np.concatenate([XY[:15], XY[:15] + OFFSET])
        if column:
            table.obs[column] = pd.Categorical([names[0]] * 15 + [names[1]] * 15)
        table.obs_names = [ids(i) for i in range(N_SPOTS)]
        factors = {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 40.0}
        table.uns["spatial"] = {
            names[0]: {"scalefactors": factors},
            names[1]: {"scalefactors": factors | {"spot_diameter_fullres": 60.0}},
        }

    return alter


@pytest.mark.parametrize("column", ["library_id", "sample", "batch", "section"])
def test_several_captures_are_never_mixed(written, counts, column):
    path = written(two_captures(column))
    with pytest.raises(CohortError, match=rf"obs\['{column}'\] names several captures \(V1, V2\)"):
        read_counts_file(path)
    table = read_counts_file(path, library="V2")
    np.testing.assert_array_equal(table.counts.toarray(), counts[15:])
    np.testing.assert_array_equal(table.xy, XY[:15] + OFFSET)
    assert table.facts["spot_diameter_fullres"] == 60.0
    assert said(table) == "15 of 30 spots are of other captures than V2."
    with pytest.raises(CohortError, match=r"no spots of a capture 'V3'.*It has V1, V2"):
        read_counts_file(path, library="V3")


def test_captures_told_apart_by_their_barcodes_alone(written):
    bases = np.array(list("ACGT"))[np.random.default_rng(1).integers(0, 4, (15, 16))]
    codes = ["".join(row) for row in bases]
    path = written(two_captures(None, ids=lambda i: f"{codes[i % 15]}-{i // 15 + 1}"))
    with pytest.raises(CohortError, match=r"barcodes in obs_names names several captures \(1, 2\)"):
        read_counts_file(path)
    assert read_counts_file(path, library="1").spot_ids[0] == f"{codes[0]}-1"


def two_lattices(table, label=lambda i: i // 30, *, column=None, suffix=False):
    """Two captures of 30 spots in one table, whose lattices lie over one another."""
    two = anndata.concat([table, table])
    two.obsm["spatial"] = np.concatenate([XY, XY + OFFSET])
    bases = np.array(list("ACGT"))[np.random.default_rng(1).integers(0, 4, (60, 16))]
    two.obs_names = [f"{''.join(row)}-{i // 30 + 1}" if suffix else f"spot{i}" for i, row in enumerate(bases)]
    if column:
        two.obs[column] = pd.Categorical([f"part {label(i)}" for i in range(60)])
    return two


@pytest.mark.parametrize("column", ["Region", "specimen", "any name"])
def test_captures_named_in_a_column_of_any_name(written, counts, column):
    path = written(lambda table: two_lattices(table, column=column))
    with pytest.raises(CohortError, match=rf"obs\['{column}'\] names several captures \(part 0, part 1\)"):
        read_counts_file(path)
    table = read_counts_file(path, library="part 1")
    np.testing.assert_array_equal(table.xy, XY + OFFSET)
    np.testing.assert_array_equal(table.counts.toarray(), counts)


def test_captures_told_apart_by_the_ends_of_other_barcodes(written):
    path = written(lambda table: two_lattices(table, suffix=True))
    with pytest.raises(CohortError, match=r"barcodes in obs_names names several captures \(1, 2\)"):
        read_counts_file(path)
    np.testing.assert_array_equal(read_counts_file(path, library="2").xy, XY + OFFSET)


@pytest.mark.parametrize("label", [None, lambda i: i % 2])  # what says nothing of captures is no help
def test_tables_put_together_without_a_name(written, label):
    def alter(table):
        return two_lattices(table, label, column=label and "cluster")

    with pytest.raises(CohortError, match=r"lie on or between others.*nothing says which spot is of which"):
        read_counts_file(written(alter))


@pytest.mark.parametrize("order", [1, 2, 7])
def test_rows_of_one_array_in_any_order_are_one_capture(written, order):
    rows = np.argsort(np.arange(N_SPOTS) % order, kind="stable")

    def alter(table):
        table = table[rows].copy()
        table.obs["cluster"] = pd.Categorical([f"c{(x // 100 + y // 80) % 2:.0f}" for x, y in XY[rows]])
        return table

    assert read_counts_file(written(alter)).findings == ()


@pytest.mark.parametrize("dense", [True, False])
def test_a_gene_that_is_nan_everywhere_was_not_measured(written, counts, dense):
    def alter(table):
        values = counts.astype(np.float32)
        values[:, [3, 8]] = np.nan
        table.X = values if dense else sparse.csc_matrix(values)
        table.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(N_GENES)]

    table = read_counts_file(written(alter))
    kept = [i for i in range(N_GENES) if i not in (3, 8)]
    assert table.genes == tuple(f"GENE{i}" for i in kept)
    assert table.gene_ids == tuple(f"ENSG{i:011d}" for i in kept)
    np.testing.assert_array_equal(table.counts.toarray(), counts[:, kept])
    assert said(table) == "2 genes are NaN for every spot (GENE3, GENE8): they are taken as not measured."


def test_genes_of_another_capture_are_not_measured_in_this_one(written, counts):
    def alter(table):
        table.X = counts.astype(np.float32)
        table.X[15:, :4] = np.nan  # as anndata.concat(join="outer") leaves them
        two_captures()(table)

    path = written(alter)
    assert len(read_counts_file(path, library="V1").genes) == N_GENES
    np.testing.assert_array_equal(read_counts_file(path, library="V2").counts.toarray(), counts[15:, 4:])


def test_blanks_around_the_names_of_genes_do_not_count(written):
    def alter(table):
        table.var_names = [f" {name} " for name in table.var_names]

    assert read_counts_file(written(alter)).genes == tuple(f"GENE{i}" for i in range(N_GENES))


def test_layers_of_other_names_are_named_not_taken(written, counts):
    def alter(table):
        table.layers["spliced"] = table.X.copy()
        table.X = normalised(counts)

    with pytest.raises(CohortError, match=r"layers\['spliced'\] were not looked at"):
        read_counts_file(written(alter))


@pytest.mark.parametrize("column", ["sample", None])
def test_a_position_that_is_no_number_is_said(written, column):
    def alter(table):
        table.obsm["spatial"][0] = np.nan
        if column:
            table.obs[column] = pd.Categorical(["V1"] * 15 + ["V2"] * 15)

    with pytest.raises(CohortError, match=r"obsm\['spatial'\] is NaN or infinite for 1 of 30 spots"):
        read_counts_file(written(alter))


def test_captures_that_nothing_names_are_refused(written):
    def alter(table):
        table.obsm["spatial"] = np.concatenate([XY[:15], XY[:15]])

    with pytest.raises(CohortError, match="nothing says which spot is of which"):
        read_counts_file(written(alter))


def test_libraries_that_obs_does_not_tell_apart(written):
    def alter(table):
        two_captures(None)(table)
        table.obsm["spatial"] = XY

    path = written(alter)
    table = read_counts_file(path)
    (finding,) = table.findings
    assert finding.level == "warning" and "names several captures (V1, V2)" in finding.text
    assert table.facts == {}
    with pytest.raises(CohortError, match=r"no spots of a capture 'V1'.*leave library out"):
        read_counts_file(path, library="V1")


def test_labels_on_one_array_are_no_captures(written):
    """Pieces of one array may be called samples: their spots do not lie over one another."""
    path = written(lambda table: table.obs.insert(0, "sample", ["left", "right"] * 15))
    table = read_counts_file(path)
    assert len(table.spot_ids) == N_SPOTS
    assert [finding.level for finding in table.findings] == ["ok"]


def test_a_capture_that_was_cut_out_of_several_keeps_its_own_scale_factors(written):
    def alter(table):
        two_captures()(table)
        return table[15:].copy()

    table = read_counts_file(written(alter))
    assert (len(table.spot_ids), table.facts["spot_diameter_fullres"]) == (15, 60.0)


def test_categories_of_anndata_0_7_lie_beside_their_codes(written, counts):
    path = written(lambda table: table.obs.insert(0, "library_id", ["V1"] * 15 + ["V2"] * 15))
    with h5py.File(path, "r+") as file:
        del file["obs/library_id"]
        codes = file.create_dataset("obs/library_id", data=np.array([0] * 15 + [1] * 15, np.int8))
        kinds = file.create_dataset("obs/__categories/library_id", data=np.array([b"V1", b"V2"], "S2"))
        codes.attrs["categories"] = kinds.ref
        file["obs"].attrs["encoding-version"] = "0.1.0"
    np.testing.assert_array_equal(read_counts_file(path, library="V2").counts.toarray(), counts[15:])
