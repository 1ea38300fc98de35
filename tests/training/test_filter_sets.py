"""Tests of the observation of simulated galaxies in random sets of filters."""

import numpy as np
import pytest
import torch

from astrogenspec.inputs.feature_layout import SED_SUMMARY
from astrogenspec.inputs.sed_features import SEDComponents, filter_curve
from astrogenspec.surveys import get_filter
from astrogenspec.training.filter_sets import (
    TRAINING_SETS,
    FilterBank,
    FilterNoise,
    FilterObserver,
    FilterSet,
    random_curve,
    sets_with_other_filters,
)
from astrogenspec.wavelengths import SED_GRID

UGRIZ = tuple(f"sdss2010-{band}" for band in "ugriz")
QUIET = {
    "random_fraction": 0.0,
    "shallow_fraction": 0.0,
    "blend_fraction": 0.0,
    "outlier_fraction": 0.0,
    "all_bands": 1.0,
    "gri_bands": 0.0,
}


def galaxies(n=400, seed=0):
    """Power laws in wavelength, with fluxes of 20 to 200 nmgy in r, and errors of SDSS."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(n, 1, generator=generator)
    level = 20 * 10 ** torch.rand(n, 1, generator=generator)
    x = torch.tensor(SED_GRID.log_wavelength - np.log10(6200), dtype=torch.float32)
    return level * 10 ** (slope * x), torch.full((n, 5), 0.5)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def curves_of(names):
    curves = np.stack([filter_curve(get_filter(name)) for name in names])
    return torch.tensor(curves, dtype=torch.float32)


def test_random_filters_are_normalised_and_cover_the_optical_and_infrared():
    rng = np.random.default_rng(0)
    curves = np.stack([random_curve(rng) for _ in range(500)])
    np.testing.assert_allclose(curves.sum(1), 1)
    assert (curves >= 0).all()
    pivot = 10 ** (curves @ SED_GRID.log_wavelength)
    assert 3300 < pivot.min() < 4000 and 19_000 < pivot.max() < 23_000
    assert 0.15 < (pivot > 10_000).mean() < 0.4


def test_pan_starrs_and_bessell_are_held_out():
    names = {name for item in TRAINING_SETS for name in (*item.filters, *item.second)}
    assert not [name for name in names if name.startswith(("panstarrs", "bessell"))]
    assert sum(item.weight for item in TRAINING_SETS) == pytest.approx(0.81)


def test_fluxes_scatter_by_their_stated_errors():
    noise = FilterNoise(**QUIET, error_scale=(1.0, 1.0), calibration_error=(0.02, 0.02))
    sets = (FilterSet(tuple(f"decamDR1-{band}" for band in "grz")),)
    sed, error = galaxies(3000)
    seen = FilterBank(sets, noise, n_random=200).observe(sed, error, seeded())
    true = sed @ curves_of(sets[0].filters).T
    order = torch.tensor([sorted(sets[0].filters).index(name) for name in sets[0].filters])
    assert (seen.index == order).all()
    sigma = torch.hypot(seen.error, seen.calibration_error / 1.0857 * true)
    pull = (seen.flux - true) / sigma
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert pull.mean() == pytest.approx(0, abs=0.03)
    assert (seen.aperture_error == 0).all()


def test_sdss_has_its_own_errors():
    noise = FilterNoise(**QUIET, error_scale=(1.0, 1.0))
    sed, error = galaxies(50)
    seen = FilterBank((FilterSet(UGRIZ),), noise, n_random=200).observe(sed, error, seeded())
    torch.testing.assert_close(seen.error, error)
    torch.testing.assert_close(
        seen.calibration_error, torch.tensor(noise.sdss_calibration).expand(50, -1)
    )


def test_bands_of_a_second_survey_share_an_offset():
    noise = FilterNoise(**QUIET, aperture_error=(0.3, 0.3), infrared_depth=(26.0, 26.0))
    sets = (FilterSet(UGRIZ, ("twomass-J", "twomass-H", "twomass-Ks")),)
    sed, error = galaxies(2000)
    bank = FilterBank(sets, noise, n_random=200)
    seen = bank.observe(sed, 1e-3 * error, seeded())
    true = sed @ curves_of([bank.names[k] for k in seen.index[0]]).T
    offset = -2.5 * torch.log10(seen.flux / true)
    infrared = seen.aperture_error[..., 0] > 0
    rows = infrared.any(1)
    assert rows.float().mean() == pytest.approx(0.8, abs=0.05)
    assert (infrared.sum(1)[rows] == 3).all()
    second = offset[rows][infrared[rows]].view(-1, 3)
    assert second.mean(1).std() == pytest.approx(0.3, abs=0.03)
    assert second.std(1).median() < 0.05
    assert offset[~infrared].abs().median() < 0.02


def test_missing_bands_come_last_and_one_band_is_always_there():
    noise = FilterNoise(**QUIET | {"all_bands": 0.0})
    sed, error = galaxies(500)
    seen = FilterBank((FilterSet(UGRIZ),), noise, n_random=200).observe(sed, error, seeded())
    present = seen.flux.isfinite()
    assert present.any(1).all()
    assert (present.int().diff(dim=1) <= 0).all()
    assert 2.5 < present.sum(1).float().mean() < 4.5


def test_features_depend_on_the_generator_only():
    sed, error = galaxies()
    bank, components = FilterBank(n_random=300), SEDComponents(6)
    components.fit(sed / sed[:, [200]])
    observer = FilterObserver(bank, components)
    first, second, third = (observer(sed, error, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.shape == (len(sed), len(components.layout))
    assert first.isfinite().all()
    assert (first[:, SED_SUMMARY.index("n_bands")] > 0).all()


def test_photometry_measured_on_images_is_marked():
    sed, error = galaxies(20)
    components = SEDComponents(6)
    components.fit(sed / sed[:, [200]])
    observer = FilterObserver(FilterBank(n_random=200), components)
    features = observer.measured_on_image(sed @ curves_of(UGRIZ).T, error)
    assert (features[:, SED_SUMMARY.index("measured")] == 1).all()


def test_sets_with_other_filters_leave_out_those_of_a_survey():
    sdss = [f"sdss2010-{band}" for band in "ugriz"]
    others = sets_with_other_filters(sdss)
    assert len(others) == len(TRAINING_SETS) - 1
    assert all({*item.filters, *item.second} - set(sdss) for item in others)
    assert sets_with_other_filters(()) == TRAINING_SETS
