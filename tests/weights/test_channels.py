"""Which filters of a donor an input takes, and whose normalisation it keeps."""

from __future__ import annotations

import pytest

from fullconv.nets.options import InputOptions
from fullconv.weights.channels import plan_inputs

COLOUR = InputOptions((124.0, 117.0, 104.0), (58.0, 57.0, 56.0), "bgr")


@pytest.mark.parametrize("channels", [1, 3, 10])
def test_bands_keep_their_own_range(channels: int) -> None:
    """A donor's means of pictures say nothing of reflectances in the thousands."""
    numbers = tuple(range(1, channels + 1))
    own = InputOptions((900.0,) * channels, (400.0,) * channels, bands=numbers, preview=numbers[:1])
    filters = plan_inputs({"image": own}, {"image": COLOUR}, COLOUR)["image"]
    assert filters.options == own
    assert sum(piece.count for piece in filters.pieces) == channels
    if channels >= 3:  # the donor reads blue first, bands are read in their order
        assert filters.pieces[0].reverse


def test_the_same_bands_keep_what_the_weights_were_trained_with() -> None:
    own = InputOptions((900.0,) * 4, (400.0,) * 4, bands=(4, 3, 2, 8))
    donor = InputOptions((850.0,) * 4, (390.0,) * 4, bands=(4, 3, 2, 8))
    filters = plan_inputs({"image": own}, {"image": donor}, COLOUR)["image"]
    assert filters.options == donor
    assert not filters.pieces[0].reverse


def test_pictures_take_the_donors_normalisation() -> None:
    own = InputOptions((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert plan_inputs({"image": own}, {"image": COLOUR}, COLOUR)["image"].options == COLOUR
