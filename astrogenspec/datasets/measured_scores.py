"""What is measured on generated and on observed spectra, by the same functions.

Spectral indices, the velocity dispersion of the stars, their light-weighted age and metallicity and
their reddening, and the class of active galaxies (`astrogenspec.measure`), each at the redshift of
its spectrum.  The observed spectra have noise, and measurements on them errors; only values with a
formal error below ``MAX_ERRORS`` count as known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance
from astropy.table import QTable
from specutils import Spectrum

from ..metrics import point_metrics
from ..quantities import FLUX_UNIT
from ..wavelengths import GENERATED

__all__ = ["MAX_ERRORS", "measured_scores"]

#: Published root mean square error of the velocity dispersion from images (Hansen et al. 2020), and
#: accuracy of the class of active galaxies (Doorenbos et al. 2024).
PUBLISHED = {"velocity dispersion (km/s)": 29.0, "accuracy of the BPT class": 0.82}
#: Largest formal error with which a measurement on an observed spectrum counts.
MAX_ERRORS = {
    "velocity dispersion (km/s)": 30.0,
    "log age (dex)": 0.3,
    "metallicity (dex)": 0.3,
    "E(B-V) (mag)": 0.1,
}
_MIN_SNR = 3.0
#: Errors of the observed dispersions are meaningful above half of the resolution (km/s).
_MIN_DISPERSION = 50.0


def measured_scores(
    generated: np.ndarray,
    observed: np.ndarray,
    ivar: np.ndarray,
    redshift: np.ndarray,
    own_redshift: np.ndarray,
    n_fits: int,
) -> QTable:
    """Compare measurements on generated and observed spectra.

    Parameters
    ----------
    generated, observed : ndarray, shape (n, m)
        Spectra on `astrogenspec.wavelengths.GENERATED`, 1e-17 erg/s/cm2/A.
    ivar : ndarray, shape (n, m)
        Inverse variance of the observed ones; 0 where bad.
    redshift, own_redshift : ndarray, shape (n,)
        Known redshifts, at which the observed spectra are measured, and those of the generated
        spectra.
    n_fits : int
        Number of galaxies, from the first, to which stellar templates are fitted.

    Returns
    -------
    QTable
        ``what``, ``n``, ``median`` of the generated values, ``bias``, ``scatter``, ``rmse`` and
        ``r2`` against the observed ones, ``accuracy`` of a class, and ``published``, a root mean
        square error or an accuracy.  The entry ``values`` of its metadata has the values on
        generated and on observed spectra by ``what``, NaN where unknown.
    """
    names = ("what", "n", "median", "bias", "scatter", "rmse", "r2", "accuracy", "published")
    kinds = ("U60", "i8", *["f8"] * 7)
    if not len(redshift):
        return QTable(names=names, dtype=kinds)
    axis = GENERATED.wavelength * u.AA
    good = ivar > 0
    weights = InverseVariance(np.where(good, ivar, 1e-20) / FLUX_UNIT**2)
    truth = Spectrum(flux=observed * FLUX_UNIT, spectral_axis=axis, uncertainty=weights, mask=~good)
    own = Spectrum(flux=generated * FLUX_UNIT, spectral_axis=axis)
    values = _index_values((own, own_redshift), (truth, redshift))
    classes = []
    if n_fits:
        few = slice(0, n_fits)
        pair = (own[few], own_redshift[few]), (truth[few], redshift[few])
        values |= _stellar_values(*pair)
        classes = _class_rows(*pair)
    rows = [_row(what, *both) for what, both in values.items()] + classes
    return QTable(rows=rows or None, names=names, dtype=kinds, meta={"values": values})


#: Spectra with their redshifts.
_Spectra = tuple[Spectrum, np.ndarray]
#: Values on generated and on observed spectra, by name.
_Values = dict[str, tuple[np.ndarray, np.ndarray]]


def _row(what: str, own: np.ndarray, truth: np.ndarray) -> tuple[Any, ...]:
    both = np.isfinite(own) & np.isfinite(truth)
    if not both.any():
        return (what, 0, *[np.nan] * 7)
    scores = point_metrics(own[both], truth[both])
    values = (scores[name] for name in ("bias", "scatter", "rmse", "r2"))
    published = PUBLISHED.get(what, np.nan)
    return (what, int(both.sum()), float(np.median(own[both])), *values, np.nan, published)


def _index_values(own: _Spectra, truth: _Spectra) -> _Values:
    """Return the indices that are measured on at least one galaxy."""
    from ..measure import measure_indices
    from ..measure.indices import INDEX_NAMES

    one, other = (measure_indices(each, redshift=z) for each, z in (own, truth))
    pairs = {name: (_plain(one[name]), _plain(other[name])) for name in INDEX_NAMES}
    return {name: pair for name, pair in pairs.items() if np.isfinite(pair).all(axis=0).any()}


def _stellar_values(own: _Spectra, truth: _Spectra) -> _Values:
    """Return what stellar templates measure; empty if they are not installed."""
    from ..measure import measure_kinematics, measure_populations
    from ..measure.templates import templates_available

    if not templates_available():
        return {}
    columns: Mapping[str, tuple[Callable[..., QTable], str]] = {
        "velocity dispersion (km/s)": (measure_kinematics, "dispersion"),
        "log age (dex)": (measure_populations, "log_age"),
        "metallicity (dex)": (measure_populations, "metallicity"),
        "E(B-V) (mag)": (measure_populations, "ebv"),
    }
    tables = {
        function: [function(each, redshift=z) for each, z in (own, truth)]
        for function in (measure_kinematics, measure_populations)
    }
    values = {}
    for what, (function, name) in columns.items():
        one, other = tables[function]
        known = _plain(other[f"{name}_err"]) < MAX_ERRORS[what]
        value = _plain(other[name])
        if function is measure_kinematics:
            known &= value > _MIN_DISPERSION
        values[what] = _plain(one[name]), np.where(known, value, np.nan)
    return values


def _class_rows(own: _Spectra, truth: _Spectra) -> list[tuple]:
    """Return the accuracy of the class in the diagram of Baldwin, Phillips & Terlevich."""
    from ..measure import classify_bpt, measure_lines

    lines = ("halpha", "hbeta", "nii6584", "oiii5007")
    one, other = (measure_lines(each, lines, redshift=z) for each, z in (own, truth))
    significance = np.asarray(other["flux"] / other["flux_err"]).reshape(-1, len(lines))
    classes = [np.asarray(classify_bpt(table)["class"]) for table in (one, other)]
    known = (significance > _MIN_SNR).all(axis=1) & (classes[1] != "") & (classes[0] != "")
    if not known.any():
        return []
    what, n, blank = "accuracy of the BPT class", int(known.sum()), [np.nan] * 5
    same = float(np.mean(classes[0][known] == classes[1][known]))
    largest = float(np.unique(classes[1][known], return_counts=True)[1].max() / n)
    return [
        (what, n, *blank, same, PUBLISHED[what]),
        ("fraction of the largest BPT class", n, *blank, largest, np.nan),
    ]


def _plain(values: Any) -> np.ndarray:
    """Return the numbers of a quantity or a column."""
    return np.asarray(getattr(values, "value", values), dtype=float)
