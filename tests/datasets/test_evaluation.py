"""Scores of weights on real galaxies."""

import astropy.units as u
import numpy as np
import pytest
import torch
from training_cases import NETWORK, make_columns, make_observed, write_real

from astrogenspec import Posterior, PropertyEstimator, SpectrumDraws
from astrogenspec.cli.commands import main
from astrogenspec.datasets.evaluation import (
    PUBLISHED,
    judge_properties,
    judge_spectra,
    mass_metallicity,
    population_scores,
    read_test_set,
)
from astrogenspec.datasets.folders import read_columns
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.quantities import FLUX_UNIT, QUANTITIES
from astrogenspec.wavelengths import GENERATED, REST


def observed_with_spectra(n=12):
    """Galaxies with all labels, and spectra that rise linearly with wavelength."""
    rng = np.random.default_rng(0)
    columns = make_observed(n)
    middle = [0.1, 10.5, 0.0, 8.7, 8.0, 1.5, 1.0, 1.2, 0.8]
    columns["theta"] = (middle + 0.1 * rng.normal(size=(n, 9))).astype("f4")
    columns["theta"][:, 0] = np.linspace(0.06, 0.14, n)
    columns["r90"] = np.where(np.arange(n) < n // 2, 3.0, 2.0).astype("f4") * columns["r50"]
    spectrum = np.ones((n, 1)) * (5 + REST.wavelength / 1000)
    columns["spectrum"] = spectrum.astype("f4")
    ivar = np.full((n, REST.size), 4.0, "f4")
    ivar[:, 2000:2050] = 0
    columns["spectrum_ivar"] = ivar
    columns["ebv"] = np.zeros(n, "f4")
    return columns


@pytest.fixture
def folder(tmp_path):
    write_real(tmp_path / "set" / "test" / "shard-00000.h5", observed_with_spectra())
    return tmp_path / "set"


def exact_posterior(test, error=0.0):
    rng = np.random.default_rng(1)
    draws = {}
    for name, info in QUANTITIES.items():
        true = test.truth[name].value
        noise = 0.01 * rng.normal(size=(len(test), 400))
        noise -= np.median(noise, axis=1, keepdims=True)
        if info.logarithmic:
            values = true[:, None] * 10 ** (noise + error)
        else:
            values = true[:, None] + noise + error
        draws[name] = u.Quantity(values, info.unit, subok=True)
    return Posterior(draws, names=test.names)


def test_scores_of_known_errors(folder):
    test = read_test_set(folder)
    table = judge_properties({"both": exact_posterior(test, 0.05)}, test)
    assert list(table["quantity"]) == list(QUANTITIES)
    np.testing.assert_allclose(table["bias"], 0.05, atol=1e-4)
    np.testing.assert_allclose(table["rmse"], 0.05, atol=1e-4)
    theta = observed_with_spectra()["theta"].astype(float)
    np.testing.assert_allclose(table["r2"], 1 - 0.05**2 / theta.var(axis=0), atol=1e-3)
    np.testing.assert_array_equal(table["published_r2"], [PUBLISHED[n][0] for n in QUANTITIES])
    deviation = 0.05 / (1 + theta[:, 0])
    assert table["outlier_fraction"][0] == pytest.approx((deviation > 0.05).mean())
    assert np.isnan(table["nmad"][1:]).all()


def test_relations_of_the_population(folder):
    test = read_test_set(folder)
    table = population_scores(exact_posterior(test), test)
    assert len(table) == 6
    np.testing.assert_allclose(table["predicted"], table["true"], atol=1e-3)
    rows = {row["what"]: row for row in table}
    accuracy = rows["accuracy of the class above the line of Kauffmann et al. (2003)"]
    assert accuracy["predicted"] == 1.0 and accuracy["published"] == 0.82
    # The relation at log mass 10.5 +- 0.1.
    assert rows["mean of 12 + log(O/H)"]["published"] == pytest.approx(8.766, abs=0.01)
    slope = rows["slope of 12 + log(O/H) with log mass"]["published"]
    assert slope == pytest.approx(0.0925, abs=0.03)


def test_published_mass_metallicity_relation():
    # Kewley & Ellison (2008), table 2: 32.1488 - 85.1258 + 97.6384 - 35.9763.
    np.testing.assert_allclose(mass_metallicity(np.array([10.0])), 8.6851, atol=1e-4)
    assert np.isnan(mass_metallicity(np.array([7.0, 12.0]))).all()


def spectra_like(test, factor=1.0, curve=0.0, shift=0.0):
    """Draws equal to the observed spectra, times a factor, with a curvature, or displaced."""
    z = test.truth["redshift"].value + shift
    flux = 5 + GENERATED.wavelength / (1 + z[:, None]) / 1000
    flux = factor * flux * (1 + curve * (GENERATED.wavelength / 6000 - 1) ** 2)
    return SpectrumDraws(
        np.repeat(flux[:, None], 3, axis=1) * FLUX_UNIT,
        GENERATED.wavelength * u.AA,
        np.repeat(z[:, None], 3, axis=1),
        names=test.names,
    )


def test_spectra_equal_to_the_observed_ones(folder):
    test = read_test_set(folder)
    table, measured = judge_spectra(spectra_like(test, factor=3.0), test, n_fits=0)
    rows = {(row["what"], row["group"]): row for row in table}
    for what in ("mse of the best spectrum", "chi2/N of the median spectrum"):
        assert rows[what, "all"]["n"] == 12
        assert rows[what, "all"]["median"] == pytest.approx(0, abs=1e-5)
        assert rows[what, "r90/r50 > 2.6"]["n"] == rows[what, "r90/r50 < 2.6"]["n"] == 6
    measured = {row["what"]: row for row in measured}
    assert measured["Dn4000"]["n"] == 12 and len(measured) > 20
    assert measured["Dn4000"]["bias"] == pytest.approx(0, abs=1e-3)


def test_spectra_at_another_redshift(folder):
    """In the rest frame, and measured at their redshifts, they are the same."""
    test = read_test_set(folder)
    table, measured = judge_spectra(spectra_like(test, shift=0.02), test, n_fits=0)
    rows = {row["what"]: row["median"] for row in table if row["group"] == "all"}
    assert rows["chi2/N of the best spectrum, rest frame"] == pytest.approx(0, abs=1e-5)
    assert rows["chi2/N of the best spectrum"] > 5e-4
    measured = {row["what"]: row for row in measured}
    assert measured["Dn4000"]["bias"] == pytest.approx(0, abs=1e-3)


def test_chi2_of_a_curved_spectrum(folder):
    test = read_test_set(folder)
    table, _ = judge_spectra(spectra_like(test, curve=0.2), test, n_fits=0)
    value = next(r["median"] for r in table if r["what"] == "chi2/N of the best spectrum")
    z = test.truth["redshift"].value
    expected = []
    for each in z:
        true = 5 + GENERATED.wavelength / (1 + each) / 1000
        model = true * (1 + 0.2 * (GENERATED.wavelength / 6000 - 1) ** 2)
        scale = (model * true).sum() / (model**2).sum()
        expected.append(np.mean((scale * model - true) ** 2) * 4)
    # The observed spectra are rebinned to pixels of the same size: the variance falls to 2/3 on
    # average, and the chi2 rises by up to a factor of 2.
    assert 0.95 * np.median(expected) < value < 2.05 * np.median(expected)


def test_data_sets_without_spectra(tmp_path):
    columns = {k: v for k, v in observed_with_spectra().items() if "spectrum" not in k}
    write_real(tmp_path / "shard-00000.h5", columns)
    test = read_test_set(tmp_path)
    with pytest.raises(ValueError, match="has no spectra"):
        judge_spectra(spectra_like(test), test)


def test_first_galaxies_of_several_shards(tmp_path):
    columns = observed_with_spectra(4)
    write_real(tmp_path / "shard-00000.h5", columns)
    write_real(tmp_path / "shard-00001.h5", columns)
    found, filters = read_columns(tmp_path, 6)
    assert len(found["name"]) == 6 and len(filters) == 5
    np.testing.assert_array_equal(found["theta"][4:], columns["theta"][:2])


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="astrogenspec dataset"):
        read_test_set(tmp_path)
    write_real(tmp_path / "shard-00000.h5", make_columns(3, False), version="")
    with pytest.raises(ValueError, match="does not hold real galaxies"):
        read_test_set(tmp_path)


def test_command_writes_scores_and_page(folder, tmp_path, capsys):
    torch.manual_seed(0)
    network = PropertyNetwork.from_config(NETWORK)
    weights = tmp_path / "small.safetensors"
    PropertyEstimator(network, card={"name": "small <i>"}).save(weights)
    page, scores = tmp_path / "page.html", tmp_path / "scores.ecsv"
    command = ["evaluate", "--data", str(folder), "--properties", str(weights), "--n-draws", "50"]
    assert main([*command, "--report", str(page), "-o", str(scores)]) == 0
    text = page.read_text()
    assert "small &lt;i&gt;" in text and text.count("<img") == 3
    assert "stellar_mass" in capsys.readouterr().out
    assert scores.exists()
    assert main([*command, "--report", str(page)]) == 2  # exists


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "either POSTERIOR and TRUTH, or --data"),
        (["a", "b", "--n", "3"], "--n requires --data"),
        (["a", "b", "--data", "c"], "cannot be combined with POSTERIOR"),
    ],
)
def test_invalid_options_of_the_command(arguments, text, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert text in capsys.readouterr().err
