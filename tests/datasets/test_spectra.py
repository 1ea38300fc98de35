"""Observed spectra in the rest frame."""

import numpy as np
import pytest
from astropy.io import fits
from dataset_cases import write_spectrum

from astrogenspec.datasets.spectra import ObservedSpectrum, read_spectrum, rebin, to_rest_frame
from astrogenspec.surveys.filters import galactic_extinction
from astrogenspec.wavelengths import REST, LogGrid


def test_rebinning_conserves_the_flux_and_the_variance():
    rng = np.random.default_rng(0)
    wavelength = np.linspace(4000, 4400, 801)
    flux, ivar = rng.uniform(1, 2, 801), rng.uniform(1, 4, 801)
    grid = LogGrid(np.log10(4100), 1e-3, 20)
    new, new_ivar = rebin(wavelength, flux, ivar, grid)
    # Integral of the piecewise constant spectrum between the outer edges of the grid.
    fine = np.linspace(grid.edges[0], grid.edges[-1], 2_000_001)
    middle = np.sqrt(wavelength[1:] * wavelength[:-1])
    values = flux[np.searchsorted(middle, fine)]
    assert (new * grid.width).sum() == pytest.approx(np.trapezoid(values, fine), rel=1e-5)
    assert (new_ivar > 0).all()


def test_variance_of_a_half_pixel_shift():
    """Two halves of independent pixels: the variance is half."""
    grid = LogGrid(3.6, 1e-4, 100)
    wavelength = 10 ** (grid.log_wavelength + 0.5e-4)
    _, ivar = rebin(wavelength, np.ones(100), np.full(100, 4.0), grid)
    assert ivar[50] == pytest.approx(8.0, rel=1e-4)
    assert ivar[0] == 0  # reaches beyond the spectrum


def test_the_same_grid_changes_nothing():
    rng = np.random.default_rng(0)
    grid = LogGrid(3.6, 1e-4, 100)
    flux, ivar = rng.normal(size=100), rng.uniform(1, 2, 100)
    ivar[7] = 0
    new, new_ivar = rebin(grid.wavelength, flux, ivar, grid)
    good = ivar > 0
    np.testing.assert_allclose(new[good], flux[good], rtol=1e-6)
    np.testing.assert_allclose(new_ivar, ivar, rtol=1e-6)
    assert new[7] == 0


def test_a_line_appears_at_its_rest_wavelength(tmp_path):
    write_spectrum(tmp_path / "a.fits", 0.1)
    flux, ivar = to_rest_frame(read_spectrum(tmp_path / "a.fits"), 0.1)
    near = (np.abs(REST.wavelength - 6564.61) < 20) & (ivar > 0)
    excess = flux[near] - 10
    assert np.average(REST.wavelength[near], weights=excess) == pytest.approx(6564.61, abs=0.3)
    # Flux per observed Angstrom: a Gaussian of height 30 and width 3.0 A (rest frame).
    width = np.gradient(REST.wavelength)[near]
    assert (excess * width).sum() == pytest.approx(30 * 3.0 * np.sqrt(2 * np.pi), rel=0.05)


def test_gaps_of_sdss_spectra(tmp_path):
    """Pixels 1000-1019 have no inverse variance, 2000-2009 no data in any exposure."""
    write_spectrum(tmp_path / "a.fits", 0.0)
    spectrum = read_spectrum(tmp_path / "a.fits")
    assert (np.flatnonzero(spectrum.ivar == 0) == [*range(1000, 1020), *range(2000, 2010)]).all()
    _, ivar = to_rest_frame(spectrum, 0.0)
    inside = (REST.log_wavelength > 3.5801) & (REST.log_wavelength < 3.9638)
    gaps = np.flatnonzero((ivar == 0) & inside)
    assert 30 <= len(gaps) <= 34


def test_galactic_extinction_is_corrected():
    wavelength = 10 ** (3.6 + 1e-4 * np.arange(2000))
    spectrum = ObservedSpectrum(wavelength, np.ones(2000), np.ones(2000))
    flux, ivar = to_rest_frame(spectrum, 0.0, ebv=0.1)
    good = ivar > 0
    factor = 10 ** (0.04 * galactic_extinction(REST.wavelength[good]))
    np.testing.assert_allclose(flux[good], factor, rtol=1e-3)
    np.testing.assert_array_less(ivar[good], 2.0 / factor**2 * 1.001)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ivar", np.zeros(10), "no usable pixel"),
        ("flux", np.full(10, np.nan), "no usable pixel"),
        ("wavelength", np.arange(10)[::-1] + 1.0, "do not increase"),
        ("flux", np.ones(9), "arrays of shapes"),
    ],
)
def test_unusable_spectra(name, value, text):
    arrays = {"wavelength": np.arange(10) + 4000.0, "flux": np.ones(10), "ivar": np.ones(10)}
    with pytest.raises(ValueError, match=text):
        ObservedSpectrum(**arrays | {name: value})


def test_spectra_without_noise_or_redshift(tmp_path):
    columns = [
        fits.Column("wave", "D", unit="nm", array=np.linspace(400, 700, 500)),
        fits.Column("flux", "D", array=np.ones(500)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="no column ivar, error or uncertainty"):
        read_spectrum(tmp_path / "a.fits")
    columns.append(fits.Column("error", "D", array=np.full(500, 0.5)))
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "b.fits")
    spectrum = read_spectrum(tmp_path / "b.fits")
    assert spectrum.wavelength[0] == pytest.approx(4000)
    assert spectrum.ivar[5] == pytest.approx(4)
    with pytest.raises(ValueError, match="the redshift is not known"):
        to_rest_frame(spectrum, np.nan)
    with pytest.raises(ValueError, match="no usable pixel between 2500 and"):
        to_rest_frame(spectrum, 30.0)
