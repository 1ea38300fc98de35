"""Scores of weights on the test part of a data set of real galaxies, beside published ones.

The quantities are scored with image and photometry, with the image only, and with photometry only;
the published values are those of Siddiqa et al. (arXiv:2511.12737), on their own test set of the
main galaxy sample of SDSS and with their own labels: the comparison is fair only for a data set of
the same selection.

Spectra are compared with the observed ones of the fibre, at the known redshift:

- ``mse``: mean squared difference after division of each by its mean between 6900 and 6950
  Angstrom (observed frame), as in Doorenbos et al. (2024, ApJ 977, 131);
- ``chi2_n``: mean of the squared difference over the variance of the observation, with the best
  common factor, for all galaxies and by concentration (:math:`r_{90} / r_{50}` above and below 2.6;
  Strateva et al. 2001, AJ 122, 1861);
- spectral indices, measured by the same function on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, vstack

from ..inputs.cutouts import CutoutBatch
from ..inputs.photometry import PhotometryBatch
from ..metrics import point_metrics, redshift_metrics
from ..quantities import FLUX_UNIT, QUANTITIES, theta_to_quantities
from ..reports.scores import calibration_table
from ..surveys import get_filter
from ..wavelengths import GENERATED, REST
from .folders import read_columns
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
PUBLISHED_AGN_ACCURACY = 0.82
#: Indices that are compared.
INDICES = ("Dn4000", "HdA", "Mgb", "Fe5270", "Fe5335")
_EARLY_CONCENTRATION = 2.6
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
        ``published_r2``, ``published_scatter``; for the redshift also ``nmad`` and
        ``outlier_fraction``.
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
    rows: list[tuple[Any, ...]] = []
    predicted = {name: _plain(posterior[name].median()) for name in QUANTITIES}
    true = {name: _plain(test.truth[name]) for name in QUANTITIES}
    both = np.isfinite(true["sfr"]) & np.isfinite(true["stellar_mass"])
    if both.any():
        passive = [
            float(np.mean((part["sfr"] - part["stellar_mass"])[both] < -11))
            for part in (predicted, true)
        ]
        rows.append(("fraction with log sSFR < -11", int(both.sum()), *passive, np.nan))
    both = np.isfinite(true["gas_metallicity"]) & np.isfinite(true["stellar_mass"])
    if both.sum() > 2:
        slopes = [
            float(np.polyfit(part["stellar_mass"][both], part["gas_metallicity"][both], 1)[0])
            for part in (predicted, true)
        ]
        rows.append(
            ("slope of 12 + log(O/H) with log mass (dex)", int(both.sum()), *slopes, np.nan)
        )
    lines = ("halpha_flux", "hbeta_flux", "nii6584_flux", "oiii5007_flux")
    known = np.all([np.isfinite(true[name]) & (true[name] > 0) for name in lines], axis=0)
    if known.any():
        active = [_is_active(*(part[name][known] for name in lines)) for part in (predicted, true)]
        accuracy = float(np.mean(active[0] == active[1]))
        rows.append(
            (
                "accuracy of the class above the line of Kauffmann et al. (2003)",
                int(known.sum()),
                accuracy,
                float(max(active[1].mean(), 1 - active[1].mean())),
                PUBLISHED_AGN_ACCURACY,
            )
        )
    names = ("what", "n", "predicted", "true", "published")
    return QTable(rows=rows or None, names=names, dtype=("U80", "i8", "f8", "f8", "f8"))


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
        Posterior of the same galaxies.
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
        posterior,
        n_draws=n_draws,
        seed=seed,
        on_error="flag",
        progress=False,
    )


def judge_spectra(spectra: SpectrumDraws, test: TestSet) -> QTable:
    """Compare generated with observed spectra; see the module docstring.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of the fibre of the galaxies of the test set.
    test : TestSet
        With spectra.

    Returns
    -------
    QTable
        ``what``, ``group``, ``n``, ``median``; for indices ``bias``, ``scatter`` and ``r2`` of the
        generated value against that of the observed spectrum.

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
    best = spectra.flux.to_value(FLUX_UNIT)[np.arange(len(test)), spectra.best_draw]
    median = np.median(spectra.flux.to_value(FLUX_UNIT), axis=1)
    early = test.concentration > _EARLY_CONCENTRATION
    groups = {
        "all": usable,
        "r90/r50 > 2.6": usable & early,
        "r90/r50 < 2.6": usable & (test.concentration <= _EARLY_CONCENTRATION),
    }
    rows = []
    for label, flux in (("best", best), ("median", median)):
        values = {
            f"mse of the {label} spectrum": _normalised_mse(flux, observed, ivar),
            f"chi2/N of the {label} spectrum": _scaled_chi2(flux, observed, ivar),
        }
        for what, each in values.items():
            for group, chosen in groups.items():
                known = chosen & np.isfinite(each)
                centre = float(np.median(each[known])) if known.any() else np.nan
                rows.append((what, group, int(known.sum()), centre, np.nan, np.nan, np.nan))
    if usable.any():
        rows += _index_rows(best[usable], observed[usable], ivar[usable], redshift[usable])
    names = ("what", "group", "n", "median", "bias", "scatter", "r2")
    return QTable(rows=rows, names=names, dtype=("U60", "U20", "i8", "f8", "f8", "f8", "f8"))


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


def _index_rows(
    flux: np.ndarray, observed: np.ndarray, ivar: np.ndarray, redshift: np.ndarray
) -> list[tuple]:
    """Return scores of spectral indices."""
    from astropy.nddata import InverseVariance
    from specutils import Spectrum

    from ..measure import measure_indices

    names = [name for name in INDICES if name in _index_names()]
    axis = GENERATED.wavelength * u.AA
    truth = measure_indices(
        Spectrum(
            flux=observed * FLUX_UNIT,
            spectral_axis=axis,
            uncertainty=InverseVariance(np.where(ivar > 0, ivar, 1e-20) / FLUX_UNIT**2),
            mask=ivar == 0,
        ),
        names,
        redshift=redshift,
    )
    own = measure_indices(
        Spectrum(flux=flux * FLUX_UNIT, spectral_axis=axis, mask=ivar == 0),
        names,
        redshift=redshift,
    )
    rows = []
    for name in names:
        one, other = _plain(own[name]), _plain(truth[name])
        both = np.isfinite(one) & np.isfinite(other)
        scores: dict[str, Any] = {"bias": np.nan, "scatter": np.nan, "r2": np.nan}
        if both.any():
            scores = point_metrics(one[both], other[both])
        centre = float(np.median(one[both])) if both.any() else np.nan
        rows.append(
            (name, "all", int(both.sum()), centre, scores["bias"], scores["scatter"], scores["r2"])
        )
    return rows


def _index_names() -> Sequence[str]:
    from ..measure.indices import INDEX_NAMES

    return INDEX_NAMES


def _plain(values: Any) -> np.ndarray:
    """Return the numbers of a quantity or a column."""
    return np.asarray(getattr(values, "value", values), dtype=float)
