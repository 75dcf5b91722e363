"""The contrastive methods: what is retrieved, by which codes, and with which weights."""

import numpy as np
import pytest
import torch

from chrep_model.methods.bleep import Bleep, BleepSettings
from chrep_model.methods.heclip import Heclip, HeclipSettings
from chrep_model.methods.mclstexp import Mclstexp, MclstexpSettings
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.retrieval import image_codes, spot_codes

FEW = {"epochs": 2, "width": 16, "batch": 40}
METHODS = [
    (Bleep, BleepSettings(**FEW)),
    (Heclip, HeclipSettings(**FEW)),
    (Heclip, HeclipSettings(form="hvg", **FEW)),
    (Mclstexp, MclstexpSettings(**FEW)),
]


def fit(method, settings, table, **changes):
    return method(settings.model_copy(update=changes)).fit(table, seed=0)


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_one_neighbour_is_its_measured_value(method, settings, table, unseen):
    fitted = fit(method, settings, table, k=1)
    response = fitted.respond(unseen.features)
    nearest = (fitted.compare(unseen.features) @ fitted.gallery.z.T).argmax(1)
    np.testing.assert_array_equal(response["neighbours"][:, 0], nearest)
    np.testing.assert_allclose(fitted.read(response, "raw"), table.targets[nearest], atol=1e-5)


@pytest.mark.parametrize(("method", "settings"), METHODS[:3])
def test_all_neighbours_are_the_mean(method, settings, table, unseen):
    fitted = fit(method, settings, table, k=10_000)
    expected = np.tile(table.targets.mean(0), (len(unseen), 1))
    np.testing.assert_allclose(fitted.predict(unseen.features), expected, atol=1e-5)


@pytest.mark.parametrize("norm", [1, 2])
def test_mclstexp_weighs_by_one_over_the_squared_distance_of_codes_as_they_are(norm, table, unseen):
    fitted = fit(*METHODS[3], table, k=4, norm=norm)
    codes = image_codes(fitted.image, fitted.inputs, unseen.features)
    spots = fitted.gallery.z * fitted.length[:, None]
    response = fitted.respond(unseen.features)
    for i in range(5):
        near = response["neighbours"][i]
        d = (np.abs(codes[i] - spots[near]) ** norm).sum(1) ** (1 / norm)
        expected = d**-2.0 / (d**-2.0).sum()
        np.testing.assert_allclose(response["weights"][i], expected, rtol=1e-4)
        value = expected @ table.targets[near]
        np.testing.assert_allclose(fitted.read(response, "raw")[i], value, atol=1e-4)


def test_a_spot_at_no_distance_takes_all_the_weight(table):
    fitted = fit(*METHODS[3], table, k=5)
    own = image_codes(fitted.image, fitted.inputs, table.features)
    fitted.length = np.linalg.norm(own, axis=1)
    fitted.gallery = type(fitted.gallery)(**{**vars(fitted.gallery), "z": fitted.compare(table.features)})
    assert np.isfinite(fitted.predict(table.features[:8])).all()
    np.testing.assert_allclose(fitted.predict(table.features[:8]), table.targets[:8], atol=1e-3)


def test_bleep_retrieves_by_expression_codes_and_heclip_by_images(table):
    torch.manual_seed(0)
    inputs = Inputs.fit(table, 8)
    for (method, settings), own in zip(METHODS[:2], (False, True), strict=True):
        network = method(settings).network(inputs.count, table.targets.shape[1], settings).eval()
        fitted = method(settings).fitted(network, inputs, table, settings)
        same = np.abs(fitted.compare(table.features) - fitted.gallery.z).max() < 1e-5
        assert same == own


def test_the_form_for_variable_genes_projects_onto_the_genes(table):
    fitted = fit(*METHODS[2], table)
    assert fitted.gallery.z.shape == table.targets.shape


def test_codes_of_a_section_depend_on_no_other_section(table):
    """The published code mixes sections in a sentence, test spots among them; ours must not."""
    torch.manual_seed(0)
    settings = METHODS[3][1]
    network = Mclstexp(settings).network(12, table.targets.shape[1], settings).eval()
    whole = spot_codes(network, table)
    for s in range(3):
        rows = table.section == s
        np.testing.assert_allclose(spot_codes(network, table.rows(rows)), whole[rows], atol=1e-4)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = type(table)(
        **{k: (v if k in ("section_names", "measured") else v[order]) for k, v in vars(table).items()}
    )
    np.testing.assert_allclose(spot_codes(network, shuffled), whole[order], atol=1e-4)
