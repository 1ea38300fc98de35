"""Tests of the light in circular apertures and of Petrosian radii."""

import numpy as np
import pytest
import torch
from scipy.special import gammainc

from astrogenspec.simulate import profiles
from astrogenspec.simulate.apertures import light_within, measure_petrosian
from astrogenspec.simulate.structure import Structure

RADII = torch.tensor([0.5, 1.5, 4.0, 12.0, 20.0])


def fluxes(bulge, old, young=0.0, nucleus=0.0):
    parts = torch.tensor([bulge, old, young, nucleus])
    return parts.expand(1, 5, 4) * torch.tensor([0.2, 0.6, 1.0, 1.3, 1.6])[:, None]


def exponential(r):
    return 1 - (1 + r) * np.exp(-r)


def test_growth_of_an_exponential_disk_at_all_radii():
    structure = Structure.smooth(torch.tensor([3.0]), torch.ones(1))
    found = light_within(structure, RADII, 0.1)[0, :, 1].numpy()
    expected = exponential(RADII.numpy() * profiles.EXPONENTIAL_HALF_LIGHT / 3.0)
    np.testing.assert_allclose(found, expected, atol=0.003)


def test_growth_of_a_seeing_disk_is_that_of_a_gaussian():
    structure = Structure.smooth(torch.tensor([0.02]), torch.tensor([0.02]))
    found = light_within(structure, RADII, 1.5)[0, :, 1].numpy()
    expected = 1 - np.exp(-0.5 * (RADII.numpy() * 2.35482 / 1.5) ** 2)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_growth_of_a_flat_disk_by_integration():
    ratio, scale = 0.3, 2.0
    structure = Structure.smooth(
        torch.tensor([scale * profiles.EXPONENTIAL_HALF_LIGHT]),
        torch.ones(1),
        axis_ratio_disk=ratio,
    )
    step = 0.02
    x = np.arange(-30, 30, step) + step / 2
    y = x[:, None]
    image = np.exp(-np.hypot(x, y / ratio) / scale) * step**2 / (2 * np.pi * scale**2 * ratio)
    inside = [image[np.hypot(x, y) < r].sum() for r in (1.5, 4.0)]
    found = light_within(structure, torch.tensor([1.5, 4.0]), 0.1)[0, :, 1].numpy()
    np.testing.assert_allclose(found, inside, atol=0.01)


def test_growth_of_a_broken_disk_ends_at_one():
    radius = np.linspace(0, 80, 80001)
    for slope in (1.0, -0.4):
        structure = Structure.smooth(
            torch.tensor([profiles.EXPONENTIAL_HALF_LIGHT]),
            torch.ones(1),
            disk_break=2.5,
            disk_break_slope=slope,
        )
        found = light_within(structure, RADII, 0.05)[0]
        profile = np.exp(-radius - slope * np.clip(radius - 2.5, 0, None)) * radius
        growth = np.cumsum(profile) / profile.sum()
        expected = np.interp(RADII.numpy(), radius, growth)
        np.testing.assert_allclose(found[:, 1].numpy(), expected, atol=0.004)
        assert (found.diff(dim=0) > -1e-4).all()
        torch.testing.assert_close(found[-1, 1:], torch.ones(2), atol=0.002, rtol=0)


def test_petrosian_measures_of_an_exponential_disk():
    """Twice the Petrosian radius contains 99.4% of an exponential (Graham et al. 2005)."""
    structure = Structure.smooth(torch.tensor([5.0]), torch.ones(1), axis_ratio_disk=1.0)
    found = measure_petrosian(structure, fluxes(0.0, 10.0), 0.1)
    assert found.flux[0, 2].item() == pytest.approx(9.94, abs=0.02)
    assert found.r50.item() == pytest.approx(5.0 * 0.995, rel=0.01)
    assert (found.r90 / found.r50).item() == pytest.approx(2.29, abs=0.03)
    torch.testing.assert_close(
        found.flux[0] / found.flux[0, 2], torch.tensor([0.2, 0.6, 1.0, 1.3, 1.6])
    )


def test_petrosian_measures_of_a_spheroid():
    """The Petrosian aperture misses much light of a de Vaucouleurs profile."""
    structure = Structure.smooth(torch.tensor([5.0]), torch.tensor([5.0]), axis_ratio_bulge=0.7)
    found = measure_petrosian(structure, fluxes(10.0, 0.0), 0.1)
    lost = 1 - found.flux[0, 2].item() / 10
    assert 0.05 < lost < 0.18
    assert 2.8 < (found.r90 / found.r50).item() < 3.5
    assert found.axis_ratio.item() == pytest.approx(0.7)
    # 83% of the light within 4 radii by the incomplete gamma function, without a faded edge
    assert gammainc(8, 7.669 * 4**0.25) == pytest.approx(0.83, abs=0.02)


def test_seeing_makes_small_galaxies_larger_and_a_nucleus_makes_them_smaller():
    structure = Structure.smooth(torch.tensor([0.5]), torch.tensor([0.3]))
    sharp, blurred = (measure_petrosian(structure, fluxes(0.0, 10.0), w).r50 for w in (0.1, 1.5))
    assert blurred > 1.3 * sharp
    large = Structure.smooth(torch.tensor([5.0]), torch.tensor([1.0]))
    plain, active = (
        measure_petrosian(large, fluxes(0.0, 10.0, nucleus=flux), 1.3).r50 for flux in (0.0, 5.0)
    )
    assert active < 0.8 * plain


def test_axis_ratios_are_weighted_by_light():
    structure = Structure.smooth(
        torch.tensor([5.0]), torch.tensor([1.0]), axis_ratio_disk=0.2, axis_ratio_bulge=0.8
    )
    found = measure_petrosian(structure, fluxes(5.0, 10.0, 5.0), 1.3)
    assert found.axis_ratio.item() == pytest.approx(0.35)


def test_chunks_do_not_change_the_result():
    n = 700
    radius = torch.linspace(0.3, 20.0, n)
    structure = Structure.smooth(radius, 0.3 * radius)
    flux = fluxes(3.0, 7.0).expand(n, 5, 4)
    all_of_them = measure_petrosian(structure, flux, 1.3)
    one = measure_petrosian(structure[600:601], flux[600:601], 1.3)
    torch.testing.assert_close(all_of_them.r90[600:601], one.r90)
    assert (all_of_them.r50.diff() > 0).all() and torch.isfinite(all_of_them.flux).all()
