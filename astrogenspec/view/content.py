"""Content of a page of results: numbers of all galaxies, draws, spectra, and true values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..calibration.truth import read_truth
from ..derived import bpt_class
from ..flags import decode_flags
from ..quantities import QUANTITIES, internal_values
from ..results.information import GRADES, MINIMUM_DRAWS, population_log_density
from ..results.posterior import Posterior
from ..results.spectra import SpectrumDraws
from ..results.statistics import row_percentiles, weighted_percentiles
from .labels import column_unit, line_markers, plain_label
from .packing import ArrayPack, quantised, rounded

__all__ = ["flag_counts", "galaxy_columns", "page_content", "truth_content"]

#: Number of bins of the histograms of a galaxy, and of bytes for the draws, spectra of all.
_BINS = 96
_DRAWS_BYTES = 3_000_000
_SPECTRA_BYTES = 3_500_000
_MAX_DRAWS = 500
_SPECTRUM_LEVELS = (2.5, 16.0, 50.0, 84.0, 97.5)
#: Widest range of the population that a histogram shows.
_TAIL = 0.005
_WORST = 10
_COLOURS = (("u", "g", "r"), ("g", "r", "i"), ("r", "i", "z"), ("g", "r", "z"), ("i", "z", "y"))


@dataclass(frozen=True)
class _Axis:
    """Range of the histograms of a quantity in internal values, and the prior on its bins."""

    low: float
    high: float
    prior: list[float] | None


def page_content(
    posterior: Posterior,
    *,
    spectra: SpectrumDraws | None = None,
    truth: Mapping[str, Any] | Table | None = None,
) -> dict[str, Any]:
    """Collect what the page shows, except pictures, as JSON types.

    Parameters
    ----------
    posterior : Posterior
        Posterior of all galaxies.
    spectra : SpectrumDraws, optional
        Spectra of the same galaxies, in the same order.
    truth : mapping or table, optional
        True values, see `astrogenspec.calibration.truth.read_truth`.

    Returns
    -------
    dict
    """
    internal = {name: _internal(posterior, name) for name in posterior.quantities}
    axes = {name: _axis(posterior, name, values) for name, values in internal.items()}
    pack = ArrayPack()
    pack.add("histograms", np.stack([_counts(internal[name], axes[name]) for name in internal]))
    n_draws = _number_of_draws(posterior)
    pack.add(
        "draws",
        np.stack(
            [
                quantised(values[:, :n_draws], axes[name].low, axes[name].high)
                for name, values in internal.items()
            ]
        ),
    )
    content: dict[str, Any] = {
        "quantities": [_description(posterior, name, axes[name]) for name in internal],
        "bins": _BINS,
        "galaxies": galaxy_columns(posterior),
        "flags": flag_counts(posterior.flag_codes),
        "lines": line_markers(),
    }
    if spectra is not None:
        content["spectra"] = _spectra(spectra, pack)
    if truth is not None:
        content["truth"] = truth_content(posterior, truth)
    content["arrays"] = pack.as_dict()
    return content


def galaxy_columns(posterior: Posterior) -> dict[str, Any]:
    """Return one list for each column of the galaxies.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    dict of str to list
        ``name``, ``flag``, ``codes`` (names of the flags), ``usable``; for each quantity
        ``<quantity>`` (internal median), ``<quantity>_low``, ``<quantity>_high`` (68% interval),
        ``<quantity>_bits``; ``nii_halpha``, ``oiii_hbeta`` and ``bpt``; ``colour_x``, ``colour_y``
        and the names of both in ``colours``.
    """
    columns: dict[str, Any] = {
        "name": list(posterior.names),
        "flag": list(posterior.flags),
        "codes": [[_words(name) for name in names] for names in decode_flags(posterior.flag_codes)],
        "usable": posterior.usable.tolist(),
    }
    for name in posterior.quantities:
        low, middle, high = row_percentiles(_internal(posterior, name), np.array([16.0, 50, 84]))
        columns[name] = rounded(middle, 6)
        columns[f"{name}_low"], columns[f"{name}_high"] = rounded(low, 6), rounded(high, 6)
        bits = _bits(posterior, name)
        if bits is not None:
            columns[f"{name}_bits"] = rounded(bits, 3)
    if "nii_halpha" in posterior and "oiii_hbeta" in posterior:
        ratios = [posterior[name].median().value for name in ("nii_halpha", "oiii_hbeta")]
        columns["nii_halpha"], columns["oiii_hbeta"] = (rounded(ratio) for ratio in ratios)
        columns["bpt"] = bpt_class(*ratios).tolist()
    if posterior.measurable is not None:
        columns["measurable"] = rounded(posterior.measurable, 3)
    columns |= _colours(posterior.photometry)
    return columns


def flag_counts(codes: np.ndarray) -> list[dict[str, Any]]:
    """Count the galaxies with each flag.

    Parameters
    ----------
    codes : ndarray of int
        Flag codes of the galaxies.

    Returns
    -------
    list of dict
        ``name`` in words and ``count``, the most frequent flag first.
    """
    counts = Counter(name for names in decode_flags(codes) for name in names)
    return [{"name": _words(name), "count": count} for name, count in counts.most_common()]


def truth_content(posterior: Posterior, truth: Mapping[str, Any] | Table) -> dict[str, Any]:
    """Compare the posterior with true values.

    Parameters
    ----------
    posterior : Posterior
    truth : mapping or table
        True values of some quantities.

    Returns
    -------
    dict
        ``values`` (internal true values by quantity), ``scores`` (one dict for each quantity) and
        ``worst`` (galaxies with the largest errors in units of their uncertainty).

    Raises
    ------
    ValueError
        If no quantity of the posterior has true values.
    """
    from ..reports.scores import calibration_table

    found = read_truth(posterior, truth, drawn_only=True).values
    values = {name: _internal_truth(name, value) for name, value in found.items()}
    values = {name: value for name, value in values.items() if np.isfinite(value).any()}
    if not values:
        raise ValueError(
            "truth has no values of a quantity of the posterior; name its columns "
            f"{', '.join(posterior.quantities)}."
        )
    known = {name: found[name] for name in values}
    return {
        "values": {name: rounded(value, 6) for name, value in values.items()},
        "scores": _scores(calibration_table(posterior, known)),
        "worst": _worst(posterior, values),
    }


def _words(flag: str) -> str:
    return flag.replace("_", " ")


def _internal(posterior: Posterior, name: str) -> np.ndarray:
    draws = posterior.draws[name]
    return internal_values(name, draws) if name in QUANTITIES else np.asarray(draws.value, float)


def _internal_truth(name: str, value: Any) -> np.ndarray:
    if name in QUANTITIES:
        return internal_values(name, value)
    return np.asarray(getattr(value, "value", value), float)


def _population(posterior: Posterior, name: str) -> Sequence[float] | None:
    return (posterior.meta.get("population") or {}).get(name)


def _bits(posterior: Posterior, name: str) -> np.ndarray | None:
    if _population(posterior, name) is None or posterior.n_draws < MINIMUM_DRAWS:
        return None
    return posterior.information(name).to_value(u.bit)


def _axis(posterior: Posterior, name: str, values: np.ndarray) -> _Axis:
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.001, 0.999]) if finite.size else (0.0, 1.0)
    table = _population(posterior, name)
    if table is not None:
        ends = np.quantile(np.asarray(table, float), [_TAIL, 1 - _TAIL])
        low, high = min(low, ends[0]), max(high, ends[1])
    pad = 0.02 * (high - low) or 0.5
    low, high = float(low - pad), float(high + pad)
    if table is None:
        return _Axis(low, high, None)
    centres = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    prior = np.exp(population_log_density(centres, table))
    return _Axis(low, high, [float(f"{p:.3g}") for p in prior / prior.max()])


def _counts(values: np.ndarray, axis: _Axis) -> np.ndarray:
    """Return the histogram of each galaxy, with 255 at its highest bin."""
    n = len(values)
    position = (values - axis.low) / (axis.high - axis.low) * _BINS
    known = np.isfinite(position)
    bins = np.clip(np.where(known, position, 0), 0, _BINS - 1).astype(int)
    rows = np.broadcast_to(np.arange(n)[:, None], bins.shape)
    counts = np.bincount((rows * _BINS + bins)[known], minlength=n * _BINS).reshape(n, _BINS)
    highest = np.maximum(counts.max(axis=1, keepdims=True, initial=1), 1)
    return np.rint(255 * counts / highest).astype(np.uint8)


def _number_of_draws(posterior: Posterior) -> int:
    size = 2 * len(posterior) * len(posterior.quantities)
    return int(np.clip(_DRAWS_BYTES // max(size, 1), 20, min(_MAX_DRAWS, posterior.n_draws)))


def _description(posterior: Posterior, name: str, axis: _Axis) -> dict[str, Any]:
    label = plain_label(name)
    bits = _bits(posterior, name)
    info = QUANTITIES.get(name)
    described: dict[str, Any] = {
        "key": name,
        "title": label.title,
        "axis": label.axis,
        "digits": label.digits,
        "unit": column_unit(name, posterior.draws[name].unit),
        "description": posterior[name].description,
        "logarithmic": bool(info is not None and info.logarithmic),
        "low": axis.low,
        "high": axis.high,
        "prior": axis.prior,
        "grades": None,
    }
    if bits is not None:
        limits = [limit for _, limit in GRADES[1:]]
        grade = np.searchsorted(limits, bits[np.isfinite(bits)], side="right")
        described["grades"] = np.bincount(grade, minlength=len(GRADES)).tolist()
    return described


def _colours(photometry: Table | None) -> dict[str, Any]:
    """Return two neighbouring colours (AB magnitudes, as observed) of most galaxies."""
    if photometry is None:
        return {}
    bands = [
        name[5:] for name in photometry.colnames if f"flux_err_{name[5:]}" in photometry.colnames
    ]
    magnitudes = {band: _magnitudes(photometry, band) for band in bands}
    triples = [triple for triple in _COLOURS if set(triple) <= set(bands)]
    triples += list(zip(bands, bands[1:], bands[2:], strict=False))
    seen = [
        np.count_nonzero(np.isfinite(sum(magnitudes[band] for band in triple)))
        for triple in triples
    ]
    if not any(seen):
        return {}
    blue, middle, red = triples[int(np.argmax(seen))]
    return {
        "colour_x": rounded(magnitudes[middle] - magnitudes[red]),
        "colour_y": rounded(magnitudes[blue] - magnitudes[middle]),
        "colours": [f"{middle} − {red} [mag]", f"{blue} − {middle} [mag]"],
    }


def _magnitudes(photometry: Table, band: str) -> np.ndarray:
    """Return AB magnitudes without Galactic extinction; NaN below a signal-to-noise ratio of 2."""
    flux = u.Quantity(photometry[f"flux_{band}"], u.nmgy).value
    error = u.Quantity(photometry[f"flux_err_{band}"], u.nmgy).value
    flux, error = (np.ma.filled(np.ma.asarray(x, float), np.nan) for x in (flux, error))
    with np.errstate(all="ignore"):
        magnitude = np.where(flux > 2 * error, 22.5 - 2.5 * np.log10(flux), np.nan)
    if f"extinction_{band}" not in photometry.colnames:
        return magnitude
    extinction = getattr(
        photometry[f"extinction_{band}"], "value", photometry[f"extinction_{band}"]
    )
    return magnitude - np.nan_to_num(np.asarray(extinction, float))


def _spectra(spectra: SpectrumDraws, pack: ArrayPack) -> dict[str, Any]:
    """Add percentiles and the best draw of the spectra, on bins that fit in the page."""
    n, n_draws, n_pixels = spectra.flux.shape
    levels = _SPECTRUM_LEVELS if n_draws > 1 else ()
    n_curves = len(levels) + 1
    per_galaxy = _SPECTRA_BYTES / (2 * max(n, 1) * n_curves)
    factor = max(1, int(np.ceil(n_pixels / max(per_galaxy, 100))))
    n_bins = n_pixels // factor
    codes = np.empty((n, n_curves, n_bins), np.uint16)
    limits, bad, best_draw = [], [], spectra.best_draw
    for k in range(n):
        flux = spectra.flux.value[k, :, : n_bins * factor].astype(float)
        flux = flux.reshape(n_draws, n_bins, factor).mean(axis=2)
        best = best_draw[k]
        curves = np.full((n_curves, n_bins), np.nan)
        curves[0] = flux[best] if best >= 0 else np.nan
        if levels:
            curves[1:] = weighted_percentiles(
                flux[None], spectra.weights[k : k + 1], np.array(levels)
            )[:, 0]
        finite = curves[np.isfinite(curves)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        codes[k] = quantised(curves, low, high)
        limits.append([float(f"{x:.6g}") for x in (low, high)])
        trusted = spectra.trusted[k, : n_bins * factor].reshape(n_bins, factor).all(axis=1)
        bad.append(_intervals(np.asarray(~trusted)))
    pack.add("spectra", codes)
    wavelength = spectra.wavelength.value[: n_bins * factor].reshape(n_bins, factor).mean(axis=1)
    best_redshift = [
        spectra.redshift[k, draw] if draw >= 0 else np.nan for k, draw in enumerate(best_draw)
    ]
    return {
        "wavelength": [float(f"{x:.6g}") for x in wavelength],
        "levels": list(levels),
        "limits": limits,
        "not_trusted": bad,
        "redshift": rounded(np.array(best_redshift), 6),
        "binned": factor,
        "rest": spectra.meta.get("frame") == "rest",
        "aperture": spectra.meta.get("aperture", ""),
        "draws": n_draws,
    }


def _intervals(bad: np.ndarray) -> list[list[int]]:
    """Return the first and last bin of each group of bins that are True."""
    steps = np.diff(np.concatenate([[0], bad.astype(int), [0]]))
    pairs = np.flatnonzero(steps).reshape(-1, 2)
    return [[int(start), int(stop) - 1] for start, stop in pairs]


def _scores(table: Table) -> list[dict[str, Any]]:
    wanted = ("n", "bias", "scatter", "coverage_68", "coverage_95", "pit_ks", "crps")
    return [
        {"quantity": str(row["quantity"])}
        | {key: rounded(np.array([row[key]], float), 3)[0] for key in wanted}
        for row in table
    ]


def _worst(posterior: Posterior, values: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the largest error of each galaxy in units of its uncertainty, the worst first."""
    names = list(values)
    errors = []
    for name in names:
        low, middle, high = row_percentiles(_internal(posterior, name), np.array([16.0, 50, 84]))
        width = np.maximum((high - low) / 2, 1e-6)
        errors.append((middle - values[name]) / width)
    error = np.array(errors)
    size = np.nan_to_num(np.abs(error), nan=-1.0)
    largest = size.argmax(axis=0)
    order = np.argsort(-size.max(axis=0), kind="stable")[:_WORST]
    return [
        {
            "galaxy": int(k),
            "quantity": names[largest[k]],
            "sigma": round(float(error[largest[k], k]), 1),
        }
        for k in order
        if size[largest[k], k] >= 0
    ]
