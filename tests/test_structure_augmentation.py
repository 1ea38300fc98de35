"""Sizes and shapes of simulated galaxies as catalogues have them."""

from dataclasses import replace

import pytest
import torch

from astrogenspec.augmentation import AugmentationConfig, augment, augment_photometry
from astrogenspec.preprocessing import SHAPE_FEATURES, structure_features
from astrogenspec.structure_augmentation import StructureAugmentation, observe_structure

N = 4000
EXACT = StructureAugmentation(
    shown=1.0,
    kept=1.0,
    petrosian_offset=(0.0,) * 5,
    petrosian_scatter=0.0,
    petrosian_band_scatter=(0.0,) * 5,
    petrosian_error=0.0,
    radius_scatter=0.0,
    concentration_scatter=0.0,
    axis_ratio_scatter=0.0,
    other_pipeline=0.0,
)
ALL = slice(8, 16)


def galaxies(n=N):
    rng = torch.Generator().manual_seed(1)
    flux = 30 * torch.ones(n, 5)
    r50 = 1 + 4 * torch.rand(n, generator=rng)
    true = {
        "petro_flux": 0.9 * flux,
        "r50": r50,
        "r90": 2.5 * r50,
        "axis_ratio": 0.6 * flux[:, 0] / 30,
    }
    return true, flux, 0.02 * flux


def observed(config, seed=0, **changes):
    true, flux, error = galaxies()
    return observe_structure(
        true | changes, flux, error, config, torch.Generator().manual_seed(seed)
    )


def test_without_errors_it_is_the_truth():
    true, flux, _ = galaxies()
    names = ("petro_flux", "r50", "r90", "axis_ratio")
    wanted = structure_features(flux, *(true[name] for name in names))
    torch.testing.assert_close(observed(EXACT), wanted)


def test_some_have_nothing_and_some_have_parts():
    features = observed(replace(EXACT, shown=0.5, kept=0.7))
    present = features[:, ALL]
    shown = present.any(1)
    # Four parts, each kept in 70%: all are lost in 0.8% of those shown.
    assert shown.float().mean() == pytest.approx(0.5, abs=0.03)
    petrosian, r50, _, axis_ratio = (present[shown][:, k].mean() for k in (0, 5, 6, 7))
    assert all(share == pytest.approx(0.7, abs=0.04) for share in (petrosian, r50, axis_ratio))
    assert present[shown][:, 6].mean() == pytest.approx(0.49, abs=0.04)  # r90 and r50
    assert (present[:, :5].sum(1).unique() == torch.tensor([0.0, 5.0])).all()
    assert not features[~shown].any()


def test_errors_are_as_large_as_stated():
    config = replace(
        EXACT, radius_scatter=0.03, axis_ratio_scatter=0.05, petrosian_scatter=0.04,
        petrosian_error=2.0,
    )  # fmt: skip
    found, exact = observed(config), observed(EXACT)
    difference = found - exact
    assert difference[:, 5].std() * 0.3 == pytest.approx(0.03, rel=0.1)
    assert difference[:, 7].std() * 0.2 == pytest.approx(0.05, rel=0.1)
    magnitudes = difference[:, :5] * 0.15
    error = 1.0857 * 2 * 0.02 / 0.9
    assert magnitudes.std(0).mean() == pytest.approx((0.04**2 + error**2) ** 0.5, rel=0.1)
    common = torch.corrcoef(magnitudes.T)[0, 1]
    assert common == pytest.approx(0.04**2 / (0.04**2 + error**2), abs=0.1)
    assert difference[:, 6].std() < 1e-4  # r90 goes with r50


def test_radii_of_other_pipelines_are_larger_where_nothing_says_whose_they_are():
    config = replace(EXACT, kept=0.5, other_pipeline=0.5)
    features, exact = observed(config), observed(EXACT)
    larger = (features - exact)[:, 5] * 0.3
    sized, petrosian = features[:, 13] > 0, features[:, 8] > 0
    assert larger[sized & petrosian].abs().max() < 1e-5
    other = larger[sized & ~petrosian]
    assert (other > 1e-4).float().mean() == pytest.approx(0.5, abs=0.06)
    assert other.min() > -1e-5 and 0.2 < other.max() <= 0.25 + 1e-5


def test_bands_that_are_missing_have_no_petrosian_flux():
    true, flux, error = galaxies(50)
    flux[:, 4] = torch.nan
    present = observe_structure(true, flux, error, EXACT)[:, ALL]
    assert present[:, :4].all() and not present[:, 4].any()


def test_photometry_and_images_come_with_sizes():
    true, flux, error = galaxies(300)
    config = AugmentationConfig(mode_weights=(0.5, 0.5, 0.0, 0.0), structure=EXACT)
    rng = torch.Generator().manual_seed(0)
    alone = augment_photometry(flux, error, config, rng, structure=true)
    images = augment(
        torch.ones(300, 5, 64, 64), flux, error, structure=true, config=config, generator=rng
    )
    for inputs in (alone, images):
        assert (inputs.structure[:, SHAPE_FEATURES[3:]] == 1).all()
        assert torch.equal(inputs.structure[:, 8:13] > 0, inputs.photometry_bands)
    assert augment_photometry(flux, error, config, rng).structure is None


def test_sizes_follow_their_seed():
    first, again, other = (observed(StructureAugmentation(), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
