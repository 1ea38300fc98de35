"""Photometry: fluxes of galaxies in the five bands, from catalogues or measured on cutouts, and Galactic extinction.

Keys of a table or dictionary, for a band such as g (one of these schemes for all bands):

===================== =========================================== ==============================================
flux or magnitude     unit                                        error
===================== =========================================== ==============================================
``g``                 flux density, or ``u.ABmag``                ``g_err`` or, for a flux, ``g_ivar``
``flux_g``            flux density                                ``flux_err_g`` or ``flux_ivar_g``
``mag_g``             AB magnitude: ``u.ABmag``, ``u.mag``, none  ``mag_err_g``, magnitudes
``gmag``              the same, with the names of VizieR          ``e_gmag``
===================== =========================================== ==============================================

The names of the SDSS catalogue server are accepted without units: ``modelFlux_g`` and ``modelFluxIvar_g``, or
``modelMag_g`` and ``modelMagErr_g``; the same with ``petro``; ``petroR50_r``, ``petroR90_r``; ``objID``.

Further keys: ``ebv``, the Galactic E(B-V) in magnitudes; ``extinction_g`` and so on, the Galactic extinction in a band in
magnitudes, which takes precedence over ``ebv``; ``name``.  Every flux needs an error.  A band is missing if it is absent,
masked, not finite or equal to one of `SENTINELS`, if its error is, or if its inverse variance is 0.  Fluxes and magnitudes are
as observed: they are corrected for Galactic extinction internally, with the coefficients of the survey.

The morphology is optional (`astrogenspec.inputs.morphology`): Petrosian fluxes, as ``petro_flux_g`` or ``petro_mag_g``;
the radii ``r50`` and ``r90`` that enclose 50% and 90% of the light in r, angles; and ``axis_ratio``, minor over major
axis.
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

__all__ = [
    "SENTINELS",
    "Morphology",
    "Photometry",
    "PhotometryBatch",
    "coerce_photometry",
    "measure_photometry",
]

#: Photometry of one or more galaxies, as `coerce_photometry` accepts it.
Photometry: TypeAlias = (
    "Table | Row | Mapping[str, Any] | Sequence[Row | Mapping[str, Any]] | PhotometryBatch"
)
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
        Reasons why galaxies cannot be used; empty strings by default.
    extinction : ndarray, shape (n, 5), optional
        Galactic extinction in the bands, mag; by default ``ebv`` times the coefficients of the survey.
    morphology : Morphology, optional
        Morphology of the galaxies.
    flag_codes : ndarray of int64, shape (n,), optional
        Flag codes, see `~astrogenspec.decode_flags`; by default ``PHOTOMETRY_NOT_USED`` where there is a problem.
    named : ndarray of bool, shape (n,), optional
        Whether a galaxy has a name of its own, rather than only a number; by default True if ``names`` are given.

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
        Columns or keys as listed in the module docstring, each with one value or one for each galaxy. Other columns of
        a table are ignored; other keys of a mapping are an error. A batch is returned as it is.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it and without such columns, 0 is assumed
        with a warning.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used: raise an exception whose attribute ``galaxy`` is its index, or leave the
        galaxy blank and give the reason in ``problems`` and ``flag_codes``. An impossible value of the morphology is
        removed, with the reason in those of ``morphology``. Errors that concern the whole call are always raised.

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
        If Galactic extinction is not given.

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
            return photometry
        raise ValueError("ebv was given with a PhotometryBatch, which has its own; leave it out.")
    catalogue = _read(photometry)
    n = len(catalogue)
    has_dust = catalogue.ebv is not None or catalogue.extinction is not None
    if ebv is not None and has_dust:
        raise ValueError(
            "ebv was given both as an argument and in the photometry; give one of them."
        )
    if ebv is None and not has_dust:
        _warn_no_ebv()
    reddening, extinction = _extinction_of(catalogue, ebv)
    rejected = dict(catalogue.rejected)
    _check_dust(reddening, None if catalogue.extinction is None else extinction, rejected)
    log = InputLog(n, on_error)
    for index, text in sorted(rejected.items()):
        log.reject(index, Flag.PHOTOMETRY_NOT_USED, text)
    bad = log.codes != 0
    morphology = catalogue.morphology
    if morphology is not None:
        checked = InputLog(n, on_error)
        for k in np.flatnonzero(morphology.flag_codes):
            checked.reject(int(k), Flag.MORPHOLOGY_NOT_USED, f"{morphology.problems[k]}.")
        morphology = morphology.without(bad)
    flux, error = (np.where(bad[:, None], np.nan, a) for a in (catalogue.flux, catalogue.error))
    reddening[bad] = 0
    extinction[bad] = 0
    return PhotometryBatch(
        flux,
        error,
        reddening,
        np.zeros(n, bool),
        catalogue.names or (),
        log.texts,
        extinction,
        morphology,
        log.codes,
        catalogue.named,
    )


def _extinction_of(catalogue: Catalogue, ebv: object) -> tuple[np.ndarray, np.ndarray]:
    """Return E(B-V) and the extinction in each band."""
    if catalogue.extinction is not None:
        derived = (catalogue.extinction / _COEFFICIENTS).max(axis=1)
        return derived if catalogue.ebv is None else catalogue.ebv, catalogue.extinction
    reddening = _ebv_for(ebv, len(catalogue)) if catalogue.ebv is None else catalogue.ebv
    return reddening, reddening[:, None] * _COEFFICIENTS


def _read(photometry: object) -> Catalogue:
    if isinstance(photometry, Table | Row | Mapping):
        return read_catalogue(photometry)
    if isinstance(photometry, str | bytes | np.ndarray) or not isinstance(photometry, Sequence):
        raise TypeError(
            f"photometry is of type {type(photometry).__name__}, but it must be a table or a mapping with "
            "keys such as 'g' and 'g_err', or a list of these (astropy.table.Table.from_pandas makes a table)."
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


def _check_dust(ebv: np.ndarray, extinction: np.ndarray | None, rejected: dict[int, str]) -> None:
    """Add the galaxies whose extinction is negative or not finite to those that are rejected."""
    columns = {"ebv": ebv}
    if extinction is not None:
        columns = {f"extinction_{band}": extinction[:, k] for k, band in enumerate(BANDS)}
    for key, values in columns.items():
        for index in np.flatnonzero(~(np.isfinite(values) & (values >= 0))):
            text = f"{key} is {values[index]:g}, but it must be 0 mag or more, and finite."
            rejected.setdefault(int(index), text)


def _warn_no_ebv() -> None:
    warnings.warn(
        "no Galactic extinction was given: ebv = 0 is assumed; give the argument or a column ebv.",
        AstroGenSpecWarning,
        stacklevel=3,
    )


def measure_photometry(
    cutouts: CutoutBatch, ebv: float | np.ndarray | u.Quantity | None = None
) -> PhotometryBatch:
    """Measure the fluxes of galaxies on their cutouts (method: `astrogenspec.inputs.aperture_photometry`).

    Parameters
    ----------
    cutouts : CutoutBatch
        Images.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it, 0 is assumed with a warning.

    Returns
    -------
    PhotometryBatch
        A galaxy that cannot be measured has NaN and the flag ``PHOTOMETRY_NOT_MEASURED``; the flag of a cutout that
        could not be used is kept.

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
    _check_dust(reddening, None, rejected)
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
