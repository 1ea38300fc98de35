"""Compare the colours of simulated and real galaxies, and fit priors of the simulator to them.

    python recipes/fit_priors.py compare FOLDER
    python recipes/fit_priors.py fit FOLDER --free stellar_correction --out runs/priors
    python recipes/fit_priors.py fit FOLDER --free population --out runs/priors

FOLDER holds the tables of ``astrogenspec simulate --report``.  The statistics, for galaxies with a
2MASS source, are the medians of u - g, r - i and i - z at given redshift, r and g - r, in bins of
redshift and g - r and along the red sequence; the quantiles of g - r in bins of redshift; and the
number of galaxies by redshift and g - r.  ``compare`` also prints the scatter at given redshift, r
and g - r, the correlation of the two reddest colours, and the accuracy of a classifier of simulated
and real galaxies.

``fit`` changes the priors named in `FREE` by one Gauss-Newton step with Huber weights; for another
step, pass the tables of the last one with ``--start``.  Derivatives are finite differences of
populations drawn with the same random numbers.  70% of the galaxies are fitted, the rest are held
out.  The tables written to ``--out`` have the format of ``astrogenspec/simulate/priors``; the
package is not changed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import Sample, Simulator, load_priors
from astrogenspec.simulate.priors import Priors
from astrogenspec.simulate.samples import read_real_samples

#: Priors that can be fitted, with the steps of the finite differences; the change in a fit is
#: limited to about 1.5 steps.
FREE = {
    "stellar_correction": {
        name: 0.02
        for name in load_priors("stellar_correction")
        if name.startswith(("old_", "young_"))
        and 2500 <= int(name.split("_")[1]) <= 10000
        and not name.endswith("_5500")
    },
    "population": {
        "quenched_mass": 0.05,
        "quenched_power": 0.06,
        "quenched_base": 0.03,
        "quenched_max": -0.04,
        "green_valley_fraction": 0.03,
        "quiescent_ssfr": 0.15,
        "onset_quiescent": 0.5,
        "onset_quiescent_slope": 0.4,
        "onset_bulge": 0.7,
        "onset_bulge_slope": 0.5,
        "stellar_metallicity_quiescent": 0.03,
        "stellar_metallicity_quiescent_slope": 0.05,
        "stellar_metallicity_scatter": 0.02,
        "mass_function_knee": 0.03,
    },
}
_SEED = 77
REDSHIFT = list(QUANTITIES).index("redshift")
_REDSHIFT = (0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.28)
_COLOUR = (0.20, 0.45, 0.60, 0.75, 0.90, 1.05, 1.50)
_FINE = (*np.arange(0.02, 0.2, 0.01), 0.20, 0.22, 0.25, 0.28)
#: Columns of `Galaxies.colours` that are compared at given g - r.
_AT_GIVEN_COLOUR = {"u-g": 0, "r-i": 2, "i-z": 3}
#: Column of g - r in `Galaxies.colours`, and of r in `Galaxies.magnitude`.
G_R, R = 1, 2
#: Errors added in quadrature: the accuracy of the simulator (mag).
_FLOOR = {"u-g": 0.006, "r-i": 0.002, "i-z": 0.002, "g-r": 0.012}
_SMOOTHNESS = 0.02
_HUBER = 2.0


@dataclass(frozen=True)
class Galaxies:
    """Model magnitudes corrected for extinction, shape (n, 5), and redshifts (n,)."""

    magnitude: np.ndarray
    redshift: np.ndarray

    def __getitem__(self, rows) -> Galaxies:
        return Galaxies(self.magnitude[rows], self.redshift[rows])

    @property
    def colours(self) -> np.ndarray:
        """Colours u - g, g - r, r - i and i - z, shape (n, 4)."""
        return self.magnitude[:, :-1] - self.magnitude[:, 1:]

    @property
    def red(self) -> np.ndarray:
        """Whether galaxies are on or near the red sequence."""
        return self.colours[:, G_R] > 0.52 + 2.6 * np.minimum(self.redshift, 0.2)

    def inside(self) -> Galaxies:
        """Select the galaxies within the limits of the comparison."""
        z = self.redshift
        return self[(self.magnitude[:, R] > 13.5) & (z > 0.02) & (z < 0.3)]


def read(folder: Path) -> tuple[Galaxies, Galaxies]:
    """Read real galaxies: 70% to fit, and the held-out rest."""
    sample = read_real_samples(folder)["photometry"]
    real = Galaxies(sample["magnitude"], sample["redshift"]).inside()
    fitted = np.random.default_rng(70).uniform(size=len(real.redshift)) < 0.7
    return real[fitted], real[~fitted]


def draw(priors: dict[str, Priors], batches: int) -> Galaxies:
    """Draw simulated galaxies with a 2MASS source, always with the same seed."""
    simulator, sample = Simulator(priors=priors), Sample(near_infrared=True)
    parts = [simulator.batch(_SEED, k, sample) for k in range(batches)]
    flux = np.concatenate([part.observation.flux.numpy() for part in parts])
    redshift = np.concatenate([part.theta[:, REDSHIFT].numpy() for part in parts])
    return Galaxies(22.5 - 2.5 * np.log10(np.maximum(flux, 1e-2)), redshift).inside()


def residuals(real: Galaxies, simulated: Galaxies) -> tuple[np.ndarray, np.ndarray]:
    """Return colours minus the median of simulated galaxies of the same redshift, r and g - r.

    Returns
    -------
    residual : ndarray, shape (n, 4)
    valid : ndarray of bool, shape (n,)
        Whether there are enough similar simulated galaxies.
    """

    def position(galaxies: Galaxies) -> np.ndarray:
        axes = galaxies.redshift, galaxies.magnitude[:, R], galaxies.colours[:, G_R]
        return np.column_stack(axes) / (0.01, 0.25, 0.03)

    distance, near = cKDTree(position(simulated)).query(position(real), k=60)
    return real.colours - np.median(simulated.colours[near], axis=1), distance[:, -1] < 4


def _median(values: np.ndarray, floor: float) -> tuple[float, float]:
    centre = float(np.median(values))
    scatter = 1.4826 * np.median(np.abs(values - centre))
    return centre, float(np.hypot(1.25 * scatter / np.sqrt(len(values)), floor))


def _cells(edges: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(zip(edges[:-1], edges[1:], strict=True))


def differences(real: Galaxies, simulated: Galaxies) -> dict[tuple, tuple[float, float]]:
    """Return the differences of real and simulated statistics, with errors."""
    left, near = residuals(real, simulated)
    z, gr = real.redshift, real.colours[:, G_R]
    of_simulated = simulated.redshift, simulated.colours[:, G_R]
    result: dict[tuple, tuple[float, float]] = {}
    for low, high in _cells(_REDSHIFT):
        at, there = (z >= low) & (z < high), (of_simulated[0] >= low) & (of_simulated[0] < high)
        for q in (20, 50, 80):
            difference = np.percentile(gr[at], q) - np.percentile(of_simulated[1][there], q)
            error = np.hypot(_FLOOR["g-r"], 0.05 / np.sqrt(at.sum()))
            result["g-r", low, q] = difference, error
        for blue, red in _cells(_COLOUR):
            rows = at & (gr >= blue) & (gr < red)
            fraction = (there & (of_simulated[1] >= blue) & (of_simulated[1] < red)).mean()
            if rows.sum() >= 8 and fraction > 0:
                difference = np.log(rows.mean() / fraction)
                result["count", low, blue] = difference, np.hypot(rows.sum() ** -0.5, 0.08)
            rows &= near
            if rows.sum() >= 20:
                for name, k in _AT_GIVEN_COLOUR.items():
                    result[name, low, blue] = _median(left[rows, k], _FLOOR[name])
    for low, high in _cells(_FINE):
        rows = real.red & near & (z >= low) & (z < high)
        if rows.sum() >= 25:
            for name, k in _AT_GIVEN_COLOUR.items():
                result[f"red {name}", low, 0] = _median(left[rows, k], _FLOOR[name])
    return result


def report(title: str, real: Galaxies, simulated: Galaxies) -> None:
    """Print chi2 and rms of each kind of difference."""
    found = differences(real, simulated)
    print(title)
    for kind in dict.fromkeys(key[0] for key in found):
        values = np.array([value for key, value in found.items() if key[0] == kind])
        chi2, rms = np.sum((values[:, 0] / values[:, 1]) ** 2), np.sqrt(np.mean(values[:, 0] ** 2))
        print(f"  {kind:8s} chi2 {chi2:6.1f} of {len(values):3d}, rms {rms:.4f}")


def report_scatter(real: Galaxies, simulated: Galaxies) -> None:
    """Print scatter and correlation of red-sequence colours at given redshift, r and g - r."""
    half = len(simulated.redshift) * 2 // 3
    sets = {"real": real, "simulated": simulated[half:]}
    for low, high in _cells((0.02, 0.06, 0.10, 0.14, 0.20, 0.28)):
        for name, galaxies in sets.items():
            left, near = residuals(galaxies, simulated[:half])
            z = galaxies.redshift
            left = left[near & galaxies.red & (z >= low) & (z < high)][
                :, list(_AT_GIVEN_COLOUR.values())
            ]
            left = left - np.median(left, axis=0)
            scatter = 1.4826 * np.median(np.abs(left), axis=0)
            core = np.clip(left, -3 * scatter, 3 * scatter)
            far = np.mean(np.abs(left) > 4 * scatter, axis=0)
            print(
                f"  {low:.2f} < z < {high:.2f} {name:9s} scatter {scatter.round(4)}, beyond 4 "
                f"sigma {far.round(4)}, correlation {np.corrcoef(core[:, 1], core[:, 2])[0, 1]:.2f}"
            )


def two_sample_auc(real: Galaxies, simulated: Galaxies, columns: list[int]) -> float:
    """Return the ROC area of a classifier of simulated and real galaxies; 0.5 if they agree.

    Parameters
    ----------
    real, simulated : Galaxies
    columns : list of int
        Features, out of four colours, r and redshift.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    simulated = simulated[: 2 * len(real.redshift)]
    features = np.concatenate(
        [np.column_stack([g.colours, g.magnitude[:, R], g.redshift]) for g in (simulated, real)]
    )[:, columns]
    which = np.repeat([0, 1], [len(simulated.redshift), len(real.redshift)])
    model = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, max_leaf_nodes=12, l2_regularization=1, random_state=0
    )
    probability = cross_val_predict(model, features, which, cv=5, method="predict_proba")[:, 1]
    return float(roc_auc_score(which, probability))


def fit(real: Galaxies, priors: dict[str, Priors], group: str, batches: int) -> Priors:
    """Change a group of priors by one Gauss-Newton step."""
    steps = FREE[group]
    start = differences(real, draw(priors, batches))
    keys = list(start)
    value, error = np.array(list(start.values())).T
    slopes = []
    for name, step in steps.items():
        moved = priors[group].replace(**{name: priors[group][name] + step})
        found = differences(real, draw(priors | {group: moved}, batches))
        slopes.append([(found.get(key, start[key])[0] - start[key][0]) / step for key in keys])
        print(f"  {name}", flush=True)
    jacobian = np.array(slopes).T
    width = 2.5 if group == "stellar_correction" else 1.5
    bound = [np.diag(1 / (width * np.abs(list(steps.values()))))]
    if group == "stellar_correction":
        bound.append(_second_differences(list(steps)) / _SMOOTHNESS)
    weight = 1 / error
    for _ in range(12):
        rows = np.concatenate([jacobian * weight[:, None], *bound])
        wanted = np.concatenate([-value * weight, np.zeros(len(rows) - len(value))])
        change = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        far = np.abs(value + jacobian @ change) / error
        weight = np.sqrt(np.minimum(1, _HUBER / np.maximum(far, 1e-9))) / error
    return priors[group].replace(
        **{name: round(priors[group][name] + by, 4) for name, by in zip(steps, change, strict=True)}
    )


def _second_differences(names: list[str]) -> np.ndarray:
    rows = []
    for prefix in ("old_", "young_"):
        curve = sorted(
            (k for k, name in enumerate(names) if name.startswith(prefix)),
            key=lambda k: int(names[k].split("_")[1]),
        )
        for left, middle, right in zip(curve[:-2], curve[1:-1], curve[2:], strict=True):
            row = np.zeros(len(names))
            row[[left, middle, right]] = 1, -2, 1
            rows.append(row)
    return np.array(rows)


def main() -> None:
    """Compare, or fit and compare before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("compare", "fit"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--free", choices=tuple(FREE), default="stellar_correction")
    parser.add_argument("--start", type=Path, help="folder of the tables to start from")
    parser.add_argument("--batches", type=int, default=60, help="batches of 4096 candidates")
    parser.add_argument("--out", type=Path, default=Path("runs/priors"))
    arguments = parser.parse_args()
    fitted, held_out = read(arguments.folder)
    priors = {}
    if arguments.start is not None:
        paths = sorted(arguments.start.glob("*.ecsv"))
        priors = {path.stem: Priors(Table.read(path, format="ascii.ecsv")) for path in paths}
    priors = {group: load_priors(group) for group in FREE} | priors
    before = draw(priors, arguments.batches)
    report("before, fitted galaxies", fitted, before)
    report("before, held-out galaxies", held_out, before)
    if arguments.what == "compare":
        report_scatter(fitted, before)
        for name, columns in {"all": [0, 1, 2, 3, 4, 5], "redshift": [5]}.items():
            aucs = [two_sample_auc(held_out, galaxies, columns) for galaxies in (before, fitted)]
            print(f"AUC by {name}: simulated {aucs[0]:.3f}, real {aucs[1]:.3f}")
        return
    priors[arguments.free] = fit(fitted, priors, arguments.free, arguments.batches)
    after = draw(priors, arguments.batches)
    report("after, fitted galaxies", fitted, after)
    report("after, held-out galaxies", held_out, after)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for group, table in priors.items():
        table.table.write(arguments.out / f"{group}.ecsv", overwrite=True)
    print("written to", arguments.out)


if __name__ == "__main__":
    main()
