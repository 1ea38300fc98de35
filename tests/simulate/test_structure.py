"""Structure of simulated galaxies, radial profiles and fibre fractions."""

import math

import numpy as np
import pytest
import torch
from structure_cases import PRIORS, drawn, population

from astrogenspec.simulate import profiles
from astrogenspec.simulate.apertures import fibre_fractions
from astrogenspec.simulate.structure import Structure


def test_structure_is_finite_and_within_bounds():
    structure = drawn(population())
    for name in structure.__dataclass_fields__:
        values = getattr(structure, name)
        assert values.shape == (4000,) and values.dtype == torch.float32, name
        assert torch.isfinite(values).all(), name
    assert structure.radius_disk.min() > 0 and structure.radius_bulge.min() > 0
    for name in ("axis_ratio_disk", "axis_ratio_bulge", "companion_axis_ratio"):
        assert getattr(structure, name).min() > 0 and getattr(structure, name).max() <= 1


def test_same_seed_same_structure():
    galaxies = population()
    first, again, other = drawn(galaxies, 1), drawn(galaxies, 1), drawn(galaxies, 2)
    assert torch.equal(first.arm_phase, again.arm_phase)
    assert not torch.equal(first.arm_phase, other.arm_phase)


def test_rates_are_those_of_the_priors():
    galaxies = population(40000)
    structure = drawn(galaxies)
    disks = galaxies["bulge_fraction"] <= 0.9
    assert (structure.bar_light[disks] > 0).float().mean() == pytest.approx(
        PRIORS.bar_fraction, abs=0.01
    )
    assert (structure.bar_light[~disks] == 0).all()
    pairs = (structure.companion_ratio > 0).float().mean()
    assert pairs == pytest.approx(PRIORS.companion_fraction + PRIORS.merger_fraction, abs=0.003)


def test_only_star_forming_disks_have_arms_and_lanes():
    galaxies = population()
    structure = drawn(galaxies)
    smooth = galaxies["quiescent"] | (galaxies["bulge_fraction"] > 0.9)
    for name in ("arm_strength", "clumpiness", "dust_lane", "irregularity", "lopsidedness"):
        assert (getattr(structure, name)[smooth] == 0).all(), name
        assert (getattr(structure, name)[~smooth] > 0).any(), name
    face_on = galaxies["cos_inclination"] > PRIORS.dust_lane_inclination
    assert (structure.dust_lane[face_on] == 0).all()


def test_low_mass_disks_are_more_often_irregular():
    galaxies = population(20000)
    galaxies |= {"log_mass": galaxies["log_mass"] - 1.0}
    structure = drawn(galaxies)
    late = ~galaxies["quiescent"] & (galaxies["bulge_fraction"] <= 0.9)
    irregular = (structure.irregularity > 0).float()
    low = late & (galaxies["log_mass"] < 8.5)
    high = late & (galaxies["log_mass"] > 9.7)
    assert irregular[low].mean() > 0.5 and irregular[high].mean() < 0.05


def test_size_follows_mass_and_deviate():
    galaxies = population(2000, size_deviate=torch.zeros(2000), quiescent=torch.zeros(2000) > 1)
    small = drawn(galaxies | {"log_mass": torch.full((2000,), 9.5)})
    large = drawn(galaxies | {"log_mass": torch.full((2000,), 11.0)})
    assert large.radius_disk.median() > 2 * small.radius_disk.median()
    larger = drawn(galaxies | {"size_deviate": torch.ones(2000)})
    usual = drawn(galaxies)
    assert (larger.radius_disk > usual.radius_disk).all()


def test_edge_on_disks_are_as_thin_as_the_prior():
    galaxies = population(4000, cos_inclination=torch.zeros(4000))
    galaxies |= {"log_mass": torch.full((4000,), 10.5)}
    structure = drawn(galaxies)
    disks = galaxies["bulge_fraction"] <= 0.9
    assert structure.axis_ratio_disk[disks].median() == pytest.approx(PRIORS.thickness, abs=0.01)


def test_selection_and_smooth():
    structure = drawn(population(10))
    assert len(structure[2:5]) == 3
    mask = structure.radius_disk > structure.radius_disk.median()
    assert len(structure[mask]) == 5
    smooth = Structure.smooth(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]), sersic_bulge=2.0)
    assert not smooth.has_features.any()
    assert smooth.sersic_bulge.tolist() == [2.0, 2.0]
    assert smooth.replace(clumpiness=torch.ones(2)).has_features.all()


@pytest.mark.parametrize("index", [0.5, 1.0])
def test_sersic_transform_against_closed_forms(index):
    wave = torch.tensor([[1e-4, 0.01, 0.05, 0.1, 0.3, 0.6]])
    values = profiles.sersic_transform(wave**2, torch.tensor([index]))
    if index == 0.5:
        sigma = 1 / math.sqrt(2 * math.log(2))
        expected = torch.exp(-2 * (math.pi * sigma * wave) ** 2)
    else:
        expected = profiles.exponential_transform((wave / profiles.EXPONENTIAL_HALF_LIGHT) ** 2)
    torch.testing.assert_close(values, expected, atol=1e-3, rtol=0)


def test_transforms_are_one_at_zero_frequency():
    zero = torch.zeros(3, 1)
    index = torch.tensor([1.0, 4.0, 7.0])
    torch.testing.assert_close(profiles.sersic_transform(zero, index), torch.ones(3, 1))
    torch.testing.assert_close(profiles.young_disk_transform(zero), torch.ones(3, 1))


def test_light_of_break_against_integration():
    radius = np.linspace(0, 60, 60001)
    for slope in (1.0, -0.4):
        profile = np.exp(-radius - slope * np.clip(radius - 2.5, 0, None))
        total = 2 * np.pi * np.trapezoid(profile * radius, radius)
        added = profiles.light_of_break(torch.tensor(2.5), torch.tensor(slope))
        assert 2 * np.pi + float(added) == pytest.approx(total, rel=1e-3)


def test_fibre_fraction_of_an_exponential_without_seeing():
    radius_disk = torch.tensor([1.0, 3.0, 6.0])
    structure = Structure.smooth(radius_disk, torch.ones(3))
    x = 1.5 * profiles.EXPONENTIAL_HALF_LIGHT / radius_disk
    expected = 1 - (1 + x) * torch.exp(-x)
    fractions = fibre_fractions(structure, fwhm=0.1)
    torch.testing.assert_close(fractions[:, 1], expected, atol=0.003, rtol=0)


def test_fibre_fraction_of_a_bulge_half_of_whose_light_is_inside():
    structure = Structure.smooth(torch.tensor([3.0]), torch.tensor([1.5]))
    fractions = fibre_fractions(structure, fwhm=0.1)
    assert float(fractions[0, 0]) == pytest.approx(0.5, abs=0.01)
    blurred = fibre_fractions(structure, fwhm=2.0)
    assert blurred[0, 0] < fractions[0, 0]
    assert ((blurred > 0) & (blurred < 1)).all()
