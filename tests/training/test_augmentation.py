"""Augmentation: the eight symmetries of a square, and stain that leaves white white."""

import pytest
import torch

from chrep_model.training.augmentation import Augmentation


@pytest.fixture
def tile():
    return torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)).clamp_min(0.01)


def test_the_eight_turns_are_the_symmetries_of_a_square(tile):
    turned = Augmentation(torch.arange(8), torch.ones(8, 3))(tile.expand(8, 3, 5, 5))
    assert torch.equal(turned[0], tile)
    assert torch.equal(turned[1], tile.rot90(1, (1, 2)))
    assert torch.equal(turned[4], tile.flip(2))
    assert len({t.numpy().tobytes() for t in turned}) == 8
    for t in turned:
        assert torch.equal(t.flatten(1).sort(1).values, tile.flatten(1).sort(1).values)


def test_a_gain_of_the_optical_density_by_hand():
    pixels = torch.tensor([1.0, 0.5, 0.25, 0.0])[None, None, :, None].expand(1, 3, 4, 4)
    out = Augmentation(torch.zeros(1, dtype=torch.int64), torch.tensor([[2.0, 1.0, 0.5]]))(pixels)
    expected = [[1, 0.25, 0.0625], [1, 0.5, 0.25], [1, 0.5**0.5, 0.5]]
    torch.testing.assert_close(out[0, :, :3, 0], torch.tensor(expected))
    assert torch.isfinite(out).all()  # black has a density too


def test_draws_follow_torchs_seed_and_the_jitter():
    torch.manual_seed(0)
    one, other = Augmentation.draw(400, 0.2), Augmentation.draw(400, 0.2)
    torch.manual_seed(0)
    same = Augmentation.draw(400, 0.2)
    assert torch.equal(one.gain, same.gain) and torch.equal(one.turn, same.turn)
    assert not torch.equal(one.gain, other.gain)
    assert 0.8 <= one.gain.min() < 0.81 and 1.19 < one.gain.max() <= 1.2
    assert set(one.turn.tolist()) == set(range(8))
    assert (Augmentation.draw(9, 0.0).gain == 1).all()


def test_a_part_of_a_batch_is_changed_as_within_the_batch():
    pixels = torch.rand(6, 3, 8, 8)
    drawn = Augmentation.draw(6, 0.3)
    torch.testing.assert_close(drawn.part(slice(2, 5))(pixels[2:5]), drawn(pixels)[2:5])
