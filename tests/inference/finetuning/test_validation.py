"""Held-out results of fine-tuning: scores, recalibration and report."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from estimator_cases import make_cutouts
from finetuning_cases import FIT, galaxies
from photometry_heads_cases import estimator_with_heads

from astrogenspec import QUANTITIES, AstroGenSpecWarning, Posterior, PropertyEstimator
from astrogenspec.calibration import Recalibration, cross_fitted
from astrogenspec.calibration.recalibration import fit_if_enough
from astrogenspec.inference.finetuning import trainer as finetune
from astrogenspec.inference.finetuning.validation import HeldOutResult

N = 400


def held_out(*, width=1.0, n=N, known=()):
    """Return redshift draws with ``width`` times their true scatter, and masses of 50 galaxies."""
    rng = np.random.default_rng(4)
    n_quantities = len(QUANTITIES)
    after = rng.normal(0.5, 0.1, (n, 200, n_quantities))
    centre = rng.uniform(0.1, 0.3, n)
    after[..., 0] = centre[:, None] + 0.01 * width * rng.standard_normal((n, 200))
    after[..., 1] = 10 + 0.1 * rng.standard_normal((n, 200))
    theta = np.full((n, n_quantities), np.nan)
    theta[:, 0] = centre + 0.01 * rng.standard_normal(n)
    theta[:50, 1] = 10 + 0.1 * rng.standard_normal(50)
    learnt = np.isfinite(theta)
    learnt[list(known), 0] = False
    flux = np.exp(rng.normal(4, 0.3, (n, 5)))
    return HeldOutResult(after, after, theta, learnt, flux, np.full(n, "photometry"))


class TestHeldOut:
    def test_calibrated_draws_need_no_recalibration(self):
        found = held_out()
        assert found.recalibration() is None
        report = found.report()
        assert report.verdicts["redshift"].trust == "trust"
        assert set(report.verdicts) == {"redshift", "stellar_mass"}
        assert report.scores["n"][report.scores["quantity"] == "stellar_mass"][0] == 50

    def test_miscalibrated_draws_are_recalibrated_in_the_report(self):
        found = held_out(width=0.4)
        assert found.recalibration().corrected == (("photometry", "redshift"),)
        redshift = found.report().scores[0]
        assert redshift["quantity"] == "redshift" and redshift["bin"] == "all"
        assert redshift["coverage_68"] == pytest.approx(0.68, abs=0.06)
        assert found.scores()["redshift"]["coverage_68"][1] < 0.4

    def test_galaxies_with_conditions_are_not_used_for_recalibration(self):
        assert held_out(width=0.4, known=range(N)).recalibration() is None
        some = held_out(width=0.4, known=range(200))
        assert some.recalibration() is not None
        # Conditions are not labels, so they are not scored.
        assert some.report().scores["n"][0] == 200

    def test_too_few_galaxies_for_a_recalibration(self):
        found = held_out(width=0.4, n=60)
        assert found.recalibration() is None
        assert found.report().scores["n"][0] == 60


class TestFit:
    def test_report_page_of_a_fit(self, tmp_path):
        table, labels = galaxies()
        page = tmp_path / "report.html"
        after = estimator_with_heads().fit(
            photometry=table, labels=labels, heads=3, report=page, **FIT
        )
        text = page.read_text()
        assert "48 galaxies with 200 draws each" in text and "stellar_mass" in text
        scores = QTable.read(page.with_suffix(".ecsv"))
        assert scores["n"][0] == 48 == after.fit_report()["n"][0]

    def test_invalid_report_paths_are_refused_before_training(self, tmp_path, monkeypatch):
        table, labels = galaxies(20)
        (tmp_path / "report.html").write_text("mine")
        monkeypatch.setattr(finetune, "train_head", lambda *_: pytest.fail("it was trained"))
        arguments = {"photometry": table, "labels": labels, "report": tmp_path / "report.html"}
        with pytest.raises(FileExistsError, match="overwrite=True"):
            estimator_with_heads().fit(**arguments)
        with pytest.raises(ValueError, match="must end in .html"):
            estimator_with_heads().fit(**arguments | {"report": tmp_path / "report.pdf"})

    def test_a_page_that_cannot_be_written_does_not_discard_the_fit(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError("No space left on device")

        table, labels = galaxies(40)
        page = tmp_path / "report.html"
        page.write_text("old")
        page.with_suffix(".ecsv").write_text("old too")
        arguments = {"photometry": table, "labels": labels, "report": page, "overwrite": True}
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", full)
            with pytest.warns(
                AstroGenSpecWarning, match="No space left .* the fit is complete"
            ) as found:
                after = estimator_with_heads().fit(**arguments, **FIT | {"epochs": 6})
        assert [warning.filename for warning in found] == [__file__]
        assert after.card["fits"][0]["epochs"] == 6
        # Existing files are intact, and no temporary file remains.
        assert page.read_text() == "old" and page.with_suffix(".ecsv").read_text() == "old too"
        assert len(list(tmp_path.iterdir())) == 2
        estimator_with_heads().fit(**arguments, **FIT | {"epochs": 6})
        assert "8 galaxies" in page.read_text() and len(list(tmp_path.iterdir())) == 2

    def test_fit_if_enough_ignores_small_samples_only(self):
        posterior = Posterior({"redshift": np.full((120, 50), 0.1) * u.one})
        with pytest.raises(ValueError, match="mode is 'picture'"):
            fit_if_enough(Recalibration.fit, posterior, {"redshift": np.ones(120)}, mode="picture")
        few = {"redshift": np.full(120, np.nan)}
        assert fit_if_enough(cross_fitted, posterior, few) is None

    def test_the_recalibration_is_stored_in_the_card_and_applied(self, monkeypatch):
        table, labels = galaxies(40)
        recalibration = held_out(width=0.4).recalibration()
        monkeypatch.setattr(HeldOutResult, "recalibration", lambda _: recalibration)
        after = estimator_with_heads().fit(photometry=table, labels=labels, **FIT | {"epochs": 1})
        assert after.card["recalibration"]["corrections"][0]["quantity"] == "redshift"
        raw, new = (
            after.predict(photometry=table, n_draws=50, seed=1, calibrated=c) for c in (False, True)
        )
        assert not np.array_equal(raw["redshift"].draws, new["redshift"].draws)

    def test_galaxies_with_images_are_scored_in_both_modes(self, monkeypatch):
        seen = []
        monkeypatch.setattr(HeldOutResult, "recalibration", lambda self: seen.append(self))
        table, labels = galaxies(40)
        cutouts = make_cutouts(40)
        cutouts[:20] = [None] * 20
        options = FIT | {"epochs": 1, "validation_fraction": 0.5}
        estimator_with_heads().fit(cutouts, table, labels=labels, **options)
        (found,) = seen
        modes, counts = np.unique(found.modes, return_counts=True)
        assert modes.tolist() == ["both", "photometry"]
        # The photometry heads are trained on all galaxies, with their images hidden.
        assert counts[1] == 20 and 0 < counts[0] < 20
        estimator_with_heads().fit(
            cutouts[20:], table[20:], labels=labels[20:], images_alone=True, **options
        )
        assert np.unique(seen[1].modes).tolist() == ["both"]

    def test_report_page_of_an_untrained_estimator(self, tmp_path):
        table, labels = galaxies(40)
        network = estimator_with_heads().network.extract_head(0)
        PropertyEstimator(network).fit(
            photometry=table, labels=labels, report=tmp_path / "a.html", **FIT | {"epochs": 1}
        )
        assert "8 galaxies" in (tmp_path / "a.html").read_text()
