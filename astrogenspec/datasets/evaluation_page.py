"""Evaluation of weights on a data set of real galaxies, as tables, figures and a page."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import QTable

from .. import __version__
from ..calibration.diagnostics import tarp, values_in_dex
from ..quantities import FLUX_UNIT, QUANTITIES
from ..wavelengths import REST
from .evaluation import (
    TestSet,
    judge_properties,
    judge_spectra,
    mass_metallicity,
    population_scores,
    predict_modes,
    predict_spectra,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws

__all__ = ["Evaluation", "evaluate", "html_page"]

#: Example spectra on the page.
_N_EXAMPLES = 6
_MIN_TARP = 20
#: Number of galaxies above which markers are small.
_MANY = 300
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #bbb;padding:.2rem .5rem;
text-align:right}td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
.wide{overflow-x:auto}img{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}img{background:#fff}}
"""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of `evaluate`.

    Attributes
    ----------
    test : TestSet
    weights : dict of str to str
        Names of the weights.
    posteriors : dict of str to Posterior
        Posteriors by input.
    spectra : SpectrumDraws or None
    tables : dict of str to QTable
        ``properties``, ``population`` and, with weights of spectra, ``spectra`` and
        ``measurements``.
    tarp_deviation : float
        Largest deviation of the expected coverage of the joint posterior of redshift, mass and
        star-formation rate from the nominal one (TARP; Lemos et al. 2023); NaN if unknown.
    """

    test: TestSet
    weights: dict[str, str]
    posteriors: dict[str, Posterior]
    spectra: SpectrumDraws | None
    tables: dict[str, QTable]
    tarp_deviation: float


def evaluate(
    test: TestSet,
    *,
    properties: str | None = None,
    spectra: str | None = None,
    n_draws: int = 500,
    n_fits: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> Evaluation:
    """Score weights on a test set.

    Parameters
    ----------
    test : TestSet
    properties, spectra : str, optional
        Names or files of weights; by default the bundled weights of properties, and none of
        spectra.
    n_draws : int
        Number of draws per galaxy.
    n_fits : int
        Maximum number of galaxies to which stellar templates are fitted, which takes seconds each.
    seed : int
        Seed of the draws.
    device : str
        Device of the networks.

    Returns
    -------
    Evaluation
    """
    from ..generation.estimator import SpectrumEstimator
    from ..inference.estimator import PropertyEstimator

    estimator = PropertyEstimator.from_pretrained(properties, device=device)
    posteriors = predict_modes(estimator, test, n_draws=n_draws, seed=seed)
    first = next(iter(posteriors.values()))
    tables = {
        "properties": judge_properties(posteriors, test),
        "population": population_scores(first, test),
    }
    weights = {"properties": _name(estimator.card, properties)}
    draws = None
    if spectra is not None:
        generator = SpectrumEstimator.from_pretrained(spectra, device=device)
        draws = predict_spectra(generator, test, first, seed=seed)
        tables["spectra"], tables["measurements"] = judge_spectra(draws, test, n_fits=n_fits)
        weights["spectra"] = _name(generator.card, spectra)
    return Evaluation(test, weights, posteriors, draws, tables, _tarp(first, test, seed))


def _name(card: dict[str, Any] | None, given: str | None) -> str:
    return str((card or {}).get("name") or given or "bundled")


def _tarp(posterior: Posterior, test: TestSet, seed: int) -> float:
    names = ("redshift", "stellar_mass", "sfr")
    true = {
        name: np.asarray(getattr(test.truth[name], "value", test.truth[name])) for name in names
    }
    chosen = [name for name in names if np.isfinite(true[name]).sum() >= _MIN_TARP]
    if not chosen:
        return np.nan
    rows = np.all([np.isfinite(true[name]) for name in chosen], axis=0)
    rows &= np.isfinite(_numbers(posterior["redshift"].draws)).all(axis=1)
    if rows.sum() < _MIN_TARP:
        return np.nan
    stacked = np.stack([_numbers(posterior[name].draws)[rows] for name in chosen], axis=-1)
    truth = np.stack([true[name][rows] for name in chosen], axis=-1)
    return float(tarp(stacked, truth, seed=seed).max_deviation)


def _numbers(values: Any) -> np.ndarray:
    """Return the numbers of a quantity or a column."""
    return np.asarray(getattr(values, "value", values), dtype=float)


def html_page(evaluation: Evaluation) -> str:
    """Lay out an evaluation as a page.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    str

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    weights = ", ".join(f"{html.escape(v)} ({k})" for k, v in evaluation.weights.items())
    n = len(evaluation.test)
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Evaluation</title><style>{_STYLE}</style></head><body>",
        f"<h1>Evaluation on {n} real galaxies</h1>",
        f"<p>Weights: {weights}. Made with astrogenspec {__version__}.</p>",
        "<h2>Quantities</h2><p>Errors of the posterior median, in dex (redshift: plain); "
        "fraction of true values inside the central 68% and 95% intervals; p-value of a uniform "
        "probability integral transform. Published values: Siddiqa et al. (arXiv:2511.12737), on "
        "their own test set; best published: NMAD of the redshift (Pasquet et al. 2019) and root "
        "mean square errors of mass, star-formation rate and metallicity (Zeraatgari et al. 2024, "
        "Delli Veneri et al. 2019, Wu &amp; Boada 2019), likewise.</p>",
        _table(_side_by_side(evaluation.tables["properties"])),
        f"<p>{_tarp_text(evaluation.tarp_deviation)}</p>",
        _image(_value_figure(evaluation), "posterior medians against true values"),
        _image(_rank_figure(evaluation), "probability integral transform"),
        "<h2>Relations of the population</h2><p>Published mass-metallicity relation: Kewley &amp; "
        "Ellison (2008), at the masses of these galaxies.</p>",
        _table(evaluation.tables["population"]),
        _image(_population_figure(evaluation), "star formation and metallicity against mass"),
    ]
    if evaluation.spectra is not None:
        parts += [
            "<h2>Spectra</h2>",
            "<p>Medians over the galaxies. chi2/N with the best common factor.</p>",
            _table(evaluation.tables["spectra"]),
            "<p>Measurements on the best generated against those on the observed spectra. "
            "Published: root mean square error of the velocity dispersion from images (Hansen et "
            "al. 2020), and accuracy of the class of active galaxies (Doorenbos et al. 2024), on "
            "their own test sets.</p>",
            _table(evaluation.tables["measurements"]),
            *_measurement_images(evaluation.tables["measurements"]),
            _image(_spectrum_figure(evaluation, evaluation.spectra), "generated and observed"),
        ]
    return "\n".join([*parts, "</body></html>"])


def _tarp_text(deviation: float) -> str:
    what = (
        "Largest deviation of the joint coverage of redshift, mass and star-formation rate (TARP)"
    )
    if np.isnan(deviation):
        return f"{what}: not computed; at least {_MIN_TARP} galaxies with labels are needed."
    return f"{what}: {deviation:.3f}."


def _side_by_side(table: QTable) -> QTable:
    """Put each published score beside the score of the same kind."""
    pairs = {"r2": "published_r2", "scatter": "published_scatter", "rmse": "best_published"}
    names = [name for name in table.colnames if name not in pairs.values()]
    for score, published in pairs.items():
        names.insert(names.index(score) + 1, published)
    return table[names]


def _table(table: QTable) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.colnames)
    rows = []
    for row in table:
        cells = []
        for name in table.colnames:
            value = row[name]
            if isinstance(value, float | np.floating):
                cells.append("<td></td>" if np.isnan(value) else f"<td>{value:.3g}</td>")
            else:
                cells.append(f"<td>{html.escape(str(value))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class='wide'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _figure(size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, Any]:
    from ..plotting.style import package

    package("matplotlib.backends.backend_agg")
    figure = package("matplotlib.figure").Figure(size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<p><img alt='{html.escape(description)}' src='data:image/png;base64,{data}'></p>"


def _value_figure(evaluation: Evaluation) -> Figure:
    """Posterior medians against true values, one panel for each quantity."""
    figure, axes = _figure((10, 10), 3, 3)
    mode, posterior = next(iter(evaluation.posteriors.items()))
    for axis, name in zip(axes.ravel(), QUANTITIES, strict=True):
        draws, true, unit = values_in_dex(posterior[name], evaluation.test.truth[name])
        median = np.median(draws, axis=1)
        both = np.isfinite(median) & np.isfinite(true)
        axis.plot(true[both], median[both], ".", ms=_marker(both), alpha=0.5)
        if both.any():
            ends = [np.min([true[both], median[both]]), np.max([true[both], median[both]])]
            axis.plot(ends, ends, "k-", lw=0.8)
        else:
            axis.text(0.5, 0.5, "no labels", ha="center", transform=axis.transAxes)
        label = f"{name} ({unit})" if str(unit) else name
        axis.set(xlabel=f"true {label}", ylabel=f"median ({mode})")
    return figure


def _marker(shown: np.ndarray) -> float:
    """Return the size of the markers of the galaxies that are shown."""
    return 3.0 if shown.sum() > _MANY else 7.0


def _rank_figure(evaluation: Evaluation) -> Figure:
    """Histograms of the probability integral transform, one panel for each quantity."""
    from ..calibration.diagnostics import pit

    figure, axes = _figure((10, 7), 3, 3)
    edges = np.linspace(0, 1, 11)
    for axis, name in zip(axes.ravel(), QUANTITIES, strict=True):
        for mode, posterior in evaluation.posteriors.items():
            draws, true, _ = values_in_dex(posterior[name], evaluation.test.truth[name])
            ranks = pit(draws, true, seed=0)
            ranks = ranks[np.isfinite(ranks)]
            if len(ranks):
                axis.hist(ranks, edges, density=True, histtype="step", label=mode)
        axis.axhline(1, color="k", lw=0.8)
        axis.set(xlabel=f"PIT of {name}", ylabel="density")
    axes[0, 0].legend()
    return figure


def _population_figure(evaluation: Evaluation) -> Figure:
    """Star formation and gas metallicity against mass, predicted and true."""
    figure, axes = _figure((10, 7), 2, 2)
    _, posterior = next(iter(evaluation.posteriors.items()))
    predicted = {name: _numbers(posterior[name].median()) for name in QUANTITIES}
    true = {name: _numbers(evaluation.test.truth[name]) for name in QUANTITIES}
    ends: dict[int, list[float]] = {0: [], 1: []}
    for column, (label, values) in enumerate((("median", predicted), ("true", true))):
        for row, name in enumerate(("sfr", "gas_metallicity")):
            known = np.isfinite(true[name]) & np.isfinite(true["stellar_mass"])
            known &= np.isfinite(predicted[name]) & np.isfinite(predicted["stellar_mass"])
            axis = axes[row, column]
            x, y = values["stellar_mass"][known], values[name][known]
            axis.plot(x, y, ".", ms=_marker(known), alpha=0.5)
            axis.set(xlabel=f"{label} log mass (Msun)", ylabel=f"{label} {name}")
            ends[row] += values[name][known].tolist()
    mass = np.linspace(8.5, 11, 50)
    for axis in axes[1]:
        axis.plot(mass, mass_metallicity(mass), "k-", lw=0.8, label="Kewley & Ellison (2008)")
        axis.legend()
    for row, shown in ends.items():
        if shown:
            margin = 0.1 + 0.05 * (max(shown) - min(shown))
            for axis in axes[row]:
                axis.set_ylim(min(shown) - margin, max(shown) + margin)
    return figure


#: Measurements that are shown as figures.
_SHOWN = (
    "Dn4000",
    "HdA",
    "Mgb",
    "Fe5270",
    "velocity dispersion (km/s)",
    "log age (dex)",
    "metallicity (dex)",
    "E(B-V) (mag)",
)


def _measurement_images(table: QTable) -> list[str]:
    """Measurements on the best generated against those on the observed spectra."""
    values = table.meta.get("values", {})
    shown = [name for name in _SHOWN if name in values]
    if not shown:
        return []
    figure, axes = _figure((10, 5), 2, 4)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.ravel(), shown, strict=False):
        own, true = values[name]
        both = np.isfinite(own) & np.isfinite(true)
        axis.plot(true[both], own[both], ".", ms=_marker(both), alpha=0.5)
        if both.any():
            ends = [np.min([true[both], own[both]]), np.max([true[both], own[both]])]
            axis.plot(ends, ends, "k-", lw=0.8)
        axis.set(xlabel=f"observed {name}", ylabel="generated")
    return [_image(figure, "measurements on generated against observed spectra")]


def _spectrum_figure(evaluation: Evaluation, spectra: SpectrumDraws) -> Figure:
    """Observed spectra with the best generated ones and the 68% range."""
    test = evaluation.test
    ivar = np.asarray(test.spectrum_ivar)
    rows = np.flatnonzero((ivar > 0).any(1) & spectra.usable)[:_N_EXAMPLES]
    figure, axes = _figure((10, 2.4 * max(len(rows), 1)), max(len(rows), 1), 1)
    flux = spectra.flux.to_value(FLUX_UNIT)
    wavelength = spectra.wavelength.to_value("AA")
    for axis, k in zip(axes[:, 0], rows, strict=False):
        z = float(_numbers(test.truth["redshift"])[k])
        good = ivar[k] > 0
        observed = np.where(good, np.asarray(test.spectrum)[k], np.nan)
        best = flux[k, spectra.best_draw[k]]
        low, high = np.percentile(flux[k], [16, 84], axis=0)
        axis.plot(REST.wavelength * (1 + z), observed, color="0.6", lw=0.6, label="observed")
        axis.fill_between(wavelength, low, high, alpha=0.4, label="68% of the draws")
        axis.plot(wavelength, best, lw=0.8, label="best")
        top = 1.3 * max(float(np.nanpercentile(observed, 99.5)), float(np.percentile(best, 99)))
        axis.set(xlim=(3800, 9200), ylim=(0, top), title=f"{test.names[k]}, z = {z:.3f}")
        axis.set(ylabel="1e-17 erg/s/cm2/A")
    axes[0, 0].legend(loc="upper right")
    axes[-1, 0].set_xlabel("observed wavelength (Angstrom)")
    return figure
