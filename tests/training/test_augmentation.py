"""Sizes and shapes of simulated galaxies as catalogues have them."""

from dataclasses import replace

import pytest
import torch

from astrogenspec.inputs.features import SHAPE_FEATURES, morphology_features
from astrogenspec.training.augmentation import (
    AugmentationConfig,
    MorphologyAugmentation,
    augment,
    augment_photometry,
    observe_morphology,
)

N = 4000
EXACT = MorphologyAugmentation(
    shown=1.0,
    kept=1.0,
    radius_scatter=0.0,
    concentration_scatter=0.0,
    axis_ratio_scatter=0.0,
    other_pipeline=0.0,
)


def galaxies(n=N):
    r50 = 1 + 4 * torch.rand(n, generator=torch.Generator().manual_seed(1))
    return {"r50": r50, "r90": 2.5 * r50, "axis_ratio": torch.full((n,), 0.6)}


def observed(config, seed=0):
    return observe_morphology(galaxies(), config, torch.Generator().manual_seed(seed))


def test_without_errors_it_is_the_truth():
    true, none = galaxies(), torch.full((N, 5), torch.nan)
    wanted = morphology_features(none, none, true["r50"], true["r90"], true["axis_ratio"])
    torch.testing.assert_close(observed(EXACT), wanted)


def test_some_have_nothing_and_some_have_parts():
    features = observed(replace(EXACT, shown=0.5, kept=0.7))
    present = features[:, SHAPE_FEATURES[3:]]
    assert not features[:, :5].any() and not features[:, 8:13].any()  # Petrosian fluxes
    # Each part is kept in 70%; r90 says nothing without r50.
    for k, share in enumerate((0.35, 0.245, 0.35)):
        assert present[:, k].mean() == pytest.approx(share, abs=0.03)
    assert present.any(1).float().mean() == pytest.approx(0.5 * (1 - 0.3**2), abs=0.03)


def test_errors_are_as_large_as_stated():
    config = replace(EXACT, radius_scatter=0.03, axis_ratio_scatter=0.05)
    difference = observed(config) - observed(EXACT)
    assert difference[:, 5].std() * 0.3 == pytest.approx(0.03, rel=0.1)
    assert difference[:, 7].std() * 0.2 == pytest.approx(0.05, rel=0.1)
    assert difference[:, 6].std() < 1e-4  # r90 goes with r50
    config = replace(EXACT, concentration_scatter=0.02)
    ratio = (observed(config)[:, 6] * 0.5 + 2.5) / 2.5
    assert ratio.log10().std() == pytest.approx(0.02, rel=0.1)


def test_radii_of_other_pipelines_are_larger():
    config = replace(EXACT, other_pipeline=0.5)
    larger = (observed(config) - observed(EXACT))[:, 5] * 0.3
    assert (larger > 1e-4).float().mean() == pytest.approx(0.5, abs=0.04)
    assert larger.min() > -1e-5 and 0.2 < larger.max() <= 0.25 + 1e-5


def test_photometry_and_images_come_with_sizes():
    true, flux = galaxies(300), 30 * torch.ones(300, 5)
    config = AugmentationConfig(mode_weights=(0.5, 0.5, 0.0, 0.0), structure=EXACT)
    rng = torch.Generator().manual_seed(0)
    alone = augment_photometry(flux, 0.02 * flux, config, rng, morphology=true)
    images = torch.ones(300, 5, 64, 64)
    both = augment(images, flux, 0.02 * flux, morphology=true, config=config, generator=rng)
    for inputs in (alone, both):
        assert (inputs.morphology[:, SHAPE_FEATURES[3:]] == 1).all()
    assert augment_photometry(flux, 0.02 * flux, config, rng).morphology is None


def test_sizes_follow_their_seed():
    first, again, other = (observed(MorphologyAugmentation(), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
