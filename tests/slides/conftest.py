"""Pictures for tests of readers."""

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture(scope="session")
def make_tissue():
    """``make_tissue(rows, cols, seed=0)``: uint8 RGB like a section, with stroma, nuclei and glass."""

    def make(rows, cols, seed=0):
        rng = np.random.default_rng(seed)

        def field(scale):
            coarse = rng.normal(size=(rows // scale + 6, cols // scale + 6))
            return ndimage.zoom(coarse, scale, order=3)[scale : scale + rows, scale : scale + cols]

        tissue, stain, nuclei = field(200), field(24), field(5)
        image = np.full((rows, cols, 3), (243, 240, 244), float)
        inside = tissue > -0.5
        image[inside] = np.array([222, 160, 200]) + 18 * stain[inside, None] * np.array([0.6, 1, 0.7])
        image[inside & (nuclei > 0.9)] = (95, 60, 140)
        image += rng.normal(0, 2, image.shape)
        return image.clip(0, 255).astype(np.uint8)

    return make
