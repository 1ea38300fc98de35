"""Photometry: fluxes of galaxies in the five bands, from catalogues or measured on stamps, and Galactic dust.

Keys of a table or dictionary, for a band such as g (all bands in one of these ways):

===================== =========================================== ==============================================
flux or magnitude     unit                                        error
===================== =========================================== ==============================================
``g``                 flux density, or ``u.ABmag``                ``g_err`` or, for a flux, ``g_ivar``
``flux_g``            flux density                                ``flux_err_g`` or ``flux_ivar_g``
``mag_g``             AB magnitude: ``u.ABmag``, ``u.mag``, none  ``mag_err_g``, magnitudes
``gmag``              the same, as VizieR names it                ``e_gmag``
===================== =========================================== ==============================================

The names of the SDSS catalogue server are understood, without units: ``modelFlux_g`` and ``modelFluxIvar_g``, or
``modelMag_g`` and ``modelMagErr_g``; the same with ``petro``; ``petroR50_r``, ``petroR90_r``; ``objID``.

Further keys: ``ebv``, the Galactic E(B-V) in magnitudes; ``extinction_g`` and so on, the Galactic extinction of a band in
magnitudes, which then takes the place of ``ebv``; ``name``.  Every flux needs an error.  Bands that are absent, masked,
not finite, or equal to a value of `SENTINELS` are missing; so is a band whose error is, or whose inverse variance is 0.
Fluxes and magnitudes are as observed: they are corrected for Galactic dust inside, with the coefficients of the survey.

Sizes and shapes may be given too, all of them optional (`astrogenspec.inputs.morphology`): Petrosian fluxes, as
``petro_flux_g`` or ``petro_mag_g``; the radii ``r50`` and ``r90`` with half and with 90% of the light in r, angles; and
``axis_ratio``, minor over major axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TypeAlias

import astropy.units as u
import numpy as np
from astropy.table import Row, Table

from ..surveys import BANDS, SDSS
from ..warnings import AstroGenSpecWarning
from .catalogues import SENTINELS, Catalogue, dust_values, join_catalogues, read_catalogue
from .cutouts import CutoutBatch
from .errors import INPUT_ERRORS, ProblemLog
from .morphology import Morphology

__all__ = ["SENTINELS", "Morphology", "PhotometryBatch", "coerce_photometry", "measure_photometry"]

Photometry: TypeAlias = Table | Row | Mapping[str, object]
_COEFFICIENTS = np.array([SDSS.extinction_coefficient[band] for band in BANDS])


@dataclass(frozen=True, eq=False)
class PhotometryBatch:
    """Fluxes of many galaxies in the bands u, g, r, i, z.

    Parameters
    ----------
    flux, error : ndarray, shape (n, 5)
        nmgy as observed, that is, with Galactic extinction; NaN where missing.
    ebv : ndarray, shape (n,)
        Galactic E(B-V), mag.
    measured : ndarray of bool, shape (n,)
        True if measured on a stamp, False if from a catalogue.
    names : tuple of str, optional
        One for each galaxy; "0", "1", ... by default.
    problems : tuple of str, optional
        Why a galaxy cannot be used; empty strings by default.
    extinction : ndarray, shape (n, 5), optional
        Galactic extinction in the bands, mag; by default ``ebv`` times the coefficients of the survey.
    morphology : Morphology, optional
        Sizes and shapes of the galaxies.

    Raises
    ------
    ValueError
        If shapes or lengths do not agree.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray
    measured: np.ndarray
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    extinction: np.ndarray | None = None
    morphology: Morphology | None = None

    def __post_init__(self) -> None:
        n = len(self.flux)
        extinction = self.extinction
        if extinction is None:
            extinction = np.asarray(self.ebv)[:, None] * _COEFFICIENTS
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
        object.__setattr__(self, "problems", problems)

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> PhotometryBatch:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        if isinstance(item, int | np.integer):
            item = [item]
        index = np.arange(len(self))[item]
        return PhotometryBatch(
            self.flux[item],
            self.error[item],
            self.ebv[item],
            self.measured[item],
            tuple(self.names[k] for k in index),
            tuple(self.problems[k] for k in index),
            self.extinction[item],
            None if self.morphology is None else self.morphology[item],
        )

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
        """Correct for Galactic dust.

        Returns
        -------
        flux, error : ndarray, shape (n, 5)
            nmgy; NaN where missing.
        """
        factor = 10 ** (0.4 * self.extinction)
        return self.flux * factor, self.error * factor


def coerce_photometry(
    photometry: Photometry | Sequence[Photometry] | PhotometryBatch,
    *,
    ebv: float | np.ndarray | u.Quantity | None = None,
    on_error: str = "raise",
) -> PhotometryBatch:
    """Bring photometry, in whatever form, to one batch of fluxes.

    Parameters
    ----------
    photometry : Table, QTable, Row, mapping, or a list of rows or mappings
        Columns or keys as listed at the top of this module, each one value or one for each galaxy. Other columns of
        a table are ignored; other keys of a mapping are an error. A batch is returned as it is.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it and without such columns 0 is taken,
        with a warning.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used: raise an error with its index, or leave it blank and put the
        reason in ``problems``. A size or shape that cannot be is left out, with the reason in the problems of
        ``morphology``. An error that concerns the call as a whole is always raised.

    Returns
    -------
    PhotometryBatch

    Raises
    ------
    TypeError
        For an object that holds no photometry.
    ValueError
        For names, shapes or values that cannot be used.
    astropy.units.UnitsError
        For units that are missing or do not fit.

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
    ProblemLog(0, on_error)
    if isinstance(photometry, PhotometryBatch):
        if ebv is None:
            return photometry
        raise ValueError("ebv was given with a PhotometryBatch, which has its own; leave it out.")
    catalogue = _read(photometry)
    n = len(catalogue)
    log = ProblemLog(n, on_error)
    has_dust = catalogue.ebv is not None or catalogue.extinction is not None
    if ebv is not None and has_dust:
        raise ValueError(
            "ebv was given both as an argument and in the photometry; give one of them."
        )
    if ebv is None and not has_dust:
        _warn_no_ebv()
    reddening, extinction = catalogue.ebv, catalogue.extinction
    if reddening is None and extinction is None:
        reddening = _ebv_for(ebv, n)
    elif reddening is None:
        reddening = (extinction / _COEFFICIENTS).max(axis=1)
    problems = dict(catalogue.problems)
    _check_dust(reddening, extinction, problems)
    for index, sentence in sorted(problems.items()):
        log.add(index, sentence)
    morphology = catalogue.morphology
    if morphology is not None:
        sizes = ProblemLog(n, on_error)
        for index, sentence in enumerate(morphology.problems):
            if sentence:
                sizes.add(index, sentence)
        morphology = morphology.without(np.isin(np.arange(n), list(problems)))
    flux, error = catalogue.flux.copy(), catalogue.error.copy()
    bad = list(problems)
    flux[bad] = error[bad] = np.nan
    reddening[bad] = 0
    if extinction is not None:
        extinction[bad] = 0
    measured = np.zeros(n, bool)
    names = catalogue.names or ()
    return PhotometryBatch(
        flux, error, reddening, measured, names, log.sentences, extinction, morphology
    )


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
    log = ProblemLog(len(photometry), "raise")
    parts = []
    for index, row in enumerate(photometry):
        try:
            parts.append(read_catalogue(row))
        except INPUT_ERRORS as error:
            log.fail(index, error)
        if len(parts[-1]) != 1:
            log.fail(
                index, f"{len(parts[-1])} values where one is wanted; pass one table for many."
            )
    return join_catalogues(parts)


def _ebv_for(ebv: object, n: int) -> np.ndarray:
    values = np.zeros(()) if ebv is None else dust_values("ebv", ebv)
    if values.ndim and values.shape != (n,):
        raise ValueError(
            f"ebv has {values.shape[0]} values for {n} galaxies; give one, or one for each."
        )
    return np.array(np.broadcast_to(values, n))


def _check_dust(ebv: np.ndarray, extinction: np.ndarray | None, problems: dict[int, str]) -> None:
    """Note the galaxies whose extinction is negative or not finite."""
    columns = {"ebv": ebv}
    if extinction is not None:
        columns = {f"extinction_{band}": extinction[:, k] for k, band in enumerate(BANDS)}
    for key, values in columns.items():
        for index in np.flatnonzero(~(np.isfinite(values) & (values >= 0))):
            sentence = f"{key} is {values[index]:g}, but it must be 0 mag or more, and finite."
            problems.setdefault(int(index), sentence)


def _warn_no_ebv() -> None:
    warnings.warn(
        "no Galactic extinction was given: ebv = 0 is assumed (argument ebv, or a column of that name).",
        AstroGenSpecWarning,
        stacklevel=3,
    )


def measure_photometry(
    cutouts: CutoutBatch, ebv: float | np.ndarray | u.Quantity | None = None
) -> PhotometryBatch:
    """Measure the fluxes of galaxies on their stamps (the method is that of `astrogenspec.inputs.aperture_photometry`).

    Parameters
    ----------
    cutouts : CutoutBatch
        Stamps.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each. Without it 0 is taken, with a warning.

    Returns
    -------
    PhotometryBatch
        A galaxy that cannot be measured has NaN and a problem; one whose stamp has a problem keeps that one.

    Raises
    ------
    ValueError
        If ``ebv`` has the wrong length, is negative or not finite.
    astropy.units.UnitConversionError
        If its unit is no magnitude.

    Warns
    -----
    AstroGenSpecWarning
        If ``ebv`` is not given.
    """
    from .aperture_photometry import measure_stamp

    n = len(cutouts)
    if ebv is None:
        _warn_no_ebv()
    reddening = _ebv_for(ebv, n)
    bad_dust: dict[int, str] = {}
    _check_dust(reddening, None, bad_dust)
    if bad_dust:
        index = min(bad_dust)
        ProblemLog(n, "raise").fail(index, bad_dust[index])
    flux, error = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan)
    problems = list(cutouts.problems)
    for k in range(n):
        flux[k], error[k], problem = measure_stamp(cutouts.flux[k], cutouts.ivar[k])
        problems[k] = problems[k] or problem
    return PhotometryBatch(flux, error, reddening, np.ones(n, bool), cutouts.names, tuple(problems))
