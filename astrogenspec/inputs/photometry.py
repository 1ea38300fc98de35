"""Photometry: fluxes in the five bands, from catalogues or cutouts, and extinction.

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
case of letters does not matter.

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
from dataclasses import dataclass
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.table import Row, Table

from ..flags import Flag, FlagLog
from ..surveys import BANDS, SDSS
from ..warnings import AstroGenSpecWarning
from .catalogues import SENTINELS, Catalogue, dust_values, join_catalogues, read_catalogue
from .cutouts import CutoutBatch
from .errors import (
    INPUT_ERRORS,
    InputLog,
    check_on_error,
    resolve_flag_codes,
    resolve_named,
    select_galaxies,
)
from .morphology import Morphology
from .screening import screen

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
#: Maximum Galactic E(B-V), and extinction in a band, mag; larger values are errors or fill values.
_MAX_EBV, _MAX_EXTINCTION = 10.0, 50.0
_COEFFICIENTS = np.array([SDSS.extinction_coefficient[band] for band in BANDS])


@dataclass(frozen=True, eq=False)
class PhotometryBatch:
    """Photometry of many galaxies in the bands u, g, r, i, z.

    Parameters
    ----------
    flux, error : ndarray, shape (n, 5)
        nmgy as observed, not corrected for Galactic extinction; NaN where missing.
    ebv : ndarray, shape (n,)
        Galactic E(B-V), mag.
    measured : ndarray of bool, shape (n,)
        True if measured on a cutout, False if from a catalogue.
    names : tuple of str, optional
        Names of the galaxies; "0", "1", ... by default.
    problems : tuple of str, optional
        Reasons why galaxies or some of their bands cannot be used; empty strings by default.
    extinction : ndarray, shape (n, 5), optional
        Galactic extinction in the bands, mag; by default ``ebv`` times the coefficients of the
        survey.
    morphology : Morphology, optional
        Morphology of the galaxies.
    flag_codes : ndarray of int64, shape (n,), optional
        Flag codes, see `~astrogenspec.decode_flags`; by default ``PHOTOMETRY_NOT_USED`` where there
        is a problem.
    named : ndarray of bool, shape (n,), optional
        Whether a galaxy has a name of its own, rather than only a number; by default True if
        ``names`` are given.

    Raises
    ------
    ValueError
        If shapes or lengths differ.
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

    def __post_init__(self) -> None:
        n = len(self.flux)
        extinction: np.ndarray | None = self.extinction
        if extinction is None:
            extinction = np.asarray(self.ebv)[:, None] * _COEFFICIENTS
        named = resolve_named(self.named, bool(self.names), n)
        names = tuple(self.names) or tuple(str(k) for k in range(n))
        problems = tuple(self.problems) or ("",) * n
        for what, values in (
            ("flux", self.flux),
            ("error", self.error),
            ("extinction", extinction),
        ):
            if np.shape(values) != (n, len(BANDS)):
                raise ValueError(
                    f"{what} has shape {np.shape(values)}, but it must be ({n}, {len(BANDS)})."
                )
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

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> PhotometryBatch:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        return select_galaxies(self, item)

    def __repr__(self) -> str:
        bad = sum(map(bool, self.problems))
        return f"<PhotometryBatch of {len(self)} galaxies, {bad} with problems>"

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return len(self.flux)

    @property
    def structure(self) -> Morphology | None:
        """Alias of `morphology`."""
        return self.morphology

    @property
    def bands_present(self) -> np.ndarray:
        """Whether a band has a flux and an error; bool, shape (n, 5)."""
        return np.isfinite(self.flux) & np.isfinite(self.error)

    def dereddened(self) -> tuple[np.ndarray, np.ndarray]:
        """Correct for Galactic extinction.

        Returns
        -------
        flux, error : ndarray, shape (n, 5)
            nmgy; NaN where missing.
        """
        factor = 10 ** (0.4 * self.extinction)
        return self.flux * factor, self.error * factor


def coerce_photometry(
    photometry: Photometry,
    *,
    ebv: float | np.ndarray | u.Quantity | None = None,
    on_error: str = "raise",
) -> PhotometryBatch:
    """Convert photometry, in any supported form, to one batch of fluxes.

    Parameters
    ----------
    photometry : Table, QTable, Row, mapping, or a list of rows or mappings
        Columns or keys as listed in the module docstring, each with one value or one for each
        galaxy. Other columns of a table are ignored; other keys of a mapping are an error. Of a
        batch, only bands and errors outside the training range are changed.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it and without such columns,
        0 is assumed with a warning.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used: raise an exception whose attribute ``galaxy`` is its
        index, or leave the galaxy blank and give the reason in ``problems`` and ``flag_codes``. An
        impossible value of the morphology is removed, with the reason in those of ``morphology``.
        Errors that concern the whole call are always raised.

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
    if isinstance(photometry, PhotometryBatch):
        if ebv is None:
            return _screened(photometry, on_error)
        raise ValueError("ebv was given with a PhotometryBatch, which has its own; leave it out.")
    catalogue = _read(photometry)
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
        _check_extinction(flux, extinction, rejected, notes)
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
    )
    return _screened(batch, on_error)


def _screened(batch: PhotometryBatch, on_error: str) -> PhotometryBatch:
    """Remove bands outside the training range; if asked for, raise without any other band."""
    screened = screen(batch)
    lost = screened.flag_codes & ~batch.flag_codes & Flag.PHOTOMETRY_NOT_USED
    log = InputLog(len(batch), on_error)
    for k in np.flatnonzero(lost):
        log.reject(int(k), Flag.PHOTOMETRY_NOT_USED, f"{screened.problems[k]}.")
    return screened


def _extinction_of(catalogue: Catalogue, ebv: object) -> tuple[np.ndarray, np.ndarray]:
    """Return E(B-V) and the extinction in each band."""
    if catalogue.extinction is not None:
        extinction = catalogue.extinction
        good = np.isfinite(extinction) & (extinction >= 0)
        derived = np.where(good, extinction / _COEFFICIENTS, 0.0).max(axis=1)
        reddening = derived if catalogue.ebv is None else catalogue.ebv
        return np.array(reddening), extinction.copy()
    reddening = _ebv_for(ebv, len(catalogue)) if catalogue.ebv is None else catalogue.ebv
    return reddening, reddening[:, None] * _COEFFICIENTS


def _read(photometry: object) -> Catalogue:
    if isinstance(photometry, Table | Row | Mapping):
        return read_catalogue(photometry)
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
            part = read_catalogue(row)
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
    flux: np.ndarray, extinction: np.ndarray, rejected: dict[int, str], notes: FlagLog
) -> None:
    """Remove bands whose extinction is invalid; reject galaxies without any other band.

    An invalid extinction is replaced by that of the E(B-V) of the other bands.

    Parameters
    ----------
    flux, extinction : ndarray, shape (n, 5)
        Changed in place.
    rejected : dict of int to str
        Reasons why galaxies cannot be used, by index; changed in place.
    notes : FlagLog
        Log of bands that are not used.
    """
    valid = _is_between(extinction, _MAX_EXTINCTION)
    for row in np.flatnonzero(~valid.all(axis=1)):
        wrong = np.flatnonzero(~valid[row] & np.isfinite(flux[row]))
        texts = [
            _dust_text(f"extinction_{BANDS[k]}", extinction[row, k], _MAX_EXTINCTION) for k in wrong
        ]
        if not (np.isfinite(flux[row]) & valid[row]).any() and len(wrong):
            rejected.setdefault(int(row), texts[0])
            continue
        for k, text in zip(wrong, texts, strict=True):
            notes.add(int(row), Flag.BAND_NOT_USED, f"{BANDS[k]} not used: {text.rstrip('.')}")
        flux[row, wrong] = np.nan
        known = valid[row] & (extinction[row] > 0)
        reddening = np.median((extinction[row] / _COEFFICIENTS)[known]) if known.any() else 0.0
        extinction[row] = np.where(valid[row], extinction[row], reddening * _COEFFICIENTS)


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
    for k in range(n):
        flux[k], error[k], reason = measure_cutout(cutouts.flux[k], cutouts.ivar[k])
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
    )
