"""Matching: images and morphology of simulated galaxies imputed to labelled galaxies."""

from dataclasses import replace

import numpy as np
import torch
from estimator_cases import make_photometry

from astrogenspec.inference.finetuning.dataset import read_labelled_galaxies
from astrogenspec.inference.finetuning.matching import MatchedGalaxies
from astrogenspec.inference.training import EncodedGalaxies
from astrogenspec.inputs.features import N_MORPHOLOGY_FEATURES, SHAPE_FEATURES
from astrogenspec.inputs.observations import InputOptions, ObservationBatches

N, MATCHES, SIZE = 12, 16, 4


def labelled():
    """Return galaxies with redshifts.

    That of the first is a condition, the last has none, and the last but one has no z band.
    """
    table = make_photometry(N)
    table["flux_z"][N - 2] = np.nan * table["flux_z"].unit
    theta = np.full((N, 9), np.nan)
    theta[:-1, 0] = np.linspace(0.03, 0.2, N - 1)
    theta[:, 1] = 10.5
    known = np.full((N, 9), np.nan)
    known[0, 0] = 0.03
    return read_labelled_galaxies(ObservationBatches(None, table, InputOptions()), theta, known)[0]


def pool_of(galaxies, *, shift=0.0, images=True, sized=False):
    """Return 16 simulated galaxies with the redshift (plus a shift) and fluxes of each galaxy.

    The latent vectors hold the index of the galaxy.
    """
    rows = torch.arange(N).repeat_interleave(MATCHES)
    flux = torch.nan_to_num(galaxies.flux, nan=10.0)[rows]
    redshift = torch.nan_to_num(galaxies.theta[:, 0], nan=0.1)[rows] + shift
    number = rows.float()[:, None].expand(-1, SIZE)
    morphology = number[:, :1].expand(-1, N_MORPHOLOGY_FEATURES) + 1 if sized else None
    inputs = replace(
        galaxies.inputs[rows],
        morphology=morphology,
        image_bands=torch.ones(len(rows), 5) * images,
        image_noise=torch.full((len(rows), 5), 0.1) * images,
    )
    theta = torch.cat([redshift[:, None], torch.zeros(len(rows), 8)], 1)
    return EncodedGalaxies(inputs, number + 1, -number - 1, flux, theta, torch.ones(len(rows)))


def impute(galaxies, pool, times=60):
    matched, rng = MatchedGalaxies(galaxies, pool), torch.Generator().manual_seed(0)
    rows = torch.arange(N)
    return [matched.impute(galaxies.inputs, rows, rng) for _ in range(times)]


def test_images_are_imputed_from_similar_galaxies():
    galaxies = labelled()
    own = torch.arange(N)[:, None].expand(-1, SIZE) + 1.0
    given = []
    for inputs, (mu, logvar), imputed in impute(galaxies, pool_of(galaxies)):
        shown = inputs.has_image
        given.append(shown)
        assert torch.equal(imputed, shown) and inputs.morphology is None
        assert torch.equal(mu[shown], own[shown]) and torch.equal(logvar[shown], -own[shown])
        assert not mu[~shown].any() and not inputs.image_noise[~shown].any()
        assert torch.equal(inputs.photometry, galaxies.inputs.photometry)
    fraction = torch.stack(given).float().mean(0)
    assert not fraction[[0, -2, -1]].any()
    assert 0.15 < fraction[1:-2].mean() < 0.35


def test_nothing_is_imputed_without_a_similar_galaxy_with_image():
    galaxies = labelled()
    for pool in (pool_of(galaxies, shift=0.05), pool_of(galaxies, images=False)):
        assert not any(inputs.has_image.any() for inputs, *_ in impute(galaxies, pool, 20))


def test_missing_radii_and_axis_ratios_are_imputed():
    galaxies = labelled()
    own = torch.zeros(N, N_MORPHOLOGY_FEATURES)
    own[:, 0], own[:, 8] = 0.3, 1.0  # a Petrosian flux
    own[1, SHAPE_FEATURES] = 0.7
    galaxies = replace(galaxies, inputs=replace(galaxies.inputs, morphology=own))
    pool = pool_of(galaxies, sized=True)
    given = torch.zeros(N)
    for inputs, _, imputed in impute(galaxies, pool):
        morphology, shown = inputs.morphology, inputs.has_image
        sized = imputed & ~shown
        given += sized
        wanted = own.clone()
        wanted[sized[:, None] & _columns()] = _numbers()[sized[:, None] & _columns()]
        assert torch.equal(morphology, wanted)
    assert not given[[0, 1, -2, -1]].any() and (given[2:-2] > 10).all()
    without = replace(galaxies, inputs=replace(galaxies.inputs, morphology=None))
    found = torch.stack([inputs.morphology.any(1) for inputs, *_ in impute(without, pool, 20)])
    assert found.any(0)[1:-2].all() and not found[:, [0, -2, -1]].any()


def test_radii_are_imputed_from_galaxies_without_images():
    galaxies = labelled()
    found = impute(galaxies, pool_of(galaxies, images=False, sized=True))
    assert not any(inputs.has_image.any() or mu.any() for inputs, (mu, _), _ in found)
    fraction = torch.stack([imputed for *_, imputed in found]).float().mean(0)
    assert not fraction[[0, -2, -1]].any() and 0.35 < fraction[1:-2].mean() < 0.65
    for inputs, _, imputed in found:
        assert torch.equal(inputs.morphology[:, SHAPE_FEATURES].any(1), imputed)


def _columns():
    chosen = torch.zeros(N, N_MORPHOLOGY_FEATURES, dtype=torch.bool)
    chosen[:, SHAPE_FEATURES] = True
    return chosen


def _numbers():
    return torch.arange(N)[:, None].expand(-1, N_MORPHOLOGY_FEATURES) + 1.0
