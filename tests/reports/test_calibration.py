"""Calibration report: verdicts of known cases, bins, the self-contained page, the command line."""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from estimator_cases import make_estimator, make_photometry
from posterior_cases import flagged_posterior, gaussian_posterior

from astrogenspec import AstroGenSpecWarning, Flag
from astrogenspec.calibration import calibration_report, central_coverage, coverage_of_pit
from astrogenspec.cli import main
from astrogenspec.reports.calibration import html_page
from astrogenspec.reports.scores import TRUST, judge
from astrogenspec.results.posterior import Posterior
from astrogenspec.surveys import BANDS


def drawn(n=800, *, width=1.0, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(10, 0.5, n)
    values = centre[:, None] + 0.2 * (shift + width * rng.standard_normal((n, 200)))
    return values, centre + 0.2 * rng.standard_normal(n)


def test_a_calibrated_posterior_is_trusted():
    verdict = judge(*drawn(), "dex")
    assert verdict.trust == "trust" and "no relevant bias" in verdict.reason
    assert verdict.width_factor == pytest.approx(1, abs=0.08)
    assert abs(verdict.shift) < 0.1 and verdict.skill > 0.5 and verdict.n == 800


@pytest.mark.parametrize(
    ("width", "shift", "trust", "words"),
    [
        (
            0.78,
            0.0,
            "trust with care",
            r"too narrow: they contain 5\d% of the true values \(uncertainties should be 1.\d\d "
            r"times",
        ),
        (0.4, 0.0, "do not trust", "too narrow"),
        (1.5, 0.0, "do not trust", "too wide"),
        (1.0, 0.3, "trust with care", r"too high by 0.0\d* dex, 0.3 times their uncertainties"),
        (1.0, -1.0, "do not trust", "too low by 0.2"),
    ],
)
def test_verdicts_describe_and_measure_defects(width, shift, trust, words):
    values, truth = drawn(3000, width=width, shift=shift)
    verdict = judge(values, truth, "dex")
    assert verdict.trust == trust and re.search(words, verdict.reason)
    assert verdict.width_factor == pytest.approx(1 / width, rel=0.1)
    assert verdict.shift == pytest.approx(shift / width, abs=0.1)


def test_a_prior_is_calibrated_but_has_no_skill():
    rng = np.random.default_rng(1)
    truth = rng.normal(10, 0.5, 500)
    verdict = judge(rng.normal(10, 0.5, (500, 300)), truth)
    assert abs(verdict.skill) < 0.03 and verdict.trust == "trust with care"
    assert "hardly more informative" in verdict.reason


def test_few_galaxies_give_no_verdict():
    values, truth = drawn(100)
    truth[29:] = np.nan
    verdict = judge(values, truth)
    assert verdict.trust == "cannot tell" and "Only 29 galaxies have" in verdict.reason
    assert judge(values[:0], truth[:0]).n == 0 and verdict.trust in TRUST


def with_photometry(posterior, red):
    table = QTable({f"flux_{band}": 10 ** (0.4 * (22.5 - red)) * u.nmgy for band in BANDS})
    for band in BANDS:
        table[f"extinction_{band}"] = np.zeros(len(red)) * u.mag
    return Posterior(posterior.draws, photometry=table, names=posterior.names)


@pytest.fixture(scope="module")
def report():
    """Report on redshifts too narrow for faint galaxies, calibrated masses, and few rates."""
    names = ("redshift", "stellar_mass", "sfr")
    posterior, truth = gaussian_posterior(600, 150, quantities=names)
    red = np.linspace(14, 18, 600)
    draws = dict(posterior.draws)
    values = draws["redshift"].value.copy()
    middle = np.median(values, axis=1, keepdims=True)
    faint = red > 17
    values[faint] = middle[faint] + 0.4 * (values[faint] - middle[faint])
    draws["redshift"] = values * u.one
    truth["sfr"][20:] = np.nan
    return calibration_report(with_photometry(Posterior(draws), red), truth)


def test_scores_in_bins(report):
    assert {name: verdict.trust for name, verdict in report.verdicts.items()} == {
        "redshift": "trust with care",
        "stellar_mass": "trust",
        "sfr": "cannot tell",
    }
    scores = report.scores
    rows = scores[(scores["quantity"] == "redshift") & (scores["by"] == "r magnitude")]
    assert rows["bin"].tolist() == [
        "below 14.8",
        "14.8 to 15.6",
        "15.6 to 16.4",
        "16.4 to 17.2",
        "above 17.2",
    ]
    assert rows["trust"].tolist()[:3] == ["trust"] * 3 and rows["trust"][-1] == "do not trust"
    assert rows["n"].sum() == 600 and np.all(np.diff(rows["coverage_68"][[0, -1]]) < -0.2)
    assert "do not trust at r magnitude above 17.2" in report.verdicts["redshift"].reason
    whole = scores[scores["by"] == "all"]
    assert whole["quantity"].tolist() == ["redshift", "stellar_mass", "sfr"]
    assert np.isfinite(whole["sigma_nmad"][0]) and np.isnan(whole["sigma_nmad"][1])


def test_input_modes_and_sets_of_bands_are_judged_separately():
    posterior, truth = gaussian_posterior(300, 200, seed=5, quantities=("redshift",))
    values = posterior["redshift"].draws.value.copy()
    middle = np.median(values, axis=1, keepdims=True)
    values[:150] = middle[:150] + 0.4 * (values[:150] - middle[:150])
    photometry = QTable()
    rng = np.random.default_rng(0)
    for band in BANDS:
        photometry[f"flux_{band}"] = np.exp(rng.normal(4, 0.3, 300)) * u.nmgy
        photometry[f"extinction_{band}"] = np.zeros(300) * u.mag
    photometry["flux_u"][100:200] = photometry["flux_z"][100:] = np.nan * u.nmgy
    photometry["flux_i"][299] = np.nan * u.nmgy
    mixed = Posterior({"redshift": values * u.one}, photometry=photometry)
    found = calibration_report(mixed, truth, mode=np.repeat(["image", "both"], 150))
    rows = {by: found.scores[found.scores["by"] == by] for by in ("input", "bands", "g - r")}
    assert dict(rows["input"]["bin", "trust"].iterrows()) == {
        "both": "trust",
        "image": "do not trust",
    }
    # A set of bands of a single galaxy is not a group.
    assert dict(rows["bands"]["bin", "n"].iterrows()) == {"gri": 100, "ugri": 99, "ugriz": 100}
    assert rows["g - r"]["n"].sum() == 300 and len(rows["g - r"]) == 5
    alike = calibration_report(mixed[:100], {"redshift": truth["redshift"][:100]})
    assert not set(alike.scores["by"]) & {"input", "bands"}
    with pytest.raises(ValueError, match="mode is 'picture'"):
        calibration_report(mixed, truth, mode="picture")


def test_effect_of_a_recalibration(report):
    table = report.recalibrated
    assert table["quantity"].tolist() == ["redshift", "stellar_mass"]
    assert table["pit_ks_after"][0] < table["pit_ks_before"][0]
    assert abs(table["coverage_68_after"][0] - 0.68) < 0.05 < 0.68 - table["coverage_68_before"][0]


def test_the_page_is_self_contained(report, tmp_path):
    page, table = report.write(tmp_path / "trust.html")
    text = page.read_text()
    # Bins of r magnitude, colour and redshift; ranks and values of three quantities; coverage.
    assert text.count("data:image/png;base64,") == 3 + 3 + 3 + 1
    assert not re.search(r"(src|href)=['\"](?!data:)", text) and "<script" not in text
    for words in ("do not trust", "below 14.8", "recalibrated(", *map(str, report.verdicts)):
        assert words in text
    again = QTable.read(table)
    assert again.colnames == report.scores.colnames and len(again) == len(report.scores)
    assert "redshift      trust with care: " in str(report)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        report.write(page)
    report.write(page, overwrite=True)
    with pytest.raises(ValueError, match="must end in .html"):
        report.write(tmp_path / "trust.pdf")
    with pytest.raises(FileNotFoundError, match="create it first"):
        report.write(tmp_path / "no" / "trust.html")


def test_the_page_names_weights_date_and_dropped_galaxies(tmp_path):
    meta = {"model": "astrogenspec-properties", "version": "7"}
    posterior, truth = gaussian_posterior(60, 50, quantities=("redshift", "halpha_flux"), meta=meta)
    draws = {name: values.copy() for name, values in posterior.draws.items()}
    for values in draws.values():
        values.value[0] = np.nan
    codes = np.where(np.arange(60) == 0, int(Flag.SATURATED), 0)
    posterior = Posterior(draws, flag_codes=codes, meta=meta)
    truth["redshift"][1:4] = -9999
    truth["redshift"][4] = np.nan
    truth["halpha_flux"].value[5:7] = -0.3
    with pytest.warns(AstroGenSpecWarning, match="3 of redshift"):
        report = calibration_report(posterior, truth)
    columns = ("quantity", "galaxies", "used", "fill_value", "no_true_value", "no_draws")
    assert report.sample.colnames == list(columns)
    assert report.sample.as_array().tolist() == [
        ("redshift", 60, 55, 3, 1, 1),
        ("halpha_flux", 60, 57, 0, 2, 1),
    ]
    whole = report.scores[report.scores["by"] == "all"]
    assert whole["n"].tolist() == report.sample["used"].tolist()
    assert report.scores.meta["model"] == "astrogenspec-properties"
    page, table = report.write(tmp_path / "report.html")
    text = page.read_text()
    assert "<b>astrogenspec-properties</b>, version 7" in text and report.date in text
    assert "Flagged galaxies: 1 (saturated 1)" in text
    assert QTable.read(table).meta["date"] == report.date


def test_figures_and_tables_have_the_same_numbers(report):
    whole = report.scores[report.scores["by"] == "all"]
    for row in whole:
        ranks = report.ranks[row["quantity"]]
        assert row["coverage_68"] == coverage_of_pit(ranks, [0.68])[0]
        assert row["n"] == np.isfinite(ranks).sum()
        verdict = report.verdicts[row["quantity"]]
        assert verdict.n == row["n"]
        if verdict.trust != "cannot tell":
            assert f"contain {row['coverage_68']:.0%} of the true values" in verdict.reason
    before = dict(zip(whole["quantity"], whole["coverage_68"], strict=True))
    for row in report.recalibrated:
        assert row["coverage_68_before"] == before[row["quantity"]]


def test_the_page_fits_narrow_windows(report):
    text = html_page(report)
    assert "<meta name='viewport' content='width=device-width" in text
    assert "max-width: 100%" in text and ".wide { overflow-x: auto" in text
    # Tables with many columns scroll in their own box; only the table of verdicts wraps.
    boxes = re.sub(r"<div class='wide'><table>.*?</table></div>", "", text, flags=re.S)
    assert boxes.count("<table>") == 1


def test_names_are_escaped(tmp_path):
    posterior, truth = gaussian_posterior(
        40, 50, quantities=("sfr",), meta={"model": "<script>alert(1)</script>"}
    )
    page, _ = calibration_report(posterior, truth).write(tmp_path / "a.html")
    assert "<script" not in page.read_text()


def test_samples_without_true_values_are_refused():
    posterior, truth = flagged_posterior(60, 40, quantities=("redshift", "sfr"))
    report = calibration_report(posterior, truth)
    assert report.verdicts["sfr"].n == 59 and report.recalibrated is None
    with pytest.raises(ValueError, match="no true value of a quantity of the posterior"):
        calibration_report(posterior, QTable({"colour": np.ones(60)}))
    with pytest.raises(ValueError, match="no true value of a quantity of the posterior"):
        calibration_report(posterior, {"redshift": np.full(60, np.nan)})
    with pytest.raises(KeyError, match="unknown quantity 'masses'"):
        calibration_report(posterior, {"masses": np.ones(60)})


def test_report_of_an_estimator(tmp_path):
    estimator, photometry = make_estimator(), make_photometry(160)
    truth = estimator.predict(photometry=photometry, n_draws=1, seed=5)["redshift"].draws[:, 0]
    truth = QTable({"redshift": truth, "colour": np.ones(160)})
    options = {"photometry": photometry, "truth": truth, "n_draws": 200}
    report = estimator.calibration_report(**options, out=tmp_path / "trust.html")
    assert (tmp_path / "trust.html").exists() and (tmp_path / "trust.ecsv").exists()
    assert (
        list(report.verdicts) == ["redshift"] and "too " not in report.verdicts["redshift"].reason
    )
    assert central_coverage(report.posterior["redshift"], truth["redshift"], [0.68])[0] > 0.55
    with pytest.raises(FileExistsError, match="overwrite=True"):
        estimator.calibration_report(**options, out=tmp_path / "trust.html")
    wrong = {"redshift": truth["redshift"] * 0.5}
    better = estimator.recalibrated(photometry=photometry, truth=wrong, n_draws=200)
    corrected = better.calibration_report(photometry=photometry, truth=wrong, n_draws=200)
    assert corrected.posterior.meta["calibrated"] and corrected.recalibrated is not None
    before = estimator.calibration_report(photometry=photometry, truth=wrong, n_draws=200)
    assert abs(corrected.verdicts["redshift"].shift) < abs(before.verdicts["redshift"].shift)


def test_evaluate_writes_the_page(tmp_path, capsys):
    posterior, truth = gaussian_posterior(200, 60, quantities=("redshift", "sfr"))
    posterior.write(tmp_path / "draws.fits", draws=True)
    QTable({"name": posterior.names} | truth).write(tmp_path / "truth.ecsv")
    command = ["evaluate", str(tmp_path / "draws.fits"), str(tmp_path / "truth.ecsv")]
    command += ["--report", str(tmp_path / "trust.html")]
    assert main(command) == 0
    assert "sfr       trust: The 68% intervals contain" in capsys.readouterr().out
    assert (tmp_path / "trust.ecsv").exists()
    assert main(command) == 2
    assert "overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
