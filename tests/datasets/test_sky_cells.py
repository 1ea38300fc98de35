"""Division of the sky."""

import numpy as np
import pytest

from astrogenspec.datasets.sky_cells import SPLIT_FRACTIONS, SPLITS, sky_cell, split_of


def test_cells_have_equal_areas():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 200_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    cells = sky_cell(ra, dec)
    counts = np.bincount(cells, minlength=90 * 180)
    assert len(counts) == 90 * 180
    # Poisson: the variance of the counts is their mean.
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.05)


def test_split_is_fixed():
    """The division must never change: data sets of all users share it."""
    ra, dec = [0.0, 10.0, 120.0, 150.0, 185.5, 200.0, 230.0, 359.9], [0, 0.5, 30, 2, 60, -5, 10, 89]
    expected = [
        "validation",
        "train",
        "validation",
        "train",
        "test",
        "validation",
        "train",
        "validation",
    ]
    assert list(split_of(ra, dec)) == expected
    assert list(split_of(np.array(ra) + 360, dec)) == expected


def test_fractions_of_the_sky():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 100_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 100_000)))
    split = split_of(ra, dec)
    for name, fraction in zip(SPLITS, SPLIT_FRACTIONS, strict=True):
        assert (split == name).mean() == pytest.approx(fraction, abs=0.015)


def test_neighbours_share_a_split():
    assert len(set(split_of([180.30, 180.31], [0.50, 0.51]))) == 1


@pytest.mark.parametrize("dec", [91.0, np.nan])
def test_invalid_positions(dec):
    with pytest.raises(ValueError, match="galaxy 1 is at ra"):
        sky_cell([0.0, 1.0], [0.0, dec])
