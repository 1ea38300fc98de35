"""The simulated population agrees with recorded summary statistics of real samples."""

import numpy as np
import pytest

from astrogenspec.reports.simulator import compare_statistics
from astrogenspec.simulate.simulator import Simulator
from astrogenspec.simulate.statistics import bpt_class, with_errors

#: Largest differences allowed: what the simulator reached when its weights were trained, with room
#: for noise.
TOLERANCE = {
    "u-g": 0.10, "g-r": 0.05, "r-i": 0.025, "i-z": 0.025, "r": 0.25, "fraction": 0.05,
    "log_nii_halpha": 0.08, "log_oiii_hbeta": 0.2, "log_decrement": 0.06, "oh_o3n2": 0.09,
    "log_r50": 0.12, "r90/r50": 0.35, "dn4000": 0.1, "petrosian-model": 0.03,
}  # fmt: skip


@pytest.fixture(scope="module")
def comparison():
    return compare_statistics(Simulator(), n=4000, n_images=250)


@pytest.mark.parametrize("kind", TOLERANCE)
def test_statistics_agree_with_real_samples(comparison, kind):
    names = np.array([str(row["statistic"]).split("|")[0] for row in comparison])
    medians = np.array(
        ["q50" in row["statistic"] or "mean" in row["statistic"] for row in comparison]
    )
    rows = comparison[(names == kind) & medians & np.isfinite(comparison["difference"])]
    assert len(rows)
    allowed = TOLERANCE[kind] + 3 * rows["error"]
    worst = rows[np.argmax(np.abs(rows["difference"]) - allowed)]
    assert (np.abs(rows["difference"]) < allowed).all(), dict(worst)


def test_line_classes_and_fractions(comparison):
    for name, tolerance in {
        "four_lines|all|fraction": 0.15,
        "star_forming|four lines|fraction": 0.1,
        "agn|four lines|fraction": 0.08,
    }.items():
        row = comparison[comparison["statistic"] == name][0]
        assert abs(row["difference"]) < tolerance, dict(row)


def test_bpt_class_on_known_points():
    assert list(bpt_class([-1.0, -0.15, 0.1], [0.0, -0.1, 0.9])) == [0, 1, 2]


def test_bootstrap_errors_are_those_of_a_mean():
    sample = {"x": np.random.default_rng(1).normal(size=900)}
    value, error = with_errors(lambda s: {"mean": float(s["x"].mean())}, sample, resamples=200)[
        "mean"
    ]
    assert value == pytest.approx(sample["x"].mean())
    assert error == pytest.approx(1 / 30, rel=0.25)
