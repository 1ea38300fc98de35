"""Description of an imaging survey: bands, filters, pixels, seeing, depth, noise and extinction."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from ..atomic import check_target, write_bytes
from .catalogue_format import CatalogueFormat
from .filters import Filter, get_filter, is_known_filter
from .survey_files import BAND_KEYS, SURVEY_KEYS, dump_survey, parse_survey, read_yaml

__all__ = ["Survey"]

#: Area of the optimal weighting of a Gaussian point source in units of its FWHM squared:
#: 4 pi / (8 ln 2).
_NOISE_AREA = math.pi / (2 * math.log(2))


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def _unknown(unit: u.UnitBase | None) -> Any:
    return math.nan if unit is None else u.Quantity(math.nan, unit, subok=True)


@dataclass(frozen=True, eq=False)
class Survey:
    """Description of an imaging survey, for its simulation and for reading its images and tables.

    Every mapping has one entry for each band of ``bands``; numbers that are not known are NaN, and
    other attributes that are not known None.

    Attributes
    ----------
    name : str
        Name, as for `get_survey`.
    bands : tuple of str
        Names of the bands, blue to red.
    filter_names : dict of str to str
        Names of the filters, as for `get_filter`.
    title : str or None
        Full name.
    pixel_scale : `~astropy.units.Quantity` or None
        Side of a pixel, angle.
    psf_fwhm : dict of str to `~astropy.units.Quantity`
        Median full width at half maximum of the point-spread function, angle.
    depth : dict of str to float
        AB magnitude of a point source with a signal-to-noise ratio of 5.
    sky_brightness : dict of str to `~astropy.units.Quantity`
        Typical brightness of the dark sky, AB magnitudes per square arcsecond.
    exposure_time : dict of str to `~astropy.units.Quantity`
        Total exposure time of a typical position.
    zero_point : dict of str to float
        AB magnitude of a source of one electron per second.
    gain : dict of str to float
        Electrons per data number (DN).
    dark_variance : dict of str to float
        Variance of read noise and dark current, DN squared.
    nmgy_per_dn : dict of str to float
        Typical flux calibration, nanomaggies per DN.
    pixel_sigma : dict of str to float
        Nominal noise of a sky pixel, nanomaggies; from depth, seeing and pixel scale if it is not
        given.
    asinh_softening : dict of str to float
        Softening parameter of the asinh magnitudes of the catalogue, nanomaggies.
    calibration_error : dict of str to float
        Uncertainty of the photometric zero point, mag.
    extinction_coefficient : dict of str to float
        Ratio of the Galactic extinction in the band to E(B-V); from the curve if it is not given.
    pivot_wavelength : dict of str to `~astropy.units.Quantity`
        Pivot wavelength of the band, for the conversion between flux per frequency and per
        wavelength; from the curve if it is not given.
    fibre_diameter : `~astropy.units.Quantity` or None
        Diameter of the fibres of the spectrograph, angle.
    reference_band : str or None
        Band of ``magnitude_range``.
    magnitude_range, redshift_range : tuple of float or None
        Range of AB magnitudes and redshifts of galaxies with useful photometry.
    catalogue : tuple of CatalogueFormat
        Names, units and fill values of the columns of catalogues.
    references : tuple of str
        Sources of the numbers.
    curves : dict of str to Filter
        Curves of the bands whose filters are not those of the ``speclite`` package.
    curves_note : str or None
        Where to get the curves of ``bands_without_curves``, which are not available.

    Raises
    ------
    TypeError
        If a number is not a Quantity of the right kind, or not a number.
    ValueError
        If the name cannot be used, bands are repeated, a mapping lacks a band, or a filter is
        unknown.
    """

    name: str
    bands: tuple[str, ...]
    filter_names: dict[str, str]
    title: str | None = None
    pixel_scale: Any = None
    psf_fwhm: dict[str, u.Quantity] = field(default_factory=dict)
    depth: dict[str, float] = field(default_factory=dict)
    sky_brightness: dict[str, u.Quantity] = field(default_factory=dict)
    exposure_time: dict[str, u.Quantity] = field(default_factory=dict)
    zero_point: dict[str, float] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)
    dark_variance: dict[str, float] = field(default_factory=dict)
    nmgy_per_dn: dict[str, float] = field(default_factory=dict)
    pixel_sigma: dict[str, float] = field(default_factory=dict)
    asinh_softening: dict[str, float] = field(default_factory=dict)
    calibration_error: dict[str, float] = field(default_factory=dict)
    extinction_coefficient: dict[str, float] = field(default_factory=dict)
    pivot_wavelength: dict[str, u.Quantity] = field(default_factory=dict)
    fibre_diameter: Any = None
    reference_band: str | None = None
    magnitude_range: tuple[float, float] | None = None
    redshift_range: tuple[float, float] | None = None
    catalogue: tuple[CatalogueFormat, ...] = ()
    references: tuple[str, ...] = ()
    curves: dict[str, Filter] = field(default_factory=dict)
    curves_note: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(str(self.name)):
            raise ValueError(
                f"name is {self.name!r}, but a survey has a name of letters, digits, '_', '.' and "
                "'-', such as 'legacy-dr10'."
            )
        bands = tuple(self.bands)
        object.__setattr__(self, "bands", bands)
        if not bands or len(set(bands)) < len(bands):
            raise ValueError(
                f"bands of the survey {self.name} is {bands}; give each band once, blue to red."
            )
        if self.reference_band not in (None, *bands):
            raise ValueError(
                f"reference_band of the survey {self.name} is {self.reference_band!r}, but its "
                f"bands are {', '.join(bands)}."
            )
        self._check_keys("filter_names", set(self.filter_names) == {*bands})
        self._check_keys("curves", set(self.curves) <= {*bands})
        for key, unit in BAND_KEYS.items():
            given = getattr(self, key)
            self._check_keys(key, set(given) in ({*bands}, set()))
            for band, value in given.items():
                self._check_unit(f"{key}[{band!r}]", value, unit)
            if not given:
                object.__setattr__(self, key, dict.fromkeys(bands, _unknown(unit)))
        for key, unit in SURVEY_KEYS.items():
            if getattr(self, key) is not None:
                self._check_unit(key, getattr(self, key), unit)
        self._complete("pixel_sigma", self._noise_of_depth)
        if self.curves_note is None:
            self._complete(
                "extinction_coefficient", lambda b: self.filters[b].extinction_coefficient
            )
            self._complete("pivot_wavelength", lambda b: self.filters[b].pivot)

    def __repr__(self) -> str:
        scale = ""
        if self.pixel_scale is not None:
            scale = f"; {self.pixel_scale.to_value(u.arcsec):g} arcsec per pixel"
        return f"<Survey {self.name}: bands {', '.join(self.bands)}{scale}>"

    @cached_property
    def filters(self) -> dict[str, Filter]:
        """Filters by band; their curves are read when they are first needed.

        Raises
        ------
        ValueError
            If a filter is unknown, or its curve is not available.
        """
        return {band: self.filter_of(band) for band in self.bands}

    def filter_of(self, band: str) -> Filter:
        """Return the filter of one band, also if other bands have no curves.

        Parameters
        ----------
        band : str
            Name of the band.

        Returns
        -------
        Filter

        Raises
        ------
        ValueError
            If the filter is unknown, or its curve is not available.
        """
        self._check_bands([band])
        if self.curves_note is not None and band in self.bands_without_curves:
            raise ValueError(
                f"the survey {self.name} has no curves of its bands "
                f"{', '.join(self.bands_without_curves)}: {self.curves_note}"
            )
        found = self.curves[band] if band in self.curves else get_filter(self.filter_names[band])
        return found if found.band == band else replace(found, band=band)

    @cached_property
    def bands_without_curves(self) -> tuple[str, ...]:
        """Bands whose curves are not available; ``curves_note`` says where to get them."""
        if self.curves_note is None:
            return ()
        return tuple(
            band
            for band in self.bands
            if band not in self.curves and not is_known_filter(self.filter_names[band])
        )

    def with_curves(self, curves: Mapping[str, Any]) -> Survey:
        """Return a copy with the given filter curves.

        Pivot wavelengths and extinction coefficients of these bands are those of the curves.

        Parameters
        ----------
        curves : mapping of str to Filter, speclite.filters.FilterResponse or str
            Filter of each band that is to be changed, or its name.

        Returns
        -------
        Survey

        Raises
        ------
        TypeError
            If a filter is none of these.
        ValueError
            If a band is not one of the survey, or a filter is unknown.

        Examples
        --------
        >>> from astrogenspec.surveys import get_filter, get_survey
        >>> kids = get_survey("kids")
        >>> kids.bands_without_curves
        ('u', 'g', 'r', 'i')
        >>> similar = {band: get_filter(f"sdss2010-{band}") for band in "ugri"}
        >>> kids.with_curves(similar).filters["g"]
        <Filter sdss2010-g: pivot 4701 Angstrom>
        """
        self._check_bands(curves)
        found = {band: get_filter(curve) for band, curve in curves.items()}
        missing = set(self.bands_without_curves) - set(found)
        return replace(
            self,
            filter_names={**self.filter_names, **{b: each.name for b, each in found.items()}},
            curves={**self.curves, **found},
            curves_note=self.curves_note if missing else None,
            pivot_wavelength={
                **self.pivot_wavelength,
                **{band: each.pivot for band, each in found.items()},
            },
            extinction_coefficient={
                **self.extinction_coefficient,
                **{band: each.extinction_coefficient for band, each in found.items()},
            },
        )

    def _check_bands(self, bands: Any) -> None:
        for band in bands:
            if band not in self.bands:
                raise ValueError(
                    f"the survey {self.name} has no band {band!r}; its bands are "
                    f"{', '.join(self.bands)}."
                )

    @cached_property
    def electrons_per_nmgy(self) -> dict[str, float]:
        """Number of electrons per nanomaggy: from gain and calibration, or time and zero point."""
        result = {}
        for band in self.bands:
            number = self.gain[band] / self.nmgy_per_dn[band]
            if not math.isfinite(number):
                time = self.exposure_time[band].to_value(u.s)
                number = time * 10 ** (0.4 * (self.zero_point[band] - 22.5))
            result[band] = float(number)
        return result

    @classmethod
    def read(cls, path: str | Path) -> Survey:
        """Read a survey from a file.

        Parameters
        ----------
        path : str or Path
            YAML file; curves that are not in the ``speclite`` package are ECSV files whose names it
            gives, relative to its folder.

        Returns
        -------
        Survey

        Raises
        ------
        OSError
            If a file cannot be read.
        ValueError
            If the file is invalid, a filter is unknown, or a curve cannot be used.
        """
        path = Path(path)
        survey = cls._read(path)
        for band in survey.bands:
            if band not in survey.bands_without_curves:
                survey.filter_of(band)
        return survey

    @classmethod
    def _read(cls, path: Path) -> Survey:
        """Read a survey without reading the curves that are not needed."""
        given = parse_survey(read_yaml(path), path.name)
        names: dict[str, str] = given["filter_names"]
        curves = {}
        for band, name in names.items():
            if name.lower().endswith(".ecsv"):
                names[band] = f"{given['name']}-{band}"
                curves[band] = Filter.read(path.parent / name, name=names[band], band=band)
        try:
            return cls(**given, curves=curves)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the survey to a file that `Survey.read` reads.

        Parameters
        ----------
        path : str or Path
            YAML file to write; curves that are not in the ``speclite`` package are written beside
            it.
        overwrite : bool
            Whether to replace existing files.

        Raises
        ------
        OSError
            If a file exists or cannot be written.
        """
        path = Path(path)
        names = dict(self.filter_names)
        files = {band: path.with_name(f"{path.stem}_{band}.ecsv") for band in self.curves}
        for target in (path, *files.values()):
            check_target(target, overwrite)
        for band, target in files.items():
            self.curves[band].write(target, overwrite=overwrite)
            names[band] = target.name
        write_bytes(path, dump_survey(self, names), overwrite=overwrite)

    def _check_keys(self, key: str, valid: bool) -> None:
        if not valid:
            keys = ", ".join(getattr(self, key))
            raise ValueError(
                f"{key} of the survey {self.name} has the keys {keys}, but its bands are "
                f"{', '.join(self.bands)}."
            )

    def _check_unit(self, key: str, value: Any, unit: u.UnitBase | None) -> None:
        given = getattr(value, "unit", None)
        matches = given is None if unit is None else given is not None and given.is_equivalent(unit)
        if not matches or np.ndim(value) != 0 or isinstance(value, str | bool):
            wanted = "a number" if unit is None else f"a Quantity in {unit}"
            raise TypeError(
                f"{key} of the survey {self.name} is {value!r}, but it must be {wanted}."
            )

    def _complete(self, key: str, compute: Any) -> None:
        """Replace the NaN of a mapping."""
        given: Mapping[str, Any] = getattr(self, key)
        if any(math.isnan(getattr(value, "value", value)) for value in given.values()):
            complete = {
                band: compute(band) if math.isnan(getattr(value, "value", value)) else value
                for band, value in given.items()
            }
            object.__setattr__(self, key, complete)

    def _noise_of_depth(self, band: str) -> float:
        """Noise of a pixel (nmgy) from the depth: 5 sigma with optimal weights."""
        if self.pixel_scale is None:
            return math.nan
        pixels = _NOISE_AREA * float(self.psf_fwhm[band] / self.pixel_scale) ** 2
        return 10 ** (0.4 * (22.5 - self.depth[band])) / (5 * math.sqrt(pixels))
