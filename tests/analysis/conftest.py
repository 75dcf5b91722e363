"""Every test has a cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(own_cache):
    """Nothing of one test is remembered in another."""
