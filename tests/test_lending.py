"""Images that simulated galaxies lend to labelled ones without."""

from dataclasses import replace

import numpy as np
import torch
from estimator_cases import make_photometry

from astrogenspec.blocks import InputOptions, ObservationBlocks
from astrogenspec.inference.labelled import read_labelled
from astrogenspec.inference.lending import LentImages
from astrogenspec.inference.rehearsal import EncodedGalaxies

N, LENDERS, SIZE = 12, 16, 4


def labelled():
    """Galaxies of different redshifts; of the first it is a condition, the last but one has no z band, the last no redshift."""
    table = make_photometry(N)
    table["flux_z"][N - 2] = np.nan * table["flux_z"].unit
    theta = np.full((N, 9), np.nan)
    theta[:-1, 0] = np.linspace(0.03, 0.2, N - 1)
    theta[:, 1] = 10.5
    known = np.full((N, 9), np.nan)
    known[0, 0] = 0.03
    return read_labelled(ObservationBlocks(None, table, InputOptions()), theta, known)[0]


def pool_of(galaxies, *, shift=0.0, images=True):
    """Sixteen lenders of the redshift (plus a shift) and the fluxes of each galaxy; the latent says of whom."""
    rows = torch.arange(N).repeat_interleave(LENDERS)
    flux = torch.nan_to_num(galaxies.flux, nan=10.0)[rows]
    redshift = torch.nan_to_num(galaxies.theta[:, 0], nan=0.1)[rows] + shift
    number = rows.float()[:, None].expand(-1, SIZE)
    inputs = replace(
        galaxies.inputs[rows],
        image_bands=torch.ones(len(rows), 5) * images,
        image_noise=torch.full((len(rows), 5), 0.1) * images,
    )
    return EncodedGalaxies(inputs, number + 1, -number - 1, flux, redshift)


def lend(galaxies, pool, times=60):
    lent, rng = LentImages(galaxies, pool), torch.Generator().manual_seed(0)
    rows = torch.arange(N)
    return [lent.lend(galaxies.inputs, rows, rng) for _ in range(times)]


def test_galaxies_borrow_from_those_that_look_alike():
    galaxies = labelled()
    own = torch.arange(N)[:, None].expand(-1, SIZE) + 1.0
    given = []
    for inputs, (mu, logvar) in lend(galaxies, pool_of(galaxies)):
        shown = inputs.has_image
        given.append(shown)
        assert torch.equal(mu[shown], own[shown]) and torch.equal(logvar[shown], -own[shown])
        assert not mu[~shown].any() and not inputs.image_noise[~shown].any()
        assert torch.equal(inputs.photometry, galaxies.inputs.photometry)
    share = torch.stack(given).float().mean(0)
    assert not share[[0, -2, -1]].any()
    assert 0.15 < share[1:-2].mean() < 0.35


def test_no_one_borrows_from_those_that_do_not_look_alike():
    galaxies = labelled()
    for pool in (pool_of(galaxies, shift=0.05), pool_of(galaxies, images=False)):
        assert not any(inputs.has_image.any() for inputs, _ in lend(galaxies, pool, 20))
