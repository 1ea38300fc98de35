"""Summary statistics of galaxy populations, computed alike for real and simulated samples.

A sample is a dictionary of arrays; a statistic is a number with a name such as
``g-r|0.06<z<0.10|q50``.  Values of real samples, with sampling errors and sources, are recorded in
``data/population_statistics.ecsv``; the package holds no other data of these galaxies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..surveys import BANDS

__all__ = [
    "MASS_EDGES",
    "STATISTICS",
    "black_hole_statistics",
    "break_statistics",
    "colour_statistics",
    "line_statistics",
    "nearby_line_statistics",
    "petrosian_statistics",
    "recorded_masses",
    "size_statistics",
    "with_errors",
]

Sample = Mapping[str, np.ndarray]
_REDSHIFT_EDGES = (0.02, 0.06, 0.10, 0.14, 0.20, 0.28)
_MIN_GALAXIES = 25
#: Bins of log10 mass in which simulated samples are matched to real ones.
MASS_EDGES = np.arange(8.75, 12.01, 0.25)
_MASS = "mass fraction|logM="
#: Minimum equivalent widths (A) of Halpha, Hbeta, [OIII] and [NII] for a detection of all four
#: lines.
_FOUR_LINES = (0.8, 0.6, 0.6, 0.6)


def _bins(values: np.ndarray, centres: tuple[float, ...], width: float) -> Iterator:
    for centre in centres:
        yield f"{centre:.2f}", np.abs(values - centre) < width / 2


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(q * weights.sum(), cumulative, values[order]))


def colour_statistics(sample: Sample) -> dict[str, float]:
    """Compute statistics of redshifts, magnitudes, and colours as functions of redshift.

    Parameters
    ----------
    sample : mapping
        ``magnitude`` (n, 5) corrected for Galactic extinction, ``redshift`` (n,).
    """
    magnitude, redshift = sample["magnitude"], sample["redshift"]
    inside = (redshift > _REDSHIFT_EDGES[0]) & (redshift < _REDSHIFT_EDGES[-1])
    result = {
        f"r|all|q{q}": np.percentile(magnitude[inside, BANDS.index("r")], q) for q in (10, 50, 90)
    }
    for low, high in zip(_REDSHIFT_EDGES[:-1], _REDSHIFT_EDGES[1:], strict=True):
        chosen = (redshift >= low) & (redshift < high)
        where = f"{low:.2f}<z<{high:.2f}"
        result[f"fraction|{where}|mean"] = chosen.sum() / inside.sum()
        for k in range(len(BANDS) - 1):
            colour = magnitude[chosen, k] - magnitude[chosen, k + 1]
            name = f"{BANDS[k]}-{BANDS[k + 1]}|{where}"
            for q in (16, 50, 84):
                result[f"{name}|q{q}"] = np.percentile(colour, q)
    return {name: float(value) for name, value in result.items()}


def line_statistics(sample: Sample) -> dict[str, float]:
    """Compute statistics of emission lines and star formation as functions of stellar mass.

    Parameters
    ----------
    sample : mapping
        ``log_mass``, ``log_sfr``, and equivalent widths (A, emission positive) ``ew_halpha``,
        ``ew_hbeta``, ``ew_oiii``, ``ew_nii``; ``weight`` (n,) matches the masses of simulated
        galaxies to those of real ones.
    """
    mass, weight = sample["log_mass"], sample["weight"]
    widths = np.stack([sample[f"ew_{line}"] for line in ("halpha", "hbeta", "oiii", "nii")])
    four = (widths > np.array(_FOUR_LINES)[:, None]).all(0)
    bpt = np.full(len(mass), -1)
    halpha, hbeta, oiii, nii = np.where(four, widths, 1.0)
    bpt[four] = bpt_class(np.log10(nii / halpha), np.log10(oiii / hbeta))[four]
    result: dict[str, float] = {"four_lines|all|fraction": np.average(four, weights=weight)}
    for k, name in enumerate(("star_forming", "composite", "agn")):
        result[f"{name}|four lines|fraction"] = np.average(bpt[four] == k, weights=weight[four])
    counts = np.histogram(mass, MASS_EDGES, weights=weight)[0] / weight.sum()
    centres = 0.5 * (MASS_EDGES[1:] + MASS_EDGES[:-1])
    result |= {f"{_MASS}{c:.3f}": count for c, count in zip(centres, counts, strict=True)}
    log_width = np.log10(np.maximum(sample["ew_halpha"], 0.1))
    specific = sample["log_sfr"] - mass
    for where, chosen in _bins(mass, (9.25, 9.75, 10.25, 10.75, 11.25), 0.5):
        if chosen.sum() < _MIN_GALAXIES:
            continue
        result[f"log_ew_halpha|logM={where}|q50"] = _weighted_quantile(
            log_width[chosen], weight[chosen], 0.5
        )
        forming = chosen & (specific > -11)
        if forming.sum() >= _MIN_GALAXIES:
            result[f"log_sfr|star-forming logM={where}|q50"] = _weighted_quantile(
                sample["log_sfr"][forming], weight[forming], 0.5
            )
    return {name: float(value) for name, value in result.items()}


def recorded_masses(statistics: Mapping[str, float]) -> np.ndarray:
    """Return masses (log10 Msun) with the recorded histogram of `line_statistics`."""
    fractions = {
        float(name.removeprefix(_MASS)): value
        for name, value in statistics.items()
        if name.startswith(_MASS)
    }
    return np.repeat(
        list(fractions), np.round(1e4 * np.array(list(fractions.values()))).astype(int)
    )


def bpt_class(log_nii_halpha: np.ndarray, log_oiii_hbeta: np.ndarray) -> np.ndarray:
    """Classify galaxies: 0 star-forming, 1 composite, 2 active.

    The limits are those of Kauffmann et al. (2003) and Kewley et al. (2001).
    """
    x, y = np.asarray(log_nii_halpha), np.asarray(log_oiii_hbeta)
    kauffmann = np.where(x < 0.05, 0.61 / (np.minimum(x, 0.0499) - 0.05) + 1.3, -np.inf)
    kewley = np.where(x < 0.47, 0.61 / (np.minimum(x, 0.4699) - 0.47) + 1.19, -np.inf)
    return np.where(y > kewley, 2, np.where(y > kauffmann, 1, 0))


def nearby_line_statistics(sample: Sample) -> dict[str, float]:
    """Compute line ratios of star-forming galaxies at z = 0.010-0.025, inside the fibre.

    Parameters
    ----------
    sample : mapping
        ``log_mass``, ``log_nii_halpha``, ``log_oiii_hbeta``, ``log_decrement`` (log10 of
        Halpha/Hbeta/2.86) and ``oh_o3n2``, all of galaxies below the line of Kauffmann et al.
        (2003).
    """
    result = {}
    for where, chosen in _bins(sample["log_mass"], (8.5, 9.0, 9.5, 10.0), 0.5):
        for name in ("log_nii_halpha", "log_oiii_hbeta", "log_decrement", "oh_o3n2"):
            values = sample[name][chosen]
            values = values[np.isfinite(values)]
            if len(values) >= _MIN_GALAXIES:
                result[f"{name}|z=0.02 logM={where}|q50"] = float(np.median(values))
    return result


def size_statistics(sample: Sample) -> dict[str, float]:
    """Compute Petrosian half-light radii (log10 kpc) and concentrations r90/r50 by mass.

    Parameters
    ----------
    sample : mapping
        ``log_mass``, ``log_ssfr``, ``r50_kpc``, ``concentration``.
    """
    result = {}
    types = {"star-forming": sample["log_ssfr"] > -10.8, "quiescent": sample["log_ssfr"] < -11.2}
    for name, of_type in types.items():
        for where, chosen in _bins(sample["log_mass"], (9.75, 10.25, 10.75, 11.25), 0.5):
            rows = chosen & of_type & np.isfinite(sample["r50_kpc"])
            if rows.sum() < _MIN_GALAXIES:
                continue
            label = f"{name} logM={where}"
            result[f"log_r50|{label}|q50"] = float(np.log10(np.median(sample["r50_kpc"][rows])))
            result[f"r90/r50|{label}|q50"] = float(np.median(sample["concentration"][rows]))
    return result


def petrosian_statistics(sample: Sample) -> dict[str, float]:
    """Compute Petrosian minus model magnitude in r as a function of colour.

    Parameters
    ----------
    sample : mapping
        ``colour`` (g - r) and ``difference`` (Petrosian minus model magnitude in r).
    """
    return {
        f"petrosian-model|g-r={where}|q50": float(np.median(sample["difference"][chosen]))
        for where, chosen in _bins(sample["colour"], (0.6, 0.75, 0.9, 1.05), 0.15)
        if chosen.sum() >= _MIN_GALAXIES
    }


def black_hole_statistics(sample: Sample) -> dict[str, float]:
    """Compute the mean log10 black-hole mass at given velocity dispersion.

    Parameters
    ----------
    sample : mapping
        ``log_sigma`` (log10 km/s) and ``log_black_hole_mass``.
    """
    result = {}
    for where, chosen in _bins(sample["log_sigma"], (2.2, 2.35), 0.15):
        if chosen.sum() >= 15:
            result[f"log_M_BH|log sigma={where}|mean"] = float(
                sample["log_black_hole_mass"][chosen].mean()
            )
    return result


def break_statistics(sample: Sample) -> dict[str, float]:
    """Compute the median 4000 A break of galaxies with weak and with strong Halpha emission.

    Parameters
    ----------
    sample : mapping
        ``dn4000`` and ``ew_halpha`` (A, emission positive).
    """
    width = sample["ew_halpha"]
    classes = {"EW(Halpha)<3": width < 3, "10<EW(Halpha)<60": (width > 10) & (width < 60)}
    return {
        f"dn4000|{where}|q50": float(np.median(sample["dn4000"][chosen]))
        for where, chosen in classes.items()
        if chosen.sum() >= 4
    }


#: Functions by name of the sample.
STATISTICS: dict[str, Callable[[Sample], dict[str, float]]] = {
    "photometry": colour_statistics,
    "lines": line_statistics,
    "nearby lines": nearby_line_statistics,
    "sizes": size_statistics,
    "petrosian": petrosian_statistics,
    "black holes": black_hole_statistics,
    "spectra": break_statistics,
}


def with_errors(
    statistics: Callable[[Sample], dict[str, float]], sample: Sample, *, resamples: int = 50
) -> dict[str, tuple[float, float]]:
    """Compute the statistics of a sample with bootstrap errors.

    Parameters
    ----------
    statistics : callable
        One of `STATISTICS`.
    sample : mapping
        Columns of the sample.
    resamples : int
        Number of bootstrap samples.

    Returns
    -------
    dict of str to (value, error)
    """
    values = statistics(sample)
    rng = np.random.default_rng(0)
    n = len(next(iter(sample.values())))
    draws = []
    for _ in range(resamples):
        chosen = rng.integers(0, n, n)
        draws.append(statistics({name: column[chosen] for name, column in sample.items()}))
    return {
        name: (value, float(np.nanstd([draw.get(name, np.nan) for draw in draws])))
        for name, value in values.items()
    }
