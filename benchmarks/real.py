"""Judge the fine-tuned properties weights on real galaxies, by cross-validation.

    python benchmarks/real.py FOLDER --folds runs/folds --out results/properties

FOLDER holds the real tables (`recipes/real_tables.py`), and ``--folds`` the weights
``fold-K.safetensors`` of ``python recipes/finetune.py fold``, which were fine-tuned without the
galaxies of fold K.  A galaxy is in the same fold in all tables.  Each galaxy is scored by the
weights that were not trained on it, without recalibration; the other methods are trained on the
same folds.  ``real_galaxies.json`` and the page ``real_galaxies.rst`` hold

* redshifts by sample, bands and magnitude, and the difference from each other method;
* masses, star-formation rates, metallicities, black-hole masses and line fluxes, with and without
  sizes, at known redshift;
* coverage of all quantities in bins, with the p-value of Holm's test over all bins
  (``real_galaxies_bins.ecsv``);
* coverage of guaranteed intervals, computed from the galaxies of the other folds.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from peers import (
    density_network_draws,
    density_network_features,
    label_medians,
    redshift_medians,
)
from real_tables import finetuning_table, inputs_of
from scipy.stats import binomtest
from scores import (
    label_rmse,
    label_scores,
    paired_difference,
    paired_draws_difference,
    redshift_scores,
)

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration import CoverageGuarantee
from astrogenspec.metrics import redshift_metrics
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS

#: Samples with a redshift that is inferred, and those whose other labels are at known redshift.
REDSHIFT_SAMPLES = ("photometry", "main", "stripe", "union")
LABEL_SAMPLES = ("lines", "resolve", "masses", "union", "blackholes")
#: Samples on which the other methods are trained and compared.
_COMPARED = ("photometry", "main")
#: Bins in r of the galaxies fainter than the main sample.
_FAINT = ((17.77, 18.5), (18.5, 19.5), (19.5, 20.0))
_N_DRAWS, _SEED = 400, 0
_LEVELS = (0.68, 0.95)
#: Galaxies of a bin of the coverage.
_BIN, _MIN_LABELS = 1000, 60


@dataclass
class Run:
    """Posteriors of held-out galaxies for one choice of inputs.

    Attributes
    ----------
    posteriors : list of Posterior
        By fold.
    rows : list of ndarray of int
        Rows of the table.
    """

    posteriors: list[Posterior] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, posterior: Posterior) -> None:
        """Add the galaxies of one fold."""
        self.rows.append(rows)
        self.posteriors.append(posterior)

    @property
    def order(self) -> np.ndarray:
        """Rows of the table of all galaxies."""
        return np.concatenate(self.rows)

    @property
    def posterior(self) -> Posterior:
        """Posterior of all galaxies, in the order of `order`."""
        return Posterior.concatenate(self.posteriors)


class Judgement:
    """Predictions of held-out galaxies and their scores.

    Parameters
    ----------
    table : QTable
        Labelled galaxies, see `real_tables.finetuning_table`.
    folder : Path
        Folder of the weights of the folds.
    """

    def __init__(self, table: QTable, folder: Path) -> None:
        self.table, self.folder = table, folder
        self.source = np.asarray(table["source"]).astype(str)
        self.runs: dict[str, Run] = {}
        self.peers: dict[str, np.ndarray] = {}
        self.boosted: dict[str, np.ndarray] = {}

    @property
    def redshift(self) -> np.ndarray:
        """Redshift labels; NaN where the redshift is not learnt."""
        return self.table["redshift"].value

    def predict(self) -> None:
        """Predict the galaxies of each fold with the weights that were trained on the others."""
        for k in range(self.table["fold"].max() + 1):
            estimator = PropertyEstimator.load(self.folder / f"fold-{k}.safetensors")
            out = self.table["fold"] == k
            inferred = out & np.isfinite(self.redshift)
            known = out & ~np.isfinite(self.redshift)
            petrosian = np.isfinite(self.table["petro_flux_r"].value)
            sizes = np.isfinite(self.table["r50"].value)
            for name, rows, subset, morphology in (
                ("ugriz", inferred, "ugriz", False),
                ("gri", inferred & np.isin(self.source, _COMPARED), "gri", False),
                ("ugr", inferred & np.isin(self.source, _COMPARED), "ugr", False),
                ("petrosian", inferred & petrosian, "ugriz", True),
                ("known", known, "ugriz", False),
                ("known, sizes", known & sizes, "ugriz", True),
                ("black holes", out & (self.source == "blackholes"), "ugriz", False),
            ):
                chosen = np.flatnonzero(rows)
                galaxies = self.table[chosen]
                options = {}
                if name.startswith("known"):
                    options = {"known": {"redshift": galaxies["known_redshift"]}}
                found = estimator.predict(
                    photometry=inputs_of(galaxies, subset, morphology=morphology),
                    n_draws=_N_DRAWS,
                    seed=_SEED,
                    on_error="flag",
                    progress=False,
                    calibrated=False,
                    **options,
                )
                self.runs.setdefault(name, Run()).add(chosen, found)
            print(f"fold {k}: {out.sum()} rows", flush=True)

    def train_peers(self) -> None:
        """Train the other methods on the same folds."""
        for k in range(self.table["fold"].max() + 1):
            labelled = np.isin(self.source, _COMPARED) & np.isfinite(self.redshift)
            out = self.table["fold"] == k
            training, rows = self.table[labelled & ~out], np.flatnonzero(labelled & out)
            for inputs in ("ugriz", "gri", "petrosian"):
                usable = np.ones(len(training), bool)
                asked = rows
                words = inputs
                if inputs == "petrosian":
                    usable = training["source"] == "photometry"
                    asked, words = rows[self.source[rows] == "photometry"], "ugriz with structure"
                found = redshift_medians(training[usable], self.table[asked], words)
                for name, values in found.items():
                    self._keep(f"{name}, {inputs}", asked, values)
                x, at = density_network_features(
                    training[usable],
                    self.table[asked],
                    "gri" if inputs == "gri" else "ugriz",
                    petrosian=inputs == "petrosian",
                )
                y = training["redshift"].value[usable]
                drawn = density_network_draws(x, y, at, n_draws=_N_DRAWS, seed=k, n_networks=5)
                self._keep(f"density networks, {inputs}", asked, drawn)
            for source in ("lines", "masses"):
                own = self.source == source
                asked = np.flatnonzero(own & out)
                found = label_medians(self.table[own & ~out], self.table[asked])
                for name, values in found.items():
                    self.boosted.setdefault(name, np.full(len(self.table), np.nan))[asked] = values
            print(f"other methods, fold {k}", flush=True)

    def _keep(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        empty = np.full((len(self.table), *values.shape[1:]), np.nan, np.float32)
        self.peers.setdefault(name, empty)[rows] = values

    # ---- scores

    def redshift_results(self) -> dict:
        """Score redshifts by sample, bands and magnitude, and against the other methods."""
        result: dict = {"redshift": {}, "against": {}}
        for name in ("ugriz", "gri", "ugr", "petrosian"):
            run = self.runs[name]
            draws, order = run.posterior["redshift"].draws.value, run.order
            true, source = self.redshift[order], self.source[order]
            for label, rows in self._samples(order, source, name):
                good = rows & np.isfinite(draws).all(axis=1)
                if good.sum() >= _MIN_LABELS:
                    scores = redshift_scores(draws[good], true[good])
                    result["redshift"][f"{label}, {name}"] = scores | {"n": int(good.sum())}
            for peer, values in self.peers.items():
                if not peer.endswith(f", {name}"):
                    continue
                for sample in _COMPARED:
                    rows = (source == sample) & np.isfinite(values[order]).reshape(
                        len(order), -1
                    ).all(axis=1)
                    if rows.any():
                        key = f"{sample}, {peer}"
                        result["against"][key] = _comparison(
                            draws[rows], values[order][rows], true[rows]
                        )
        return result

    def _samples(
        self, order: np.ndarray, source: np.ndarray, name: str
    ) -> Iterator[tuple[str, np.ndarray]]:
        for sample in REDSHIFT_SAMPLES:
            yield sample, source == sample
        if name != "ugriz":
            return
        r, colour = (values[order] for values in _magnitude_and_colour(self.table))
        yield "main, g - r < 0.5", (source == "main") & (colour < 0.5)
        for low, high in _FAINT:
            yield f"union, {low} < r < {high}", (source == "union") & (r > low) & (r < high)
        ebv = self.table["extinction_r"].value[order] / 2.751
        for low, high in ((0.0, 0.02), (0.02, 0.05), (0.05, 0.09), (0.09, 1.0)):
            rows = (source == "photometry") & (ebv >= low) & (ebv < high)
            yield f"photometry, {low} <= E(B-V) < {high}", rows

    def label_results(self) -> dict:
        """Score the other labels at known redshift, and black-hole masses at inferred redshift."""
        result = {}
        for name in ("known", "known, sizes"):
            run = self.runs[name]
            order = run.order
            for sample in LABEL_SAMPLES:
                rows = self.source[order] == sample
                if rows.any():
                    scores = label_scores(run.posterior[rows], self.table[order[rows]])
                    if scores:
                        result[f"{sample}, {name}"] = scores
        run = self.runs["black holes"]
        result["black holes, inferred redshift"] = label_scores(
            run.posterior, self.table[run.order]
        )
        for source in ("lines", "masses"):
            result[f"{source}, gradient boosting"] = label_rmse(
                self.boosted, self.table, self.source == source
            )
        return result

    def bins(self) -> list[dict]:
        """Return the coverage of all quantities in bins of magnitude, colour, size and value."""
        r, colour = _magnitude_and_colour(self.table)
        found = []
        for name, run in self.runs.items():
            order, posterior = run.order, run.posterior
            axes = {
                "r": r[order],
                "g - r": colour[order],
                "E(B-V)": self.table["extinction_r"].value[order] / 2.751,
                "r50": self.table["r50"].value[order],
            }
            for quantity, info in QUANTITIES.items():
                if name.startswith(("known", "black")) == (quantity == "redshift"):
                    continue
                true = self.table[quantity].value[order]
                good = np.isfinite(true)
                good &= np.isfinite(posterior[quantity].draws.value).all(axis=1)
                if good.sum() < _MIN_LABELS:
                    continue
                middle = posterior[quantity].median().value
                inside = {level: _inside(posterior, quantity, level, true) for level in _LEVELS}
                axes["predicted"] = np.log10(middle) if info.logarithmic else middle
                for axis, values in axes.items():
                    found += [
                        {"inputs": name, "quantity": quantity, "axis": axis} | one
                        for one in _binned(values, good, inside)
                    ]
        p_values = np.array([one["p"] for one in found])
        for one, adjusted in zip(found, _holm(p_values), strict=True):
            one["p_holm"] = float(adjusted)
        return found

    def guarantee_results(self) -> dict:
        """Return the coverage of guaranteed intervals, from the galaxies of the other folds."""
        run = self.runs["ugriz"]
        result: dict = {}
        for level in (0.68, 0.9, 0.95):
            inside, width, order = [], [], []
            for k, posterior in enumerate(run.posteriors):
                others = [j for j in range(len(run.rows)) if j != k]
                rows = np.concatenate([run.rows[j] for j in others])
                guarantee = CoverageGuarantee.fit(
                    Posterior.concatenate([run.posteriors[j] for j in others]),
                    {"redshift": self.table["redshift"][rows]},
                )
                found = guarantee.apply(posterior)["redshift"]
                low, high = (end.value for end in found.interval(level, guaranteed=True))
                true = self.redshift[run.rows[k]]
                inside.append(np.where(np.isfinite(low), (low <= true) & (true <= high), np.nan))
                plain = np.diff([end.value for end in found.interval(level)], axis=0)[0]
                width.append((high - low) / plain)
                order.append(run.rows[k])
            within, ratio = np.concatenate(inside), np.concatenate(width)
            good, r = np.isfinite(within), _magnitude_and_colour(self.table)[0]
            r = r[np.concatenate(order)]
            local = [
                one["coverage"][0] for one in _binned(r, good, {level: within > 0.5}, size=2 * _BIN)
            ]
            result[str(level)] = {
                "n": int(good.sum()),
                "coverage": float(within[good].mean()),
                "coverage_in_bins_of_r": local,
                "median_stretch": float(np.median(ratio[good])),
            }
        return result


def _comparison(draws: np.ndarray, others: np.ndarray, true: np.ndarray) -> dict:
    """Return scores of another method and the difference of ours from it (paired bootstrap)."""
    if others.ndim == 2:
        scores = redshift_scores(others, true)
        return {"scores": scores} | paired_draws_difference(draws, others, true)
    scores = {key: float(value) for key, value in redshift_metrics(others, true).items()}
    return {
        "scores": scores,
        "sigma_nmad": paired_difference(np.median(draws, axis=1), others, true),
    }


def _magnitude_and_colour(table: QTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the dereddened r magnitude and g - r."""
    magnitudes = {}
    for band in BANDS[1:3]:
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitude = 22.5 - 2.5 * np.log10(table[f"flux_{band}"].value)
        magnitudes[band] = magnitude - table[f"extinction_{band}"].value
    return magnitudes["r"], magnitudes["g"] - magnitudes["r"]


def _inside(posterior: Posterior, name: str, level: float, true: np.ndarray) -> np.ndarray:
    low, high = (end.value for end in posterior[name].interval(level))
    return (low <= true) & (true <= high)


def _binned(
    values: np.ndarray, good: np.ndarray, inside: dict[float, np.ndarray], size: int = _BIN
) -> list[dict]:
    """Return the coverage in bins of about ``size`` galaxies, with binomial p-values."""
    rows = np.flatnonzero(good & np.isfinite(values))
    if len(rows) < _MIN_LABELS:
        return []
    found = []
    for part in np.array_split(rows[np.argsort(values[rows])], max(1, len(rows) // size)):
        counts = [int(one[part].sum()) for one in inside.values()]
        tests = [
            binomtest(count, len(part), level).pvalue
            for level, count in zip(inside, counts, strict=True)
        ]
        found.append(
            {
                "low": float(values[part].min()),
                "high": float(values[part].max()),
                "n": len(part),
                "coverage": [count / len(part) for count in counts],
                "p": float(min(1.0, len(tests) * min(tests))),
            }
        )
    return found


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for multiple tests (Holm 1979)."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted[np.argsort(order)]


# ---- page


def page(result: dict) -> str:
    """Return the results as a page of tables (reStructuredText)."""
    lines = ["Real galaxies, cross-validated", "=" * 30, "", "Redshifts", "-" * 9, ""]
    rows = [
        [name, one["n"], f"{one['sigma_nmad']:.4f}", f"{one['bias']:+.4f}",
         f"{100 * one['outlier_fraction']:.2f}%", f"{one['crps_over_1+z']:.4f}",
         f"{100 * one['coverage_68']:.0f}%", f"{100 * one['coverage_95']:.1f}%",
         f"{one['pit_ks']:.3f}"]
        for name, one in result["redshift"].items()
    ]  # fmt: skip
    header = ["sample, bands", "n", "sigma_NMAD", "bias", "off by 0.05", "CRPS", "in 68%",
              "in 95%", "KS"]  # fmt: skip
    lines += [*_table(header, rows), "", "Against other methods", "-" * 21, ""]
    rows = []
    for name, one in result["against"].items():
        nmad, relative = one["sigma_nmad"], one.get("relative_crps")
        rows.append(
            [name, f"{one['scores']['sigma_nmad']:.4f}",
             f"{nmad['difference']:+.4f} ({nmad['low']:+.4f} to {nmad['high']:+.4f})",
             "" if relative is None else f"{100 * relative['difference']:+.1f}% "
             f"({100 * relative['low']:+.1f} to {100 * relative['high']:+.1f})"]
        )  # fmt: skip
    header = ["method", "its sigma_NMAD", "difference of ours", "difference of the CRPS"]
    lines += [*_table(header, rows), "", "Other quantities (dex)", "-" * 22, ""]
    rows = [
        [name, quantity, one["n"], f"{one['rmse']:.3f}",
         *(f"{one[key]:+.3f}" if key == "bias" else f"{100 * one[key]:.0f}%"
           for key in ("bias", "coverage_68", "coverage_95") if key in one)]
        for name, scores in result["labels"].items() for quantity, one in scores.items()
    ]  # fmt: skip
    header = ["sample", "quantity", "n", "rms", "bias", "in 68%", "in 95%"]
    lines += [*_table(header, [row + [""] * (7 - len(row)) for row in rows]), ""]
    lines += [
        "Coverage in bins", "-" * 16, "",
        f"{result['bins']['n']} bins; {result['bins']['differ at 5% (Holm)']} differ from the "
        "nominal coverage at 5% (Holm).", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(header: list[str], rows: list[list]) -> list[str]:
    texts = [header, *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    body = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]
    return [rule, body[0], rule, *body[1:], rule]


def main() -> None:
    """Run the benchmark, and write its results and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the real tables")
    parser.add_argument("--folds", type=Path, default=Path("runs/folds"))
    parser.add_argument("--out", type=Path, default=Path("results/properties"))
    parser.add_argument("--without-peers", action="store_true", help="omit the other methods")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    judgement = Judgement(finetuning_table(arguments.folder), arguments.folds)
    judgement.predict()
    if not arguments.without_peers:
        judgement.train_peers()
    result = {
        "kind": "real, cross-validated",
        **judgement.redshift_results(),
        "labels": judgement.label_results(),
        "guaranteed intervals": judgement.guarantee_results(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    bins = QTable(judgement.bins())
    bins.write(arguments.out / "real_galaxies_bins.ecsv", overwrite=True)
    failing = int((bins["p_holm"] < 0.05).sum())
    result["bins"] = {"n": len(bins), "differ at 5% (Holm)": failing}
    (arguments.out / "real_galaxies.json").write_text(json.dumps(result, indent=1))
    text = page(result)
    (arguments.out / "real_galaxies.rst").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
