"""Tests of the flux in the fibre measured on images and of the flux calibration of draws."""

import astropy.units as u
import numpy as np
import pytest
import torch
from generation_cases import make_galaxies, photometry_of
from numpy.testing import assert_allclose
from scipy.special import erf

from astrogenspec import SpectrumOptions
from astrogenspec.generation.fibre_photometry import (
    _PSF_GAUSSIANS,
    FIBRE_SEEING,
    _core_width,
    fibre_fluxes,
)
from astrogenspec.generation.flux_calibration import TargetPhotometry, fibre_target
from astrogenspec.generation.pipeline import ab_flux, assemble, synthetic_nmgy
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.surveys import SDSS

SCALE = SDSS.pixel_scale.to_value(u.arcsec)
SIGMA = 2 * np.sqrt(2 * np.log(2))
FREE = torch.full((4, 17), torch.nan)


def gaussian_galaxy(size, seeing, *, flux=100.0, at=(0.1, -0.15)):
    """Return the image of a round Gaussian galaxy of dispersion `size` (arcsec) seen with a PSF."""
    edges = (np.arange(65) - 32) * SCALE
    image = np.zeros((64, 64))
    for weight, ratio in _PSF_GAUSSIANS:
        width = np.hypot(size, ratio * _core_width() * seeing)
        down, along = (np.diff(0.5 * erf((edges - place) / width / np.sqrt(2))) for place in at)
        image += weight * down[:, None] * along
    return flux * image


def cutout(image, *, noise=0.02, seed=0):
    cube = np.repeat(image[None, None], 5, axis=1)
    cube = cube + np.random.default_rng(seed).normal(0, noise, cube.shape)
    ivar = np.full_like(cube, noise**-2)
    return CutoutBatch(cube.astype(np.float32), ivar.astype(np.float32))


def in_fibre(size):
    """Return the fraction of a Gaussian galaxy within 1.5 arcsec at the seeing of the fibre."""
    return 1 - np.exp(-0.5 * 1.5**2 / (size**2 + (FIBRE_SEEING / SIGMA) ** 2))


@pytest.mark.parametrize("size", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("seeing", [1.1, 1.4, 1.7])
def test_fibre_flux_for_different_seeing(size, seeing):
    batch = cutout(gaussian_galaxy(size, seeing), noise=0.002)
    flux, error = fibre_fluxes(batch, np.full((1, 5), seeing))
    assert_allclose(flux, 100 * in_fibre(size), rtol=0.01)
    assert (error > 0.005).all() and (error < 0.05).all()
    assumed, _ = fibre_fluxes(batch, np.full((1, 5), np.nan))
    assert_allclose(assumed, fibre_fluxes(batch)[0])
    if size == 0.4 and seeing != 1.4:
        assert np.sign(assumed[0, 2] - flux[0, 2]) == np.sign(1.32 - seeing)


def test_error_equals_the_scatter_of_the_noise():
    image = gaussian_galaxy(1.0, 1.3)
    batch = CutoutBatch(
        *(np.concatenate(v) for v in zip(*[
            (b.flux, b.ivar) for b in (cutout(image, noise=0.3, seed=k) for k in range(60))
        ], strict=True))
    )  # fmt: skip
    flux, error = fibre_fluxes(batch, np.full((60, 5), 1.3))
    assert_allclose(flux.std(), error.mean(), rtol=0.15)


def test_bad_pixels_and_empty_cutouts():
    batch = cutout(gaussian_galaxy(1.0, 1.3))
    flux, _ = fibre_fluxes(batch)
    batch.flux[0, 1, 32, 33] = 1e6
    batch.ivar[0, 1, 32, 33] = 0
    batch.ivar[0, 0] = 0
    batch.ivar[0, 4, 28:36, 28:36] = 0
    again, _ = fibre_fluxes(batch)
    assert np.isnan(again[0, [0, 4]]).all()
    assert_allclose(again[0, 1], flux[0, 1], rtol=0.06)
    assert_allclose(again[0, 2:4], flux[0, 2:4])
    nothing, error = fibre_fluxes(cutout(np.zeros((64, 64))))
    assert np.isnan(nothing).all() and np.isnan(error).all()


def with_fibre(n, fraction, colour, **options):
    """Return n galaxies of 50 nmgy and photometry, for a given fibre fraction and colour."""
    galaxies = make_galaxies(n)
    whole = 50 * ab_flux(galaxies)
    inside = (whole * fraction * torch.tensor(colour)).numpy().astype(float)
    return galaxies, whole, photometry_of(whole, 1e-3, fibre=(inside, 1e-3 * inside), **options)


def test_fibre_fraction_is_the_weighted_mean_of_network_and_image():
    colour = [1.0, 0.9, 1.0, 1.05, 1.0]
    galaxies, whole, photometry = with_fibre(4, 0.3, colour, seeing_known=True)
    none = torch.zeros(4)
    flux, error = fibre_target(photometry, galaxies.fibre_fraction, none)
    fraction, mean = (flux / whole)[:, 2], np.mean(np.log(colour))
    gain = 0.085**2 / (0.085**2 + 0.05**2)
    expected = galaxies.fibre_fraction.log() * (1 - gain) + (np.log(0.3) + mean) * gain - mean
    assert_allclose(fraction.log(), expected, atol=1e-4)
    assert_allclose(flux / flux[:, 2:3] * whole[:, 2:3] / whole, np.tile(colour, (4, 1)), rtol=1e-4)
    assert_allclose(error / flux, 0.015, rtol=0.01)
    blind, error = fibre_target(photometry_of(whole), galaxies.fibre_fraction, none + 3.0)
    assert_allclose(blind, whole * galaxies.fibre_fraction[:, None], rtol=1e-5)
    assert_allclose(error / blind, np.hypot(0.02, 0.03), rtol=1e-4)


def test_fibre_fraction_has_the_scatter_of_its_posterior():
    _, _, photometry = with_fibre(1, 0.3, [1.0] * 5)
    rng = torch.Generator().manual_seed(1)
    prior = 0.4 * torch.exp(0.085 * torch.randn(4000, generator=rng))
    flux, _ = fibre_target(
        photometry.repeat_interleave(4000), prior, torch.randn(4000, generator=rng)
    )
    log_fraction = (flux[:, 2] / photometry.flux[0, 2]).log()
    gain = 0.085**2 / (0.085**2 + 0.09**2)
    assert float(log_fraction.std()) == pytest.approx(0.085 * np.sqrt(1 - gain), rel=0.05)
    expected = np.log(0.4) + gain * np.log(0.3 / 0.4)
    assert float(log_fraction.mean()) == pytest.approx(expected, abs=0.005)


def test_bands_without_image_have_the_colours_of_the_galaxy():
    galaxies, whole, photometry = with_fibre(4, 0.3, [1.0] * 5)
    photometry.fibre_flux[:, [0, 4]] = torch.nan
    photometry.flux[:, 3] = torch.nan
    flux, _ = fibre_target(photometry, galaxies.fibre_fraction, torch.zeros(4))
    fraction = flux[:, [0, 4]] / whole[:, [0, 4]]
    assert_allclose(fraction, (flux[:, 2] / whole[:, 2])[:, None].expand(-1, 2), rtol=1e-4)
    assert torch.isfinite(flux).all()
    photometry.fibre_flux[:] = torch.nan
    flux, _ = fibre_target(photometry, galaxies.fibre_fraction, torch.zeros(4))
    assert torch.isnan(flux[:, 3]).all() and torch.isfinite(flux[:, :3]).all()


def test_slope_is_fitted_to_the_observed_colours():
    galaxies = make_galaxies(4)
    pivots = torch.tensor([SDSS.pivot_wavelength[b].to_value(u.AA) for b in "ugriz"])
    tilt = (pivots / pivots[2]) ** 0.1
    wanted = 50 * ab_flux(galaxies) * tilt
    result = assemble(galaxies, FREE, photometry_of(wanted, 1e-3), fibre=False)
    plain = assemble(galaxies, FREE, photometry_of(wanted / tilt, 1e-3), fibre=False)
    change = (result.flux / plain.flux).log()
    slope = (change[:, 4500] - change[:, 1500]) / (3000 * 1e-4 * np.log(10))
    # the colours of one per cent are pulled towards those of the draw by the scatter of its slope
    assert_allclose(slope, 0.1, atol=0.012)
    assert result.residual.abs().max() < 0.02
    poor = assemble(galaxies, FREE, photometry_of(wanted, 0.5), fibre=False)
    assert (poor.flux / plain.flux).log()[:, 4500].std() < 0.01


def test_draws_scatter_by_the_errors_of_the_photometry():
    galaxies = make_galaxies(1).repeat_interleave(150)
    wanted = 50 * ab_flux(galaxies)
    noise = torch.randn(150, 6, generator=torch.Generator().manual_seed(2))
    line_flux = FREE[:1].expand(150, -1)
    made = assemble(galaxies, line_flux, photometry_of(wanted, 0.05), False, noise)
    flux = synthetic_nmgy(made.flux)[:, 1:4] / wanted[:, 1:4]
    mean = flux.log().mean(1)
    assert 0.02 < float(mean.std()) < 0.04  # 5% in five bands, one slope
    assert abs(float(mean.mean())) < 0.005
    assert torch.isfinite(made.flux).all()


def test_target_photometry_is_a_record():
    _, _, photometry = with_fibre(4, 0.3, [1.0] * 5, measured=np.arange(4) > 1)
    assert photometry.scatter.tolist() == pytest.approx([0.0, 0.0, 0.11, 0.11])
    twice = photometry[torch.tensor([2, 0])].repeat_interleave(2)
    assert isinstance(twice, TargetPhotometry) and len(twice) == 4
    assert torch.equal(twice.flux, photometry.flux[[2, 2, 0, 0]])
    assert torch.equal(twice.scatter, photometry.scatter[[2, 2, 0, 0]])


def test_measured_photometry_is_corrected_for_light_outside_the_aperture():
    galaxies = make_galaxies(1).repeat_interleave(300)
    seen = 50 * ab_flux(galaxies)
    noise = torch.randn(300, 6, generator=torch.Generator().manual_seed(3))
    free = FREE[:1].expand(300, -1)
    made, plain = (
        assemble(galaxies, free, photometry_of(seen, 1e-3, measured=m), False, noise)
        for m in (True, False)
    )
    added = (synthetic_nmgy(made.flux) / synthetic_nmgy(plain.flux)).log()
    assert_allclose(added.mean(0), 0.09, atol=0.02)
    assert_allclose(added.std(0), 0.11, rtol=0.12)
    assert (added.std(1) < 1e-3).all()  # all bands alike
    assert_allclose(made.residual, plain.residual, atol=1e-3)


def test_fibre_fraction_with_photometry_measured_on_the_image():
    galaxies, _, catalogue = with_fibre(1, 0.3, [1.0] * 5)
    _, _, measured = with_fibre(1, 0.3, [1.0] * 5, measured=True)
    none = torch.zeros(1)
    fractions = [
        fibre_target(p, galaxies.fibre_fraction, none)[0][0, 2] / catalogue.flux[0, 2]
        for p in (catalogue, measured)
    ]
    on_image = 0.3  # closer to the image than to the network
    assert abs(fractions[1] - on_image) < abs(fractions[0] - on_image)


@pytest.mark.parametrize(
    ("psf", "cutouts", "n", "error", "message"),
    [
        (1.3, "some", 3, TypeError, "psf_fwhm is a float: give a Quantity"),
        (1.3 * u.m, "some", 3, u.UnitConversionError, "the unit 'arcsec' is expected"),
        (-1 * u.arcsec, "some", 3, ValueError, "must be positive"),
        (np.full(3, np.nan) * u.arcsec, "some", 3, ValueError, "must be positive"),
        ([1, 2] * u.arcsec, "some", 3, ValueError, r"psf_fwhm has shape \(2,\) for 3 galaxies"),
        (1 * u.arcsec, None, 3, ValueError, "requires cutouts"),
        (1 * u.arcsec, "some", None, ValueError, "give a list of cutouts"),
    ],
)
def test_invalid_seeing_is_an_error(psf, cutouts, n, error, message):
    with pytest.raises(error, match=message):
        SpectrumOptions(psf_fwhm=psf).seeing(cutouts, n)


def test_seeing_is_broadcast_to_galaxies_and_bands():
    def seeing(psf):
        return SpectrumOptions(psf_fwhm=psf).seeing("some", 3)

    assert seeing(None) is None
    assert (seeing(0.02 * u.arcmin) == 1.2).all()
    assert seeing([1, 2, 3] * u.arcsec)[:, 4].tolist() == [1, 2, 3]
    assert seeing(np.ones((3, 5)) * u.arcsec).shape == (3, 5)
