"""Imaging surveys: bands, filters, pixels, seeing, noise and Galactic extinction coefficients.

The bundled networks were trained on `SDSS`; every input is converted to its bands and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u

__all__ = ["BANDS", "CUTOUT_SIZE", "SDSS", "Survey", "get_survey"]

#: Order of the bands in every array of the package.
BANDS = ("u", "g", "r", "i", "z")
#: Pixels on a side of the cutouts of the networks.
CUTOUT_SIZE = 64


@dataclass(frozen=True, eq=False)
class Survey:
    """Description of an imaging survey, for its simulation and for reading its images.

    Every mapping has one entry for each band of ``bands``.

    Attributes
    ----------
    name : str
        Name, as for `get_survey`.
    bands : tuple of str
        Names of the bands, blue to red.
    pixel_scale : `~astropy.units.Quantity`
        Side of a pixel, angle.
    psf_fwhm : dict of str to `~astropy.units.Quantity`
        Median full width at half maximum of the point-spread function, angle.
    sky_brightness : dict of str to `~astropy.units.Quantity`
        Typical brightness of the dark sky, AB magnitudes per square arcsecond.
    gain : dict of str to float
        Electrons per data number (DN).
    dark_variance : dict of str to float
        Variance of read noise and dark current, DN squared.
    nmgy_per_dn : dict of str to float
        Typical flux calibration, nanomaggies per DN.
    extinction_coefficient : dict of str to float
        Ratio of the Galactic extinction in the band to E(B-V).
    pivot_wavelength : dict of str to `~astropy.units.Quantity`
        Pivot wavelength of the band, for the conversion between flux per frequency and per
        wavelength.
    filter_names : dict of str to str
        Names of the transmission curves in the ``speclite`` package.
    fibre_diameter : `~astropy.units.Quantity`
        Diameter of the fibres of the spectrograph, angle.
    pixel_sigma : dict of str to float
        Nominal noise of a sky pixel, nanomaggies.
    asinh_softening : dict of str to float
        Softening parameter of the asinh magnitudes of the catalogue, nanomaggies.
    """

    name: str
    bands: tuple[str, ...]
    pixel_scale: u.Quantity
    psf_fwhm: dict[str, u.Quantity]
    sky_brightness: dict[str, u.Quantity]
    gain: dict[str, float]
    dark_variance: dict[str, float]
    nmgy_per_dn: dict[str, float]
    extinction_coefficient: dict[str, float]
    pivot_wavelength: dict[str, u.Quantity]
    filter_names: dict[str, str]
    fibre_diameter: u.Quantity
    pixel_sigma: dict[str, float]
    asinh_softening: dict[str, float]

    def __repr__(self) -> str:
        scale = f"{self.pixel_scale.to_value(u.arcsec):g} arcsec per pixel"
        return f"<Survey {self.name}: bands {', '.join(self.bands)}; {scale}>"


def _by_band(*values: float | str, unit: u.UnitBase | None = None) -> dict:
    return {
        band: value if unit is None else u.Quantity(value, unit, subok=True)
        for band, value in zip(BANDS, values, strict=True)
    }


#: Imaging of the Sloan Digital Sky Survey: corrected frames of data release 8 and later.
#:
#: Seeing, sky and calibration are typical values from the imaging pages of the survey; gain and
#: dark variance are those of camera column 3 in the data model of the corrected frames; the
#: extinction coefficients are those of Schlafly & Finkbeiner (2011, arXiv:1012.4804, table 6) for
#: R_V = 3.1; the curves are those of Doi et al. (2010); the softening is that of Stoughton et al.
#: (2002, AJ 123, 485, table 21), 1.4, 0.9, 1.2, 1.8, 7.4 e-10 of the zero point.
SDSS = Survey(
    name="sdss",
    bands=BANDS,
    pixel_scale=0.396 * u.arcsec,
    psf_fwhm=_by_band(1.53, 1.44, 1.32, 1.26, 1.29, unit=u.arcsec),
    sky_brightness=_by_band(22.0, 21.85, 20.86, 20.2, 18.95, unit=u.mag(u.AB / u.arcsec**2)),
    gain=_by_band(1.59, 3.845, 4.72, 4.86, 4.885),
    dark_variance=_by_band(8.7025, 1.3225, 1.3225, 4.6225, 1.0),
    nmgy_per_dn=_by_band(0.0093, 0.0038, 0.0052, 0.0067, 0.034),
    extinction_coefficient=_by_band(4.239, 3.303, 2.285, 1.698, 1.263),
    pivot_wavelength=_by_band(3589.3, 4701.4, 6177.2, 7496.5, 8904.2, unit=u.AA),
    filter_names=_by_band(*(f"sdss2010-{band}" for band in BANDS)),
    fibre_diameter=3.0 * u.arcsec,
    pixel_sigma=_by_band(0.047, 0.017, 0.029, 0.045, 0.18),
    asinh_softening=_by_band(0.14, 0.09, 0.12, 0.18, 0.74),
)
_SURVEYS = {survey.name: survey for survey in (SDSS,)}


def get_survey(name: str | Survey) -> Survey:
    """Return a survey by its name.

    Parameters
    ----------
    name : str or Survey
        Name, in upper or lower case; a `Survey` is returned as it is.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        If no survey has that name.

    Examples
    --------
    >>> from astrogenspec.surveys import get_survey
    >>> get_survey("SDSS").pixel_scale
    <Quantity 0.396 arcsec>
    """
    if isinstance(name, Survey):
        return name
    try:
        return _SURVEYS[str(name).lower()]
    except KeyError:
        known = ", ".join(_SURVEYS)
        raise ValueError(f"name is {name!r}, but the known surveys are: {known}.") from None
