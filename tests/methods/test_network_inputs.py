"""Inputs of the small networks against scikit-learn's principal components."""

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA

from chrep_model.methods.network_inputs import Inputs


def test_inputs_are_principal_components_but_for_one_factor(make_table):
    table = make_table(dim=20)
    table = dataclasses.replace(table, features=table.features * np.linspace(1, 5, 20, dtype=np.float32) + 3)
    x = Inputs.fit(table, 6)(table.features)
    expected = PCA(6).fit_transform(table.features.astype(np.float64))
    expected /= np.sqrt((expected**2).mean())
    signs = np.sign((x * expected).sum(0))
    np.testing.assert_allclose(x * signs, expected, atol=1e-4)
    assert x.dtype == np.float32
    assert (x**2).mean() == pytest.approx(1, rel=1e-4)


def test_there_are_no_more_inputs_than_components(make_table):
    table = make_table(sections=1, spots=9, dim=12)
    assert Inputs.fit(table, 64).count == 9
    assert Inputs.fit(table, 4).count == 4


def test_constant_features_are_finite(make_table):
    table = make_table()
    table = dataclasses.replace(table, features=np.ones_like(table.features))
    np.testing.assert_array_equal(Inputs.fit(table, 3)(table.features), 0)


def test_inputs_survive_their_arrays(table, unseen):
    inputs = Inputs.fit(table, 5)
    again = Inputs.from_arrays(inputs.arrays() | {"else": np.zeros(1)})
    np.testing.assert_array_equal(again(unseen.features), inputs(unseen.features))
    with pytest.raises(KeyError):
        Inputs.from_arrays({"centre": inputs.centre})
