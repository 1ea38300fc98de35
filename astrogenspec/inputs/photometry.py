"""Photometry: fluxes in the bands of a survey, from catalogues or cutouts, and extinction.

Keys of a table or dictionary, for a band such as g (one of these schemes for all bands):

===================== ================================ ====================================
flux or magnitude     unit                             error
===================== ================================ ====================================
``g``                 flux density, or ``u.ABmag``     ``g_err`` or, for a flux, ``g_ivar``
``flux_g``            flux density                     ``flux_err_g`` or ``flux_ivar_g``
``mag_g``             ``u.ABmag``, ``u.mag`` or none   ``mag_err_g``, magnitudes
``gmag`` (VizieR)     ``u.ABmag``, ``u.mag`` or none   ``e_gmag``
===================== ================================ ====================================

The names of SDSS are accepted without units (`astrogenspec.inputs.column_names`): ``modelFlux_g``
and ``modelFluxIvar_g``, ``modelMag_g`` and ``modelMagErr_g``, ``g`` and ``err_g``, or ``dered_g``
and ``err_g``; the same with ``petro``; ``petroR50_r``, ``petroR90_r``; ``objID``.  In a table, the
case of letters does not matter.  With the argument ``survey``, the names of the catalogues of any
survey are accepted, and those above for its bands (`astrogenspec.inputs.survey_columns`); single
filters are called after their names, such as ``decamDR1-g`` and ``decamDR1-g_err``.

Further keys: ``ebv``, the Galactic E(B-V) in magnitudes; ``extinction_g`` and so on, the Galactic
extinction in a band in magnitudes, which takes precedence over ``ebv``; ``name``.  Every flux needs
an error, unless it is an `astropy.uncertainty.Distribution`, of which the mean and the standard
deviation are used.  Fluxes and magnitudes are as observed: they are corrected for Galactic
extinction internally, with the coefficients of the survey.

A band is missing if it or its error is absent, masked, not finite or a fill value (`SENTINELS`; any
magnitude outside `~astrogenspec.inputs.fluxes.FILL_LIMITS`), or if its error is not positive.  A
band whose flux or error is outside the range of the training galaxies is not used, with the flag
``BAND_NOT_USED``; an error that is too small is raised, with the flag ``HIGH_SIGNAL``
(`astrogenspec.inputs.screening`).

The morphology is optional (`astrogenspec.inputs.morphology`): Petrosian fluxes, as ``petro_flux_g``
or ``petro_mag_g``; the radii ``r50`` and ``r90`` that enclose 50% and 90% of the light in r,
angles; and ``axis_ratio``, minor over major axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.table import Row, Table

from ..flags import Flag, FlagLog
from ..surveys import BANDS, CUTOUT_SIZE, Filter, Survey
from ..warnings import AstroGenSpecWarning
from .catalogues import SENTINELS, Catalogue, dust_values, join_catalogues
from .column_names import list_columns
from .cutouts import CutoutBatch
from .errors import (
    INPUT_ERRORS,
    InputLog,
    check_bool,
    check_on_error,
    resolve_flag_codes,
    resolve_named,
    select_galaxies,
)
from .filter_sets import (
    band_labels,
    calibration_errors,
    check_filters,
    extinction_coefficients,
    is_sdss,
    sdss_bands,
    sdss_filters,
    union,
)
from .morphology import Morphology
from .screening import screen
from .survey_catalogues import read_photometry
from .survey_names import SurveyLike, resolve_surveys

__all__ = [
    "SENTINELS",
    "Morphology",
    "Photometry",
    "PhotometryBatch",
    "check_reddening",
    "coerce_photometry",
    "measure_photometry",
]

#: Photometry of one or more galaxies, as `coerce_photometry` accepts it.
Photometry: TypeAlias = (
    "Table | Row | Mapping[str, Any] | Sequence[Row | Mapping[str, Any]] | PhotometryBatch"
)
#: Weights that take photometry in any filters.
ANY_FILTER_MODEL = "astrogenspec-properties-simulated"
#: Light that fluxes hold.
_APERTURES = ("total", "fibre")
#: Maximum Galactic E(B-V), and extinction in a band, mag; larger values are errors or fill values.
_MAX_EBV, _MAX_EXTINCTION = 10.0, 50.0


@dataclass(frozen=True, eq=False)
class PhotometryBatch:
    """Photometry of many galaxies in m filters, by default those of SDSS: u, g, r, i, z.

    Parameters
    ----------
    flux, error : ndarray, shape (n, m)
        nmgy as observed, not corrected for Galactic extinction; NaN where missing.
    ebv : ndarray, shape (n,)
        Galactic E(B-V), mag.
    measured : ndarray of bool, shape (n,)
        True if measured on a cutout, False if from a catalogue.
    names : tuple of str, optional
        Names of the galaxies; "0", "1", ... by default.
    problems : tuple of str, optional
        Reasons why galaxies or some of their bands cannot be used; empty strings by default.
    extinction : ndarray, shape (n, m), optional
        Galactic extinction in the bands, mag; by default ``ebv`` times the coefficients of the
        filters.
    morphology : Morphology, optional
        Morphology of the galaxies.
    flag_codes : ndarray of int64, shape (n,), optional
        Flag codes, see `~astrogenspec.decode_flags`; by default ``PHOTOMETRY_NOT_USED`` where there
        is a problem.
    named : ndarray of bool, shape (n,), optional
        Whether a galaxy has a name of its own, rather than only a number; by default True if
        ``names`` are given.
    filters : tuple of `~astrogenspec.surveys.Filter`, optional
        Filters of the columns; by default the five of SDSS.
    calibration_error : ndarray, shape (m,), optional
        Uncertainty of the zero point of each filter, mag, common to all galaxies; by default that
        of the simulator for SDSS, else
        `~astrogenspec.inputs.filter_sets.DEFAULT_CALIBRATION_ERROR`.
    in_fibre : bool
        Whether the fluxes are those in a fibre of 3 arcsec on the centres, rather than total ones.

    Raises
    ------
    TypeError
        If ``filters`` does not hold filters.
    ValueError
        If shapes or lengths differ, a filter is given twice, or a calibration error is negative or
        not finite.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray
    measured: np.ndarray
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    extinction: np.ndarray = None  # type: ignore[assignment]  # filled in below
    morphology: Morphology | None = None
    flag_codes: np.ndarray = None  # type: ignore[assignment]  # filled in below
    named: np.ndarray = None  # type: ignore[assignment]  # filled in below
    filters: tuple[Filter, ...] = None  # type: ignore[assignment]  # filled in below
    calibration_error: np.ndarray = None  # type: ignore[assignment]  # filled in below
    in_fibre: bool = False

    def __post_init__(self) -> None:
        n = len(self.flux)
        given: tuple[Filter, ...] | None = self.filters
        filters = sdss_filters() if given is None else check_filters(given)
        m = len(filters)
        extinction: np.ndarray | None = self.extinction
        if extinction is None:
            extinction = np.asarray(self.ebv)[:, None] * extinction_coefficients(filters)
        named = resolve_named(self.named, bool(self.names), n)
        names = tuple(self.names) or tuple(str(k) for k in range(n))
        problems = tuple(self.problems) or ("",) * n
        for what, values in (
            ("flux", self.flux),
            ("error", self.error),
            ("extinction", extinction),
        ):
            if np.shape(values) != (n, m):
                raise ValueError(f"{what} has shape {np.shape(values)}, but it must be ({n}, {m}).")
        lists: dict[str, Sized] = {
            "ebv": self.ebv,
            "measured": self.measured,
            "names": names,
            "problems": problems,
        }
        if self.morphology is not None:
            lists["morphology"] = self.morphology
        for what, entries in lists.items():
            if len(entries) != n:
                raise ValueError(f"{what} has {len(entries)} entries for {n} galaxies.")
        object.__setattr__(self, "extinction", extinction)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "problems", problems)
        codes = resolve_flag_codes(self.flag_codes, problems, Flag.PHOTOMETRY_NOT_USED)
        object.__setattr__(self, "flag_codes", codes)
        object.__setattr__(self, "filters", filters)
        errors = _check_calibration(self.calibration_error, filters)
        object.__setattr__(self, "calibration_error", errors)

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> PhotometryBatch:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        return select_galaxies(self, item, shared=("filters", "calibration_error", "in_fibre"))

    def __repr__(self) -> str:
        bad = sum(map(bool, self.problems))
        bands = "" if is_sdss(self.filters) else f" in {', '.join(self.bands)}"
        return f"<PhotometryBatch of {len(self)} galaxies{bands}, {bad} with problems>"

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return len(self.flux)

    @property
    def structure(self) -> Morphology | None:
        """Alias of `morphology`."""
        return self.morphology

    @property
    def bands(self) -> tuple[str, ...]:
        """Labels of the filters, such as "g"; the name of the filter where bands are the same."""
        return band_labels(self.filters)

    @property
    def bands_present(self) -> np.ndarray:
        """Whether a band has a flux and an error; bool, shape (n, m)."""
        return np.isfinite(self.flux) & np.isfinite(self.error)

    def dereddened(self) -> tuple[np.ndarray, np.ndarray]:
        """Correct for Galactic extinction.

        Returns
        -------
        flux, error : ndarray, shape (n, m)
            nmgy; NaN where missing.
        """
        factor = 10 ** (0.4 * self.extinction)
        return self.flux * factor, self.error * factor

    def with_filters(self, filters: Sequence[Filter]) -> PhotometryBatch:
        """Return a copy whose columns are those of other filters.

        Parameters
        ----------
        filters : sequence of `~astrogenspec.surveys.Filter`
            Filters of the columns of the copy. A filter that this batch lacks has NaN as flux and
            error, ``ebv`` times its coefficient as extinction, and the default calibration error; a
            filter of this batch that is not among them is left out.

        Returns
        -------
        PhotometryBatch
        """
        filters = check_filters(filters)
        index = {each.name: k for k, each in enumerate(self.filters)}
        old = [index[each.name] for each in filters if each.name in index]
        new = [k for k, each in enumerate(filters) if each.name in index]
        arrays = {
            "flux": np.full((len(self), len(filters)), np.nan),
            "error": np.full((len(self), len(filters)), np.nan),
            "extinction": np.asarray(self.ebv)[:, None] * extinction_coefficients(filters),
        }
        for name, values in arrays.items():
            values[:, new] = getattr(self, name)[:, old]
        errors = calibration_errors(filters)
        errors[new] = self.calibration_error[old]
        fields: dict[str, Any] = {**arrays, "filters": filters, "calibration_error": errors}
        return replace(self, **fields)

    def with_zero_points(self, offset: u.Quantity | np.ndarray) -> PhotometryBatch:
        """Return a copy that is corrected for offsets of the zero points.

        Parameters
        ----------
        offset : Quantity ['mag'] or ndarray, shape (m,)
            Magnitudes observed minus true, as in the table of
            `~astrogenspec.PropertyEstimator.estimate_zero_points`; they are subtracted.

        Returns
        -------
        PhotometryBatch

        Raises
        ------
        ValueError
            If the shape is wrong or an offset is not finite.
        astropy.units.UnitConversionError
            If the unit is not a magnitude.
        """
        given = offset.to_value(u.mag) if isinstance(offset, u.Quantity) else offset
        values = np.asarray(given, dtype=float)
        if values.shape != (len(self.filters),) or not np.isfinite(values).all():
            raise ValueError(
                f"offset has shape {values.shape}, but it must be {len(self.filters)} finite "
                f"magnitudes, one for each of {list_columns(self.bands)}."
            )
        factor = 10 ** (0.4 * values)
        return replace(self, flux=self.flux * factor, error=self.error * factor)

    def in_sdss(self) -> PhotometryBatch:
        """Return the photometry in the five filters of SDSS, u, g, r, i, z.

        Returns
        -------
        PhotometryBatch
            The same object if it has these filters.

        Raises
        ------
        ValueError
            If a galaxy has photometry in another filter; the message names weights for any filters.
        """
        if is_sdss(self.filters):
            return self
        used = np.any(self.bands_present, axis=0).tolist()
        bands = sdss_bands(self.filters)
        other = [each.name for k, each in enumerate(self.filters) if used[k] and bands[k] is None]
        if other:
            raise ValueError(
                f"photometry is in the filters {list_columns(other)}, but these weights read those "
                f"of SDSS only; use weights for any filters, {ANY_FILTER_MODEL!r}, or fluxes in "
                "ugriz that their predict_photometry predicts."
            )
        return self.with_filters(sdss_filters())

    @classmethod
    def concatenate(cls, parts: Sequence[PhotometryBatch]) -> PhotometryBatch:
        """Concatenate galaxies.

        Parameters
        ----------
        parts : sequence of PhotometryBatch
            At least one. The columns of the result are the filters of all parts, each once; a
            galaxy has NaN in a filter that its part lacks. The calibration error of a filter is the
            largest of those of the parts.

        Returns
        -------
        PhotometryBatch

        Raises
        ------
        ValueError
            If there are no parts, or the fluxes of some are in a fibre and those of others total.
        """
        if not parts:
            raise ValueError("parts is empty; give at least one batch.")
        if len({part.in_fibre for part in parts}) > 1:
            raise ValueError(
                "parts has fluxes in a fibre and total fluxes; concatenate batches of one kind."
            )
        filters = union([part.filters for part in parts])
        errors = [
            max(
                part.calibration_error[k]
                for part in parts
                for k, other in enumerate(part.filters)
                if other.name == each.name
            )
            for each in filters
        ]
        parts = [part.with_filters(filters) for part in parts]
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("flux", "error", "ebv", "measured", "extinction", "flag_codes", "named")
        }
        shapes = [part.morphology for part in parts]
        if any(shape is not None for shape in shapes):
            arrays["morphology"] = Morphology.concatenate(
                [
                    Morphology.missing(len(part)) if part.morphology is None else part.morphology
                    for part in parts
                ]
            )
        return cls(
            **arrays,
            names=tuple(name for part in parts for name in part.names),
            problems=tuple(problem for part in parts for problem in part.problems),
            filters=filters,
            calibration_error=np.array(errors),
            in_fibre=parts[0].in_fibre,
        )


def _check_calibration(errors: object, filters: tuple[Filter, ...]) -> np.ndarray:
    """Return the calibration errors of filters, or raise."""
    if errors is None:
        return calibration_errors(filters)
    try:
        values = np.array(
            errors.to_value(u.mag) if isinstance(errors, u.Quantity) else errors, float
        )
    except (TypeError, ValueError):
        raise TypeError(
            f"calibration_error is {ascii(errors)[:60]}, but it must be numbers, in magnitudes."
        ) from None
    if values.shape not in ((), (len(filters),)):
        raise ValueError(
            f"calibration_error has shape {values.shape}, but it must be ({len(filters)},)."
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"calibration_error is {ascii(errors)[:60]}, but it must be 0 mag or more, and finite."
        )
    return np.array(np.broadcast_to(values, len(filters)))


def coerce_photometry(
    photometry: Photometry,
    *,
    survey: SurveyLike | None = None,
    ebv: float | np.ndarray | u.Quantity | None = None,
    on_error: str = "raise",
    screening: bool = True,
    aperture: str = "total",
) -> PhotometryBatch:
    """Convert photometry, in any supported form, to one batch of fluxes.

    Parameters
    ----------
    photometry : Table, QTable, Row, mapping, or a list of rows or mappings
        Columns or keys as listed in the module docstring, each with one value or one for each
        galaxy. Other columns of a table are ignored; other keys of a mapping are an error. Of a
        batch, only bands and errors outside the training range are changed.
    survey : str, Survey, or a sequence of these, optional
        Survey or surveys of the photometry, such as ``"legacy-dr10"`` or ``["lsst", "euclid"]``
        (`astrogenspec.surveys.survey_names` lists them), whose names of columns and units are read
        as well. By default SDSS for its names and those of this package; other surveys are
        recognised by their names, with a warning, where these leave no doubt.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it and without such columns,
        0 is assumed with a warning.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used: raise an exception whose attribute ``galaxy`` is its
        index, or leave the galaxy blank and give the reason in ``problems`` and ``flag_codes``. An
        impossible value of the morphology is removed, with the reason in those of ``morphology``.
        Errors that concern the whole call are always raised.
    screening : bool
        Whether to apply the limits of the training galaxies of SDSS to bands of SDSS
        (`astrogenspec.inputs.screening`). Without them, only impossible values are removed.
    aperture : {"total", "fibre"}
        Light that the fluxes hold: that of the whole galaxies, or that in a fibre of 3 arcsec on
        their centres, such as ``fiberMag`` of SDSS or magnitudes measured on its spectra. The light
        outside a fibre is unknown: posteriors include what it may be. Of a batch, this is kept
        unless ``"fibre"`` is given.

    Returns
    -------
    PhotometryBatch

    Raises
    ------
    TypeError
        If an object does not hold photometry.
    ValueError
        If names, shapes or values cannot be used.
    astropy.units.UnitsError
        If units are missing or wrong.

    Warns
    -----
    AstroGenSpecWarning
        If Galactic extinction is not given, or was converted from other coefficients; if names of
        SDSS magnitudes or their errors rest on an assumption.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogenspec.inputs.photometry import coerce_photometry
    >>> batch = coerce_photometry(
    ...     {"r": 17.5 * u.ABmag, "r_err": 0.05 * u.mag, "ebv": 0.03 * u.mag}
    ... )
    >>> float(batch.flux[0, 2])
    100.0
    """
    check_on_error(on_error)
    check_bool(screening, "screening")
    if aperture not in _APERTURES:
        raise ValueError(f"aperture is {aperture!r}, but it must be {' or '.join(_APERTURES)}.")
    in_fibre = aperture == "fibre"
    if isinstance(photometry, PhotometryBatch):
        _check_given_with_batch(survey, ebv)
        batch = replace(photometry, in_fibre=True) if in_fibre else photometry
        return _screened(batch, on_error, screening)
    catalogue = _read(photometry, resolve_surveys(survey))
    n = len(catalogue)
    has_dust = catalogue.ebv is not None or catalogue.extinction is not None
    if ebv is not None and has_dust:
        raise ValueError(
            "ebv was given both as an argument and in the photometry; give one of them. "
            "Dereddened magnitudes need none."
        )
    for notice in catalogue.notices:
        warnings.warn(notice, AstroGenSpecWarning, stacklevel=2)
    if ebv is None and not has_dust:
        _warn_no_ebv()
    flux, error = catalogue.flux.copy(), catalogue.error.copy()
    reddening, extinction = _extinction_of(catalogue, ebv)
    rejected, notes = dict(catalogue.rejected), FlagLog(n)
    if catalogue.extinction is None:
        check_reddening(reddening, rejected)
    else:
        _check_extinction(flux, extinction, catalogue, rejected, notes)
    log = InputLog(n, on_error)
    for index, text in sorted(rejected.items()):
        log.reject(index, Flag.PHOTOMETRY_NOT_USED, text)
    bad = log.codes != 0
    log.extend(notes.codes, notes.texts)
    morphology = catalogue.morphology
    if morphology is not None:
        checked = InputLog(n, on_error)
        for k in np.flatnonzero(morphology.flag_codes):
            checked.reject(int(k), Flag.MORPHOLOGY_NOT_USED, f"{morphology.problems[k]}.")
        morphology = morphology.without(bad)
    missing = bad[:, None] | np.isnan(flux)
    flux[missing] = error[missing] = np.nan
    reddening[bad] = 0
    extinction[bad] = 0
    batch = PhotometryBatch(
        flux,
        error,
        reddening,
        np.zeros(n, bool),
        catalogue.names or (),
        log.texts,
        extinction,
        morphology,
        log.codes,
        np.zeros(n, bool) if catalogue.named is None else catalogue.named,
        catalogue.filters,
        catalogue.calibration_error,
        in_fibre,
    )
    return _screened(batch, on_error, screening)


def _check_given_with_batch(survey: object, ebv: object) -> None:
    """Raise if an argument was given that a batch of photometry has already."""
    if survey is not None:
        raise ValueError(
            "survey was given with a PhotometryBatch, which has its own filters; leave it out."
        )
    if ebv is not None:
        raise ValueError("ebv was given with a PhotometryBatch, which has its own; leave it out.")


def _screened(batch: PhotometryBatch, on_error: str, sdss: bool) -> PhotometryBatch:
    """Remove bands outside the training range; if asked for, raise without any other band."""
    screened = screen(batch, sdss=sdss)
    lost = screened.flag_codes & ~batch.flag_codes & Flag.PHOTOMETRY_NOT_USED
    log = InputLog(len(batch), on_error)
    for k in np.flatnonzero(lost):
        log.reject(int(k), Flag.PHOTOMETRY_NOT_USED, f"{screened.problems[k]}.")
    return screened


def _extinction_of(catalogue: Catalogue, ebv: object) -> tuple[np.ndarray, np.ndarray]:
    """Return E(B-V) and the extinction in each band."""
    coefficient = catalogue.coefficient
    if catalogue.extinction is not None:
        extinction = catalogue.extinction
        good = np.isfinite(extinction) & (extinction >= 0) & (coefficient > 0)
        ratio = extinction / np.where(coefficient > 0, coefficient, 1.0)
        derived = np.where(good, ratio, 0.0).max(axis=1)
        reddening = derived if catalogue.ebv is None else catalogue.ebv
        return np.array(reddening), extinction.copy()
    reddening = _ebv_for(ebv, len(catalogue)) if catalogue.ebv is None else catalogue.ebv
    return reddening, reddening[:, None] * coefficient


def _read(photometry: object, surveys: Sequence[Survey] | None) -> Catalogue:
    if isinstance(photometry, Table | Row | Mapping):
        return read_photometry(photometry, surveys)
    if isinstance(photometry, str | bytes | np.ndarray) or not isinstance(photometry, Sequence):
        raise TypeError(
            f"photometry is of type {type(photometry).__name__}, but it must be a table or a "
            "mapping with keys such as 'g' and 'g_err', or a list of these "
            "(astropy.table.Table.from_pandas makes a table)."
        )
    if not photometry:
        raise ValueError("photometry is empty; give at least one galaxy.")
    log = InputLog(len(photometry), "raise")
    parts = []
    for index, row in enumerate(photometry):
        try:
            part = read_photometry(row, surveys)
        except INPUT_ERRORS as error:
            raise log.error(index, error) from error
        if len(part) != 1:
            raise log.error(
                index,
                f"{len(part)} values where one is expected; pass one table for many galaxies.",
            )
        parts.append(part)
    return join_catalogues(parts)


def _ebv_for(ebv: object, n: int) -> np.ndarray:
    values = np.zeros(()) if ebv is None else dust_values("ebv", ebv)
    if values.ndim and values.shape != (n,):
        raise ValueError(
            f"ebv has {values.shape[0]} values for {n} galaxies; give one, or one for each."
        )
    return np.array(np.broadcast_to(values, n))


def check_reddening(ebv: np.ndarray, rejected: dict[int, str]) -> None:
    """Reject galaxies whose E(B-V) is negative, not finite or too large.

    Parameters
    ----------
    ebv : ndarray, shape (n,)
        E(B-V), mag.
    rejected : dict of int to str
        Reasons by the index of the galaxy; entries are added.
    """
    for index in np.flatnonzero(~_is_between(ebv, _MAX_EBV)):
        rejected.setdefault(int(index), _dust_text("ebv", ebv[index], _MAX_EBV))


def _is_between(values: np.ndarray, high: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (values >= 0) & (values <= high)


def _dust_text(key: str, value: float, high: float) -> str:
    return f"{key} is {value:g}, but it must be 0 mag or more, and finite (at most {high:g} mag)."


def _check_extinction(
    flux: np.ndarray,
    extinction: np.ndarray,
    catalogue: Catalogue,
    rejected: dict[int, str],
    notes: FlagLog,
) -> None:
    """Remove bands whose extinction is invalid; reject galaxies without any other band.

    An invalid extinction is replaced by that of the E(B-V) of the other bands.

    Parameters
    ----------
    flux, extinction : ndarray, shape (n, m)
        Changed in place.
    catalogue : Catalogue
        Catalogue that they are from.
    rejected : dict of int to str
        Reasons why galaxies cannot be used, by index; changed in place.
    notes : FlagLog
        Log of bands that are not used.
    """
    valid = _is_between(extinction, _MAX_EXTINCTION)
    bands, coefficients = band_labels(catalogue.filters), catalogue.coefficient
    for row in np.flatnonzero(~valid.all(axis=1)):
        wrong = np.flatnonzero(~valid[row] & np.isfinite(flux[row]))
        texts = [
            _dust_text(f"extinction_{bands[k]}", extinction[row, k], _MAX_EXTINCTION) for k in wrong
        ]
        if not (np.isfinite(flux[row]) & valid[row]).any() and len(wrong):
            rejected.setdefault(int(row), texts[0])
            continue
        for k, text in zip(wrong, texts, strict=True):
            notes.add(int(row), Flag.BAND_NOT_USED, f"{bands[k]} not used: {text.rstrip('.')}")
        flux[row, wrong] = np.nan
        known = valid[row] & (extinction[row] > 0) & (coefficients > 0)
        reddening = np.median(extinction[row, known] / coefficients[known]) if known.any() else 0.0
        extinction[row] = np.where(valid[row], extinction[row], reddening * coefficients)


def _warn_no_ebv() -> None:
    warnings.warn(
        "no Galactic extinction was given: ebv = 0 is assumed; give the argument or a column ebv.",
        AstroGenSpecWarning,
        stacklevel=3,
    )


def measure_photometry(
    cutouts: CutoutBatch, ebv: float | np.ndarray | u.Quantity | None = None
) -> PhotometryBatch:
    """Measure fluxes on cutouts (method: `astrogenspec.inputs.aperture_photometry`).

    Parameters
    ----------
    cutouts : CutoutBatch
        Images.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it, 0 is assumed with a
        warning.

    Returns
    -------
    PhotometryBatch
        A galaxy that cannot be measured has NaN and the flag ``PHOTOMETRY_NOT_MEASURED``; the flag
        of a cutout that could not be used is kept.

    Raises
    ------
    ValueError
        If ``ebv`` has the wrong length, is negative or not finite.
    astropy.units.UnitConversionError
        If its unit is not a magnitude.

    Warns
    -----
    AstroGenSpecWarning
        If ``ebv`` is not given.
    """
    from .aperture_photometry import measure_cutout

    n = len(cutouts)
    if ebv is None:
        _warn_no_ebv()
    reddening = _ebv_for(ebv, n)
    rejected: dict[int, str] = {}
    check_reddening(reddening, rejected)
    if rejected:
        index = min(rejected)
        raise InputLog(n, "raise").error(index, rejected[index])
    flux, error = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan)
    log = FlagLog(n)
    log.extend(cutouts.flag_codes, cutouts.problems)
    unflagged = np.array([not problem for problem in cutouts.problems])
    centre = cutouts.resized(CUTOUT_SIZE)
    for k in range(n):
        flux[k], error[k], reason = measure_cutout(centre.flux[k], centre.ivar[k])
        if reason and unflagged[k]:
            log.add(k, Flag.PHOTOMETRY_NOT_MEASURED, reason)
    return PhotometryBatch(
        flux,
        error,
        reddening,
        np.ones(n, bool),
        cutouts.names,
        log.texts,
        flag_codes=log.codes,
        named=cutouts.named,
        filters=cutouts.filters,
    )
