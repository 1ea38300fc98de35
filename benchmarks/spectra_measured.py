"""Compare measurements on generated and on true spectra of simulated held-out galaxies.

    python benchmarks/spectra.py measured [--n 60] --out results/spectra

Indices and stellar populations of ``n`` galaxies; line fluxes and redshifts of draws against those
of the posterior draws; and the classification of active nuclei and star formation, on equal numbers
of both.  Called by `spectra.py`.
"""

from __future__ import annotations

import numpy as np
from spectra_sample import (
    Sample,
    best_of,
    pixel_coverage,
    predict,
    spectrum_of,
    stack_of,
)

from astrogenspec.measure import (
    BPT_CLASSES,
    INDEX_NAMES,
    bpt_class,
    measure_indices,
    measure_kinematics,
    measure_lines,
    measure_populations,
    measure_redshift,
)
from astrogenspec.wavelengths import line_index

_MIN_WIDTH = 3.0  # equivalent width of the lines that are compared (Angstrom)
_LINES = ("halpha", "hbeta", "oiii5007", "nii6584")
#: Draws for the coverage of indices; a range of k draws covers at most (k - 1) / (k + 1).
_DRAWS = 64
#: Draws on which stellar populations are measured, and draws whose lines are classified.
_POPULATION_DRAWS = 8
_BPT_DRAWS = 8
_POPULATIONS = (
    ("velocity_dispersion", measure_kinematics, "dispersion"),
    ("age", measure_populations, "log_age"),
    ("stellar_metallicity", measure_populations, "metallicity"),
    ("ebv", measure_populations, "ebv"),
)


def run_measured(properties, estimator, n: int) -> dict:
    """Run all comparisons."""
    sample = Sample(n)
    posterior, drawn = predict(properties, estimator, sample.inputs("both"), n_draws=_DRAWS)
    result = {"kind": "simulated held-out, image and photometry, fibre", "n": n, "draws": _DRAWS}
    result["indices"] = indices(sample, drawn)
    result |= populations(sample, drawn)
    result |= lines_and_redshifts(sample, drawn, posterior)
    result["agn"] = active_nuclei(properties, estimator, n // 2)
    return result


def compared(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return bias, robust scatter and correlation."""
    good = np.isfinite(found) & np.isfinite(true)
    difference = (found - true)[good]
    return {
        "n": int(good.sum()),
        "bias": float(np.median(difference)),
        "scatter": robust_scatter(difference),
        "rms": float(np.sqrt(np.mean(difference**2))),
        "correlation": float(np.corrcoef(found[good], true[good])[0, 1]),
    }


def robust_scatter(values: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def indices(sample: Sample, drawn) -> dict:
    """Compare indices of the best draw with those of the true spectrum; coverage of the draws."""
    flux, redshift = best_of(drawn)
    tables = [
        measure_indices(stack_of(values), redshift=z)
        for values, z in ((flux, redshift), (sample.fibre, sample.redshift))
    ]
    draws = [
        measure_indices(stack_of(drawn.flux.value[k]), redshift=drawn.redshift[k])
        for k in range(len(sample))
    ]
    scores = {}
    for name in INDEX_NAMES:
        found, true = (_plain(table[name]) for table in tables)
        of_draws = np.array([_plain(table[name]) for table in draws])
        scores[name] = compared(found, true) | pixel_coverage(of_draws[:, :, None], true[:, None])
    return scores


def populations(sample: Sample, drawn) -> dict:
    """Compare velocity dispersion, age, metallicity and E(B-V) of generated and true spectra.

    Scored are the best draw and the median of the values of several draws.  A draw has its own
    scatter in addition to the error of the posterior; the median has the latter only.
    """
    sets = {
        "true": (sample.fibre[:, None], sample.redshift[:, None]),
        "best": [values[:, None] for values in best_of(drawn)],
        "median of draws": (
            drawn.flux.value[:, :_POPULATION_DRAWS],
            drawn.redshift[:, :_POPULATION_DRAWS],
        ),
    }
    scores = {}
    for key, function, column in _POPULATIONS:
        values = {
            name: np.array(
                [median_measured(function, column, *pair) for pair in zip(*both, strict=True)]
            )
            for name, both in sets.items()
        }
        for name in ("best", "median of draws"):
            scores[f"{key}, {name}"] = compared(values[name], values["true"])
    return scores


def median_measured(function, column: str, flux: np.ndarray, redshift: np.ndarray) -> float:
    """Median of a measurement on several spectra of a galaxy."""
    found = [
        _first(function(spectrum_of(f, z)), column) for f, z in zip(flux, redshift, strict=True)
    ]
    return float(np.nanmedian(found))


def lines_and_redshifts(sample: Sample, drawn, posterior) -> dict:
    """Compare lines and redshifts measured on spectra with those of the posterior draws."""
    some = np.flatnonzero(sample.halpha_width > _MIN_WIDTH)[:40]
    ratios: dict[str, list[float]] = {name: [] for name in _LINES}
    shifts = []
    for k in some:
        for draw in range(2):
            spectrum = spectrum_of(drawn.flux.value[k, draw], drawn.redshift[k, draw])
            table = measure_lines(spectrum)
            shifts.append(_first(measure_redshift(spectrum), "redshift") - drawn.redshift[k, draw])
            for name, found in ratios.items():
                row = list(table["line"]).index(name)
                wanted = posterior[f"{name}_flux"].draws[k, draw].value
                if table["equivalent_width"][row].value > _MIN_WIDTH:
                    found.append(float(np.log10(table["flux"][row].value / wanted)))
    return {
        "lines_against_table": {
            name: {"n": len(v), "bias": float(np.median(v)), "scatter": robust_scatter(np.array(v))}
            for name, v in ratios.items()
            if v
        },
        "redshift_against_draw": {
            "n": len(shifts),
            "within_0.0005": float(np.mean(np.abs(shifts) < 0.0005)),
        },
    }


def active_nuclei(properties, estimator, n: int) -> dict:
    """Measure the balanced accuracy of classification in the [N II] diagram.

    At most n galaxies of each class are used.  True classes are those of the simulated line
    ratios, for galaxies with an Halpha equivalent width of more than 1 A; composites are excluded.
    A spectrum is classified as active if its measured lines lie above the curve of Kauffmann et
    al. (2003): those of the best draw, or of most draws.
    """

    def chosen(columns) -> np.ndarray:
        kind = true_classes(columns["line_flux"].numpy())
        strong = columns["halpha_width"].numpy() > 1.0
        sides = [
            np.flatnonzero((kind == BPT_CLASSES.index(c)) & strong)[:n]
            for c in ("star_forming", "agn")
        ]
        return np.concatenate(sides)

    sample = Sample(0, rows=chosen)
    active = true_classes(sample.line_flux) == BPT_CLASSES.index("agn")
    posterior, drawn = predict(properties, estimator, sample.inputs("both"))
    spectra = {
        "of the true spectrum": [sample.fibre[:, None], sample.redshift[:, None]],
        "of the best draw": [values[:, None] for values in best_of(drawn)],
        "of most draws": [drawn.flux.value[:, :_BPT_DRAWS], drawn.redshift[:, :_BPT_DRAWS]],
    }
    result: dict = {"n_agn": int(active.sum()), "n_star_forming": int((~active).sum())}
    for name, (flux, redshift) in spectra.items():
        fraction = np.array([active_fraction(f, z) for f, z in zip(flux, redshift, strict=True)])
        result[name] = balanced(fraction, active)
    ratios = [posterior[f"{name}_flux"].draws.value for name in _LINES]
    halpha, hbeta, oiii, nii = ratios
    fraction = (bpt_class(np.log10(nii / halpha), np.log10(oiii / hbeta)) > 0).mean(1)
    result["of the posterior, without spectra"] = balanced(fraction, active)
    return result


def balanced(fraction: np.ndarray, active: np.ndarray) -> dict[str, float]:
    """Score the fractions of active draws against the true classes.

    A galaxy is classified by most draws, and by whether more of its draws are active than of the
    galaxies, which is the decision of the best balanced accuracy for a calibrated fraction.
    """
    pairs = fraction[active][:, None] - fraction[~active][None]
    hits, above = (
        (np.mean(fraction[active] > limit), np.mean(fraction[~active] <= limit))
        for limit in (0.5, np.mean(active))
    )
    return {
        "balanced_accuracy": float(np.mean(hits)),
        "balanced_accuracy, above the share": float(np.mean(above)),
        "agn_found": float(hits[0]),
        "star_forming_found": float(hits[1]),
        "area_under_curve": float(np.mean((pairs > 0) + 0.5 * (pairs == 0))),
    }


def true_classes(line_flux: np.ndarray) -> np.ndarray:
    """Return the classes in the [N II] diagram for line fluxes of shape (n, 17)."""
    halpha, hbeta, nii, oiii = (
        line_flux[:, line_index(name)] for name in ("Halpha", "Hbeta", "NII6585", "OIII5008")
    )
    return bpt_class(np.log10(nii / halpha), np.log10(oiii / hbeta))


def active_fraction(flux: np.ndarray, redshift: np.ndarray) -> float:
    """Fraction of spectra whose lines lie above the curve of Kauffmann et al. (2003)."""
    tables = [measure_lines(spectrum_of(f, z), _LINES) for f, z in zip(flux, redshift, strict=True)]
    found = np.clip([table["flux"].value for table in tables], 1e-3, None)
    halpha, hbeta, oiii, nii = found.T
    return float(np.mean(bpt_class(np.log10(nii / halpha), np.log10(oiii / hbeta)) > 0))


def _plain(column) -> np.ndarray:
    return np.asarray(getattr(column, "value", column), dtype=float)


def _first(table, column: str) -> float:
    return float(_plain(table[column])[0])
