"""Scores of weights on the test part of a data set of real galaxies, beside published ones.

The quantities are scored with image and photometry, with the image only, and with photometry only;
the published values are those of Siddiqa et al. (arXiv:2511.12737), on their own test set of the
main galaxy sample of SDSS and with their own labels: the comparison is fair only for a data set of
the same selection.

Spectra are compared with the observed ones of the fibre:

- ``mse``: mean squared difference after division of each by its mean between 6900 and 6950
  Angstrom (observed frame), as in Doorenbos et al. (2024, ApJ 977, 131);
- ``chi2/N``: mean of the squared difference over the variance of the observation, with the best
  common factor, for all galaxies and by concentration (:math:`r_{90} / r_{50}` above and below 2.6;
  Strateva et al. 2001, AJ 122, 1861); at observed wavelengths, where an error of the redshift
  displaces all lines, and in the rest frame, each at its redshift;
- spectral indices, velocity dispersion, age, metallicity, reddening, and the class of active
  galaxies, measured by the same functions on both, each at its redshift
  (`astrogenspec.datasets.measured_scores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import QTable, vstack

from ..inputs.cutouts import CutoutBatch
from ..inputs.photometry import PhotometryBatch
from ..metrics import redshift_metrics
from ..quantities import FLUX_UNIT, QUANTITIES, theta_to_quantities
from ..reports.scores import calibration_table
from ..surveys import get_filter
from ..wavelengths import GENERATED, REST
from .folders import read_columns
from .measured_scores import measured_scores
from .spectra import rebin

if TYPE_CHECKING:
    from ..generation.estimator import SpectrumEstimator
    from ..inference.estimator import PropertyEstimator
    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws

__all__ = [
    "PUBLISHED",
    "TestSet",
    "judge_properties",
    "judge_spectra",
    "mass_metallicity",
    "population_scores",
    "predict_modes",
    "predict_spectra",
    "read_test_set",
]

#: Published coefficients of determination with image and photometry and with photometry only, and
#: scatter (dex; plain for the redshift), of Siddiqa et al. (arXiv:2511.12737); NaN where not given.
PUBLISHED = {
    "redshift": (0.80, 0.72, 0.018),
    "stellar_mass": (0.85, 0.80, 0.191),
    "sfr": (0.76, 0.75, 0.327),
    "gas_metallicity": (0.76, 0.65, 0.134),
    "black_hole_mass": (0.67, 0.62, 0.589),
    "halpha_flux": (0.79, np.nan, 0.427),
    "hbeta_flux": (0.79, np.nan, 0.381),
    "nii6584_flux": (0.70, np.nan, 0.427),
    "oiii5007_flux": (0.50, np.nan, 0.611),
}
#: Published accuracy of the class of active galaxies (Doorenbos et al. 2024).
AGN_ACCURACY = 0.82
#: Best published values from images or photometry, on other test sets: normalised median absolute
#: deviation of the redshift (Pasquet et al. 2019), root mean square errors (dex) of the mass and of
#: the star-formation rate (Zeraatgari et al. 2024, Delli Veneri et al. 2019) and of the gas
#: metallicity (Wu & Boada 2019).
BEST_PUBLISHED = {"redshift": 0.0091, "stellar_mass": 0.19, "sfr": 0.25, "gas_metallicity": 0.085}
#: Mass-metallicity relation on the scale of Pettini & Pagel (2004, O3N2), coefficients of log mass,
#: and range of log mass; Kewley & Ellison 2008, ApJ 681, 1183, table 2.
_MASS_METALLICITY = (32.1488, -8.51258, 0.976384, -0.0359763)
_MASS_RANGE = (8.5, 11.0)
_EARLY_CONCENTRATION = 2.6
#: Specific star-formation rate (log10, 1/yr) between star-forming and passive galaxies.
_PASSIVE = -11.0
#: Half width of the range between the two classes (dex).
_VALLEY = 0.25
_NORMAL_RANGE = (6900.0, 6950.0)


@dataclass(frozen=True, eq=False)
class TestSet:
    """Galaxies with known quantities, all corrected for Galactic extinction.

    Attributes
    ----------
    names : tuple of str
    cutouts : CutoutBatch or None
    photometry : PhotometryBatch
    truth : QTable
        Known quantities; NaN where unknown.
    concentration : ndarray, shape (n,)
        r90 over r50; NaN where unknown.
    spectrum, spectrum_ivar : ndarray, shape (n, 6400), or None
        Observed spectra in the rest frame.
    """

    names: tuple[str, ...]
    cutouts: CutoutBatch | None
    photometry: PhotometryBatch
    truth: QTable
    concentration: np.ndarray
    spectrum: np.ndarray | None
    spectrum_ivar: np.ndarray | None

    #: Not a test of pytest.
    __test__ = False

    def __len__(self) -> int:
        return len(self.names)


def read_test_set(folder: Path | str, n: int | None = None) -> TestSet:
    """Read galaxies of a folder of shards.

    Parameters
    ----------
    folder : path
        Folder of shards, such as ``test`` of a data set, or the data set itself.
    n : int, optional
        Maximum number of galaxies; all by default.

    Returns
    -------
    TestSet

    Raises
    ------
    FileNotFoundError
        If there are no shards.
    ValueError
        If they are not of real galaxies.
    """
    folder = Path(folder)
    if not list(folder.glob("shard-*.h5")) and (folder / "test").is_dir():
        folder = folder / "test"
    columns, filter_names = read_columns(folder, n)
    names = tuple(name.decode() for name in columns["name"])
    zeros = np.zeros(len(names))
    photometry = PhotometryBatch(
        columns["flux"].astype(float),
        columns["error"].astype(float),
        zeros,
        zeros > 0,
        names,
        filters=tuple(get_filter(name) for name in filter_names),
    )
    cutouts = None
    if "image" in columns:
        cutouts = CutoutBatch(columns["image"].astype(np.float32), columns["ivar"], names)
    truth = QTable({"name": list(names), **theta_to_quantities(columns["theta"].astype(float))})
    with np.errstate(invalid="ignore", divide="ignore"):
        concentration = columns["r90"] / columns["r50"]
    return TestSet(
        names,
        cutouts,
        photometry,
        truth,
        concentration,
        columns.get("spectrum"),
        columns.get("spectrum_ivar"),
    )


def predict_modes(
    estimator: PropertyEstimator, test: TestSet, *, n_draws: int = 1000, seed: int = 0
) -> dict[str, Posterior]:
    """Infer the galaxies of a test set with each kind of input.

    Parameters
    ----------
    estimator : PropertyEstimator
    test : TestSet
    n_draws : int
        Number of draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict of str to Posterior
        Posteriors by input, "both", "image" or "photometry".
    """
    inputs: dict[str, tuple[Any, Any]] = {"photometry": (None, test.photometry)}
    if test.cutouts is not None:
        inputs = {
            "both": (test.cutouts, test.photometry),
            "image": (test.cutouts, None),
            **inputs,
        }
    return {
        mode: estimator.predict(
            cutouts,
            photometry,
            ebv=0.0 if photometry is None else None,
            n_draws=n_draws,
            seed=seed,
            on_error="flag",
            progress=False,
        )
        for mode, (cutouts, photometry) in inputs.items()
    }


def judge_properties(posteriors: Mapping[str, Posterior], test: TestSet) -> QTable:
    """Score posteriors against the known quantities, beside the published scores.

    Parameters
    ----------
    posteriors : mapping of str to Posterior
        Posteriors by input, as from `predict_modes`.
    test : TestSet

    Returns
    -------
    QTable
        One row for each input and quantity: ``n``, ``r2``, ``scatter`` (robust) and ``rmse`` (dex;
        plain for the redshift), ``bias``, ``coverage_68``, ``coverage_95``, ``pit_p_value``,
        ``published_r2``, ``published_scatter``, ``best_published``; for the redshift also ``nmad``
        and ``outlier_fraction``.
    """
    known = [n for n in QUANTITIES if np.isfinite(_plain(test.truth[n])).any()]
    parts = []
    for mode, posterior in posteriors.items():
        scores = calibration_table(posterior, test.truth[["name", *known]])
        table = QTable({"input": [mode] * len(scores), "quantity": scores["quantity"]})
        for name in ("n", "r2", "scatter", "rmse", "bias", "coverage_68", "coverage_95"):
            table[name] = scores[name]
        table["pit_p_value"] = scores["pit_p_value"]
        column = {"both": 0, "photometry": 1}.get(mode)
        table["published_r2"] = [
            np.nan if column is None else PUBLISHED[name][column] for name in scores["quantity"]
        ]
        table["published_scatter"] = [
            PUBLISHED[name][2] if mode == "both" else np.nan for name in scores["quantity"]
        ]
        table["best_published"] = [
            BEST_PUBLISHED.get(name, np.nan) if mode == "both" else np.nan
            for name in scores["quantity"]
        ]
        redshift = redshift_metrics(
            _plain(posterior["redshift"].median()), _plain(test.truth["redshift"])
        )
        is_redshift = np.asarray(scores["quantity"]) == "redshift"
        for name, key in (("nmad", "sigma_nmad"), ("outlier_fraction", "outlier_fraction")):
            table[name] = np.where(is_redshift, redshift[key], np.nan)
        parts.append(table)
    return vstack(parts, metadata_conflicts="silent")


def population_scores(posterior: Posterior, test: TestSet) -> QTable:
    """Compare relations of the population: bimodality, mass and metallicity, active galaxies.

    Parameters
    ----------
    posterior : Posterior
    test : TestSet

    Returns
    -------
    QTable
        ``what``, ``n``, ``predicted``, ``true``, ``published``.
    """
    predicted = {name: _plain(posterior[name].median()) for name in QUANTITIES}
    true = {name: _plain(test.truth[name]) for name in QUANTITIES}
    rows = [
        *_bimodality_rows(predicted, true),
        *_metallicity_rows(predicted, true),
        *_activity_rows(predicted, true),
    ]
    names = ("what", "n", "predicted", "true", "published")
    return QTable(rows=rows or None, names=names, dtype=("U80", "i8", "f8", "f8", "f8"))


_Values = Mapping[str, np.ndarray]
_Row = tuple[str, int, float, float, float]


def _bimodality_rows(predicted: _Values, true: _Values) -> list[_Row]:
    """Return fractions of passive galaxies, and of those between the two classes."""
    known = np.isfinite(true["sfr"]) & np.isfinite(true["stellar_mass"])
    if not known.any():
        return []
    own, other = ((part["sfr"] - part["stellar_mass"])[known] for part in (predicted, true))
    n = int(known.sum())
    passive, true_passive = (float(np.mean(values < _PASSIVE)) for values in (own, other))
    between, true_between = (
        float(np.mean(np.abs(values - _PASSIVE) < _VALLEY)) for values in (own, other)
    )
    low, high = _PASSIVE - _VALLEY, _PASSIVE + _VALLEY
    return [
        (f"fraction with log sSFR < {_PASSIVE:g}", n, passive, true_passive, np.nan),
        (
            f"fraction with log sSFR from {low:g} to {high:g}",
            n,
            between,
            true_between,
            np.nan,
        ),
    ]


def _metallicity_rows(predicted: _Values, true: _Values) -> list[_Row]:
    """Return slope and mean of the mass-metallicity relation, beside the published one."""
    low, high = _MASS_RANGE
    mass = true["stellar_mass"]
    known = np.isfinite(true["gas_metallicity"]) & (mass > low) & (mass < high)
    if known.sum() <= 2:
        return []
    pairs = (
        (predicted["stellar_mass"], predicted["gas_metallicity"]),
        (mass, true["gas_metallicity"]),
        (mass, mass_metallicity(mass)),
    )
    slope, true_slope, published_slope = (
        float(np.polyfit(x[known], y[known], 1)[0]) for x, y in pairs
    )
    mean, true_mean, published_mean = (float(y[known].mean()) for _, y in pairs)
    n = int(known.sum())
    return [
        ("slope of 12 + log(O/H) with log mass", n, slope, true_slope, published_slope),
        ("mean of 12 + log(O/H)", n, mean, true_mean, published_mean),
    ]


def _activity_rows(predicted: _Values, true: _Values) -> list[_Row]:
    """Return the accuracy of the class of active galaxies from the four lines."""
    lines = ("halpha_flux", "hbeta_flux", "nii6584_flux", "oiii5007_flux")
    known = np.all([np.isfinite(true[name]) & (true[name] > 0) for name in lines], axis=0)
    if not known.any():
        return []
    own, other = (_is_active(*(part[name][known] for name in lines)) for part in (predicted, true))
    n = int(known.sum())
    above = "above the line of Kauffmann et al. (2003)"
    return [
        (f"fraction {above}", n, float(own.mean()), float(other.mean()), np.nan),
        (f"accuracy of the class {above}", n, float(np.mean(own == other)), 1.0, AGN_ACCURACY),
    ]


def mass_metallicity(log_mass: np.ndarray) -> np.ndarray:
    """Evaluate the published mass-metallicity relation.

    Parameters
    ----------
    log_mass : ndarray
        log10 of the stellar mass (Msun), 8.5 to 11.

    Returns
    -------
    ndarray
        12 + log10(O/H) on the O3N2 scale; NaN outside the range.
    """
    low, high = _MASS_RANGE
    value = np.polyval(_MASS_METALLICITY[::-1], log_mass)
    return np.where((log_mass >= low) & (log_mass <= high), value, np.nan)


def _is_active(
    halpha: np.ndarray, hbeta: np.ndarray, nii: np.ndarray, oiii: np.ndarray
) -> np.ndarray:
    """Whether galaxies lie above the curve of Kauffmann et al. (2003, MNRAS, 346, 1055)."""
    x, y = np.log10(nii / halpha), np.log10(oiii / hbeta)
    return (x >= 0.05) | (y > 0.61 / (np.minimum(x, 0.049) - 0.05) + 1.3)


def predict_spectra(
    estimator: SpectrumEstimator,
    test: TestSet,
    posterior: Posterior,
    *,
    n_draws: int = 16,
    seed: int = 0,
) -> SpectrumDraws:
    """Generate spectra of the fibre for the galaxies of a test set.

    Parameters
    ----------
    estimator : SpectrumEstimator
    test : TestSet
    posterior : Posterior
        Posterior of the same galaxies; not used by weights that make spectra from images alone.
    n_draws : int
        Number of spectra.
    seed : int
        Seed.

    Returns
    -------
    SpectrumDraws
    """
    return estimator.predict(
        test.cutouts,
        test.photometry,
        None if estimator.from_images_alone else posterior,
        n_draws=n_draws,
        seed=seed,
        on_error="flag",
        progress=False,
    )


def judge_spectra(
    spectra: SpectrumDraws, test: TestSet, *, n_fits: int = 100
) -> tuple[QTable, QTable]:
    """Compare generated with observed spectra; see the module docstring.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of the fibre of the galaxies of the test set.
    test : TestSet
        With spectra.
    n_fits : int
        Maximum number of galaxies to which stellar templates are fitted.

    Returns
    -------
    differences : QTable
        ``what``, ``group``, ``n``, ``median``.
    measurements : QTable
        See `astrogenspec.datasets.measured_scores.measured_scores`.

    Raises
    ------
    ValueError
        If the test set has no spectra.
    """
    if test.spectrum is None or test.spectrum_ivar is None:
        raise ValueError(
            "the data set has no spectra; make it again with them, or give no weights of spectra."
        )
    redshift = _plain(test.truth["redshift"])
    usable = np.isfinite(redshift) & (test.spectrum_ivar > 0).any(1) & spectra.usable
    observed, ivar = np.zeros((2, len(test), GENERATED.size))
    for k in np.flatnonzero(usable):
        observed[k], ivar[k] = rebin(
            REST.wavelength * (1 + redshift[k]), test.spectrum[k], test.spectrum_ivar[k], GENERATED
        )
    # Weights of images alone do not generate all wavelengths.
    low, high = spectra.meta.get("wavelength_range", GENERATED.wavelength[[0, -1]])
    outside = (GENERATED.wavelength < low) | (GENERATED.wavelength > high)
    ivar[:, outside] = 0
    chosen_draw = np.arange(len(test)), spectra.best_draw
    best = spectra.flux.to_value(FLUX_UNIT)[chosen_draw]
    own_redshift = _plain(spectra.redshift)[chosen_draw]
    median = np.median(spectra.flux.to_value(FLUX_UNIT), axis=1)
    early = test.concentration > _EARLY_CONCENTRATION
    groups = {
        "all": usable,
        "r90/r50 > 2.6": usable & early,
        "r90/r50 < 2.6": usable & (test.concentration <= _EARLY_CONCENTRATION),
    }
    at_rest, seen = _at_rest(best, own_redshift, usable, ~outside)
    values = {}
    for label, flux in (("best", best), ("median", median)):
        values[f"mse of the {label} spectrum"] = _normalised_mse(flux, observed, ivar)
        values[f"chi2/N of the {label} spectrum"] = _scaled_chi2(flux, observed, ivar)
    values["chi2/N of the best spectrum, rest frame"] = _scaled_chi2(
        at_rest, test.spectrum, np.where(seen, test.spectrum_ivar, 0)
    )
    rows = []
    for what, each in values.items():
        for group, chosen in groups.items():
            known = chosen & np.isfinite(each)
            centre = float(np.median(each[known])) if known.any() else np.nan
            rows.append((what, group, int(known.sum()), centre))
    table = QTable(
        rows=rows, names=("what", "group", "n", "median"), dtype=("U60", "U20", "i8", "f8")
    )
    measured = measured_scores(
        best[usable],
        observed[usable],
        ivar[usable],
        redshift[usable],
        own_redshift[usable],
        n_fits,
    )
    return table, measured


def _at_rest(
    flux: np.ndarray, redshift: np.ndarray, rows: np.ndarray, made: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return generated spectra in the rest frame, and which pixels they reach."""
    moved, weight = np.zeros((2, len(flux), REST.size))
    for k in np.flatnonzero(rows & np.isfinite(redshift)):
        wavelength = GENERATED.wavelength / (1 + redshift[k])
        moved[k], weight[k] = rebin(wavelength, flux[k], made.astype(float))
    return moved, weight > 0


def _normalised_mse(flux: np.ndarray, observed: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Mean squared difference of spectra over their mean in a range, NaN where it is not seen."""
    low, high = _NORMAL_RANGE
    window = (GENERATED.wavelength > low) & (GENERATED.wavelength < high)
    good = ivar > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = _mean(observed, good & window)
        own = _mean(flux, good & window)
        error = np.square(flux / own[:, None] - observed / scale[:, None])
        value = _mean(error, good)
    return np.where(scale > 0, value, np.nan)


def _scaled_chi2(flux: np.ndarray, observed: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = (flux * observed * ivar).sum(1) / (flux**2 * ivar).sum(1)
        return _mean(np.square(factor[:, None] * flux - observed) * ivar, ivar > 0)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return (values * where).sum(1) / where.sum(1)


def _plain(values: Any) -> np.ndarray:
    """Return the numbers of a quantity or a column."""
    return np.asarray(getattr(values, "value", values), dtype=float)
