"""Fine-tuning on labelled galaxies: labels, conditions, forgetting, ensembles, errors."""

import copy
import warnings
from dataclasses import replace

import astropy.units as u
import h5py
import numpy as np
import pytest
import torch
from astropy.nddata import NDData
from astropy.table import QTable, vstack
from astropy.utils.masked import Masked
from estimator_cases import (
    N,
    make_cutouts,
    make_estimator,
    make_network,
    make_photometry,
    make_stack,
)
from finetuning_cases import FIT, N_GALAXIES, galaxies

from astrogenspec import AstroGenSpecWarning, PropertyEstimator
from astrogenspec.calibration.truth import listed_names
from astrogenspec.inference.finetuning.dataset import read_labelled_galaxies, stack_labels
from astrogenspec.inference.finetuning.trainer import FineTuningSettings
from astrogenspec.inputs.observations import InputOptions, ObservationBatches


@pytest.fixture(scope="module")
def fitted():
    table, labels = galaxies()
    untrained = PropertyEstimator(make_network())
    return untrained, untrained.fit(photometry=table, labels=labels, **FIT)


def test_fit_learns_the_labels(fitted):
    table, labels = galaxies()
    posterior = fitted[1].predict(photometry=table, n_draws=100, seed=0)
    redshift = np.asarray(labels["redshift"])
    error = posterior["redshift"].median().value - redshift
    assert np.std(error) < 0.5 * np.std(redshift)
    truth = 9 + 8 * redshift
    assert np.std(posterior["stellar_mass"].median().value - truth) < 0.5 * np.std(truth)


def test_fit_does_not_change_the_estimator(fitted):
    untrained, estimator = fitted
    assert not untrained.fitted and estimator.fitted
    assert untrained.network is make_network()
    before = make_network().state_dict()
    assert any(
        not torch.equal(value, before[name])
        for name, value in estimator.network.state_dict().items()
    )
    assert not estimator.network.training


def test_the_card_describes_the_fit(fitted):
    entry = fitted[1].card["fits"][0]
    assert entry["n_training"] == 64 and entry["n_held_out"] == 16
    assert entry["labels"]["redshift"] == 80 and entry["labels"]["stellar_mass"] == 40
    assert entry["labels"]["sfr"] == 0
    assert entry["held_out_loss"][1] < entry["held_out_loss"][0]
    limits = fitted[1].card["training_range"]
    assert 0.03 < limits["redshift"][0] < limits["redshift"][1] < 0.25


def test_same_seed_gives_same_weights_and_global_state_is_kept():
    table, labels = galaxies(40)
    estimator = PropertyEstimator(make_network())
    settings = FIT | {"epochs": 2}
    before = torch.get_rng_state()
    one, two = (estimator.fit(photometry=table, labels=labels, **settings) for _ in range(2))
    other = estimator.fit(photometry=table, labels=labels, **settings | {"seed": 2})
    assert torch.equal(before, torch.get_rng_state())
    states = [e.network.state_dict() for e in (one, two, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_a_second_fit_continues_the_first(fitted):
    table, labels = galaxies()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstroGenSpecWarning)
        again = fitted[1].fit(
            photometry=table, labels={"redshift": labels["redshift"]}, **FIT | {"epochs": 1}
        )
    assert len(again.card["fits"]) == 2
    first, second = (fit["held_out_loss"] for fit in again.card["fits"])
    assert second[1] <= second[0] < first[0]
    assert again.card["name"] == fitted[1].card["name"]


def test_unusable_galaxies_are_left_out():
    cutouts = (make_cutouts(bad=[1]) + make_cutouts(bad=[0])) * 2
    labels = {"redshift": np.linspace(0.05, 0.2, 4 * N)}
    labels["redshift"][2] = np.nan
    estimator = make_estimator(training_range={"redshift": [0.1, 0.3]}, metrics={"bias": 0})
    with pytest.warns(AstroGenSpecWarning, match="ebv = 0"):
        new = estimator.fit(cutouts, labels=labels, on_error="flag", epochs=1, batch_size=4, seed=0)
    entry = new.card["fits"][0]
    assert entry["n_training"] + entry["n_held_out"] == 4 * N - 5
    assert new.card["training_range"]["redshift"] == [pytest.approx(0.05), 0.3]
    assert "metrics" not in new.card and "metrics" in estimator.card


def test_training_image_inputs_only_keeps_photometry_draws(fitted):
    table, labels = galaxies()
    stack = make_stack(N_GALAXIES)
    # Redder images have higher redshifts.
    colour = np.linspace(-1, 1, 5)[:, None, None] * labels["redshift"].data[:, None, None, None]
    images = NDData(
        stack.data * np.exp(8 * colour), uncertainty=stack.uncertainty, unit=u.nmgy, meta=stack.meta
    )
    estimator = fitted[1]
    settings = FIT | {"learning_rate": 3e-2, "images_alone": True}
    new = estimator.fit(images, labels=labels, ebv=0.0, **settings)
    assert new.card["fits"][-1]["images_alone"]
    assert new.card["fits"][-1]["held_out_loss"][1] < new.card["fits"][-1]["held_out_loss"][0]
    options = {"n_draws": 20, "seed": 0, "progress": False}
    old_draws, new_draws = (
        e.predict(photometry=table, **options)["redshift"].draws.value for e in (estimator, new)
    )
    assert np.array_equal(old_draws, new_draws)
    seen = [e.predict(images, ebv=0.0, **options)["redshift"].draws.value for e in (estimator, new)]
    assert not np.array_equal(*seen)
    assert all(parameter.requires_grad for parameter in new.network.heads.parameters())
    changed = {
        name
        for name, value in new.network.state_dict().items()
        if not torch.equal(value, estimator.network.state_dict()[name])
    }
    assert changed == {"heads.0.context_network.0.weight"}


def test_training_image_inputs_only_needs_trained_weights_and_images(fitted):
    table, labels = galaxies()
    for estimator in (PropertyEstimator(make_network()), fitted[1]):
        with pytest.raises(ValueError, match="images_alone needs a trained estimator"):
            estimator.fit(photometry=table, labels=labels, images_alone=True, **FIT)


def test_a_fit_without_improvement_keeps_the_weights():
    table, labels = galaxies(40)
    estimator = make_estimator()
    with pytest.warns(
        AstroGenSpecWarning, match="did not improve the loss on the 8 held-out galaxies"
    ) as found:
        new = estimator.fit(photometry=table, labels=labels, epochs=1, learning_rate=1e-30, seed=0)
    assert [warning.filename for warning in found] == [__file__]
    after, before = new.network.state_dict(), estimator.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.fixture(scope="module")
def with_masses():
    table, labels = galaxies(160)
    mass = (9 + 8 * labels["redshift"]) * u.dex(u.Msun)
    labels = {"redshift": np.asarray(labels["redshift"]), "stellar_mass": mass}
    return PropertyEstimator(make_network()).fit(photometry=table, labels=labels, **FIT)


def medians(estimator, table, name):
    return estimator.predict(photometry=table, n_draws=100, seed=0)[name].median().value


def test_known_quantities_are_conditions_and_not_learnt(with_masses):
    table, labels = galaxies(160)
    redshift = np.asarray(labels["redshift"]) + 0.05
    mass = (9.5 + 8 * redshift) * u.dex(u.Msun)
    new = with_masses.fit(
        photometry=table,
        labels={"redshift": redshift, "stellar_mass": mass},
        known={"redshift": redshift},
        **FIT | {"learning_rate": 3e-3},
    )
    entry = new.card["fits"][-1]
    assert entry["labels"]["redshift"] == 0 and entry["labels"]["stellar_mass"] == 160
    moved = np.mean(medians(new, table, "redshift") - medians(with_masses, table, "redshift"))
    assert abs(moved) < 0.015
    given = {"redshift": redshift}
    heavier = new.predict(photometry=table, known=given, n_draws=100, seed=0)["stellar_mass"]
    assert np.mean(heavier.median().value - mass.value) == pytest.approx(0, abs=0.15)


def test_unlabelled_quantities_are_not_forgotten(with_masses):
    table, labels = galaxies(160)
    redshift = np.asarray(labels["redshift"]) + 0.02
    new = with_masses.fit(
        photometry=table, labels={"redshift": redshift}, **FIT | {"learning_rate": 3e-3}
    )
    before, after = (medians(e, table, "stellar_mass") for e in (with_masses, new))
    assert np.std(after - before) < 0.5 * np.std(before)


def test_simulated_galaxies_can_be_mixed_in(tmp_path):
    table, labels = galaxies(40)
    flux = 10 * np.ones((30, 5), np.float32)
    with h5py.File(tmp_path / "shard-00000.h5", "w") as file:
        file["theta"] = np.tile([0.1, 10.5, 0, 8.7, 8, 1.5, 1, 1.2, 0.8], (30, 1)).astype(
            np.float32
        )
        file["measurable"] = np.ones(30, bool)
        file["true_flux"], file["error"] = flux, 0.02 * flux
    estimator = make_estimator()
    settings = FIT | {"epochs": 2}
    new = estimator.fit(photometry=table, labels=labels, simulations=[tmp_path], **settings)
    assert new.card["fits"][0]["rehearsal"]
    before, after = estimator.network.state_dict(), new.network.state_dict()
    changed = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"context_network", "chain", "measurable_head"}
    untrained = PropertyEstimator(make_network())
    with pytest.raises(ValueError, match="simulations needs a trained estimator"):
        untrained.fit(photometry=table, labels=labels, simulations=[tmp_path], **settings)


def test_morphology_is_learnt_and_may_be_missing_in_predict():
    table, labels = galaxies(200)
    rng = np.random.default_rng(3)
    size = 10 ** rng.uniform(0.2, 0.9, len(table))
    flux = 10 ** (1 + 2 * (np.log10(size) - 0.5)) * u.Unit("1e-17 erg / (s cm2)")
    labels = {"redshift": np.asarray(labels["redshift"]), "halpha_flux": flux}
    table["r50"] = size * u.arcsec
    estimator = make_estimator()
    new = estimator.fit(photometry=table, labels=labels, **FIT | {"epochs": 45})

    def correlation(fitted, photometry):
        found = fitted.predict(photometry=photometry, n_draws=100, seed=0)["halpha_flux"].median()
        return np.corrcoef(np.log10(found.value), np.log10(flux.value))[0, 1]

    assert correlation(new, table) > 0.7
    del table["r50"]
    assert abs(correlation(new, table)) < 0.4


def test_an_untrained_network_ignores_morphology(tmp_path):
    estimator = make_estimator()
    network = copy.deepcopy(estimator.network)
    inputs = ObservationBatches(None, make_photometry(4), InputOptions())
    seen = next(iter(inputs)).inputs()
    sized = replace(seen, morphology=torch.randn(4, 16))
    assert torch.equal(network.contexts(sized).vectors, estimator.network.contexts(seen).vectors)
    with torch.no_grad():
        network.heads[0].structure_layer.weight += 0.1
    with_sizes = network.contexts(sized).vectors
    assert not torch.allclose(with_sizes, network.contexts(seen).vectors, atol=1e-3)
    again = PropertyEstimator(network, card=estimator.card)
    again.save(tmp_path / "w.safetensors")
    opened = PropertyEstimator.load(tmp_path / "w.safetensors").network
    torch.testing.assert_close(opened.contexts(sized).vectors, with_sizes, atol=1e-2, rtol=1e-2)


def test_the_report_compares_before_and_after(fitted):
    untrained, estimator = fitted
    report = estimator.fit_report()
    assert list(report["quantity"]) == ["redshift", "stellar_mass"]
    assert report["n"][0] == 16
    assert report["scatter_after"][0] < report["scatter_before"][0]
    with pytest.raises(ValueError, match="was not fitted"):
        untrained.fit_report()


def test_masked_labels_count_as_missing():
    table, labels = galaxies(20)
    mask = np.arange(20) < 12
    masked = QTable({"redshift": Masked(labels["redshift"] * u.one, mask=mask)})
    with pytest.raises(ValueError, match="only 8 of 20 galaxies"):
        make_estimator().fit(photometry=table, labels=masked)


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ({"redshift": np.full(3, 0.1)}, ValueError, "labels has 3 rows for 5 galaxies"),
        ({"redshift": np.full(9, 0.1)}, ValueError, "labels has 9 rows for 5 galaxies"),
        ({"redshift": np.full(N, 0.1)}, ValueError, "only 5 of 5 galaxies .* at least 10"),
        ({"redshift": np.full(N, np.nan)}, ValueError, "only 0 of 5 galaxies"),
        ({"redshift": 0.1}, ValueError, "labels has shape"),
        ({"z": np.full(N, 0.1)}, ValueError, "unknown quantity 'z'"),
        (QTable({"z": np.full(N, 0.1)}), ValueError, "labels has no column named as a quantity"),
        ([0.1] * N, TypeError, "labels is a list"),
        ({"sfr": np.full(N, 1) * u.m}, u.UnitConversionError, r"labels\['sfr'\] has the unit 'm'"),
    ],
)
def test_invalid_labels_are_refused(labels, kind, message):
    with pytest.raises(kind, match=message):
        make_estimator().fit(make_stack(), make_photometry(), labels=labels)


def read(table, labels):
    return read_labelled_galaxies(
        ObservationBatches(None, table, InputOptions()),
        stack_labels(labels),
        None,
        names=listed_names(labels),
    )[0]


def test_labels_are_matched_by_name():
    table, labels = galaxies(20)
    table, redshift = QTable(table), np.asarray(labels["redshift"])
    table["name"] = [f"galaxy {k}" for k in range(20)]
    order = np.random.default_rng(1).permutation(20)
    shuffled = QTable({"name": table["name"][order], "redshift": redshift[order]})
    expected = read(table, {"redshift": redshift})
    assert torch.equal(read(table, shuffled).theta[:, 0], expected.theta[:, 0])
    assert torch.equal(read(table, dict(shuffled.items())).theta[:, 0], expected.theta[:, 0])
    identified = shuffled.copy()
    identified.rename_column("name", "objID")
    assert torch.equal(read(table, identified).theta[:, 0], expected.theta[:, 0])
    with pytest.raises(ValueError, match="labels has no row for 1 of 20 galaxies"):
        read(table, shuffled[1:])
    twice = shuffled.copy()
    twice["name"][3] = twice["name"][2]
    with pytest.raises(ValueError, match=r"labels\['name'\]: 'galaxy \d+' is repeated"):
        read(table, twice)
    with pytest.raises(ValueError, match="names of the galaxies: 'galaxy 0' is repeated"):
        read(vstack([table, table[:1]]), shuffled)
    with pytest.raises(ValueError, match="no row for 20 of 20"):
        make_estimator().fit(
            photometry=table, labels=QTable({"name": ["x"] * 1, "redshift": [0.1]})
        )


@pytest.mark.parametrize("number", [-9999.0, -99.0, 99.99, 3.0])
def test_fill_values_of_labels_are_not_learnt(number):
    table, labels = galaxies(20)
    redshift = np.array(labels["redshift"])
    redshift[:4] = number
    with pytest.warns(AstroGenSpecWarning, match=r"labels has .* \(4 of redshift\); they count"):
        found = read(table, {"redshift": redshift})
    assert len(found) == 16 and float(found.theta[:, 0].max()) < 0.5


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {"redshift": 3.0},
            "row 4 of known: redshift is 3, but it must be between 0 and 0.5 for these weights",
        ),
        ({"redshift": -9999.0}, "row 4 of known: redshift is -9999, but it must be between"),
        ({"redshift": 0.0}, "row 4 of known: redshift is 0, but"),
        ({"stellar_mass": 10**10.5}, "stellar_mass is 3.16228e.10, but it must be between 5 and"),
        ({"halpha_flux": 0.0}, "halpha_flux is 0, but log10 of the flux must be between"),
        ({"halpha_flux": 1e12}, "halpha_flux is 1e.12, but log10 of the flux must be between"),
    ],
)
def test_known_values_outside_their_bounds_are_refused(known, message):
    table, labels = galaxies(20)
    usual = {"redshift": 0.1, "stellar_mass": 10.0, "halpha_flux": 30.0}
    given = {name: np.full(20, usual[name]) for name in known}
    for name, value in known.items():
        given[name][:3] = np.nan
        given[name][4] = value
    for form in (given, QTable(given)):
        with pytest.raises(ValueError, match=message):
            make_estimator().fit(photometry=table, labels=labels, known=form)


def test_known_values_of_another_convention_are_checked_as_given():
    table, labels = galaxies(20)
    known = QTable({"stellar_mass": np.full(20, 10.0) * u.dex(u.Msun)})
    known["stellar_mass"].info.meta = {"imf": "Salpeter"}
    known["stellar_mass"][2] = -9999 * u.dex(u.Msun)
    with pytest.raises(ValueError, match="row 2 of known: stellar_mass is -9999, but it must"):
        make_estimator().fit(photometry=table, labels=labels, known=known)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"validation_fraction": 1.0},
        {"patience": 0},
    ],
)
def test_invalid_settings_are_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        FineTuningSettings(**wrong)


@pytest.fixture(scope="module")
def ensemble(fitted):
    table, labels = galaxies(60)
    labels = {"redshift": np.asarray(labels["redshift"]) + 0.03}
    settings = FIT | {"epochs": 6, "validation_fraction": 0.25, "learning_rate": 3e-3}
    return fitted[1].fit(photometry=table, labels=labels, heads=3, **settings)


def test_weighted_galaxies_dominate_the_fit():
    table, labels = galaxies(60)
    both = vstack([table, table])
    shifted = vstack([labels[["redshift"]], labels[["redshift"]]])
    shifted["redshift"][60:] += 0.2
    estimator = PropertyEstimator(make_network())
    settings = FIT | {"epochs": 40}
    weight = np.repeat([1.0, 0.02], 60)
    fitted = estimator.fit(photometry=both, labels=shifted, sample_weight=weight, **settings)
    found = fitted.predict(photometry=table, n_draws=100, seed=0)["redshift"].median().value
    true = np.asarray(labels["redshift"])
    assert abs(np.median(found - true)) < 0.03
    other = estimator.fit(photometry=both, labels=shifted, sample_weight=weight[::-1], **settings)
    found = other.predict(photometry=table, n_draws=100, seed=0)["redshift"].median().value
    assert abs(np.median(found - true - 0.2)) < 0.03


def test_galaxies_of_zero_weight_are_not_used():
    table, labels = galaxies()
    weight = np.r_[np.zeros(20), np.ones(N_GALAXIES - 20)]
    fitted = PropertyEstimator(make_network()).fit(
        photometry=table, labels=labels, sample_weight=weight, **FIT | {"epochs": 1}
    )
    entry = fitted.card["fits"][0]
    assert entry["n_training"] + entry["n_held_out"] == N_GALAXIES - 20


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"sample_weight has shape \(3,\) for 80 labels"),
        (np.r_[np.nan, np.ones(79)], "row 0 of sample_weight is nan"),
        (np.r_[1.0, -2.0, np.ones(78)], "row 1 of sample_weight is -2"),
        (np.zeros(80), "sample_weight is zero for all galaxies"),
    ],
)
def test_invalid_weights_of_galaxies_are_refused(weight, message):
    table, labels = galaxies()
    with pytest.raises(ValueError, match=message):
        PropertyEstimator(make_network()).fit(
            photometry=table, labels=labels, sample_weight=weight, **FIT
        )


def test_heads_differ_and_their_posteriors_are_averaged(ensemble, tmp_path):
    network = ensemble.network
    assert network.config["members"] == len(network.heads) == 3
    table, _ = galaxies(6)
    contexts = network.contexts(
        next(iter(ObservationBatches(None, table, InputOptions()))).inputs()
    )
    first, second, _ = contexts.vectors
    assert not torch.allclose(first, second, atol=1e-3)
    alone = [PropertyEstimator(network.extract_head(k), card=ensemble.card) for k in range(3)]
    mean = np.mean(
        [e.predict(photometry=table, n_draws=900, seed=0)["redshift"].draws.mean(1) for e in alone],
        0,
    )
    mixed = ensemble.predict(photometry=table, n_draws=900, seed=0)["redshift"].draws
    np.testing.assert_allclose(mixed.mean(1), mean, atol=0.004)
    ensemble.save(tmp_path / "w.safetensors")
    again = PropertyEstimator.load(tmp_path / "w.safetensors").predict(
        photometry=table, n_draws=9, seed=0
    )
    expected = ensemble.predict(photometry=table, n_draws=9, seed=0)
    np.testing.assert_allclose(again["sfr"].draws.value, expected["sfr"].draws.value, rtol=1e-3)


def test_log_prob_of_an_ensemble_agrees_with_its_draws(ensemble):
    table, _ = galaxies(1)
    grid = np.linspace(0.001, 0.5, 2000)
    log_prob = ensemble.log_prob({"redshift": grid[None]}, photometry=table)[0]
    assert np.trapezoid(np.exp(log_prob), grid) == pytest.approx(1, abs=0.02)
    draws = ensemble.predict(photometry=table, n_draws=4000, seed=0)["redshift"].draws.value[0]
    mean = np.trapezoid(np.exp(log_prob) * grid, grid)
    assert draws.mean() == pytest.approx(mean, abs=0.003)


def test_every_head_holds_out_other_galaxies(ensemble):
    entry = ensemble.card["fits"][-1]
    assert entry["members"] == 3 and len(entry["epochs_run"]) == 3
    assert entry["n_training"] == 45 and entry["n_held_out"] == 15
    assert entry["held_out"]["redshift"]["n"] == 45


def test_an_ensemble_keeps_its_number_of_heads(ensemble):
    table, labels = galaxies(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstroGenSpecWarning)
        again = ensemble.fit(photometry=table, labels=labels, **FIT | {"epochs": 1})
    assert again.network.config["members"] == 3


def test_number_of_heads_of_an_untrained_estimator_cannot_change():
    table, labels = galaxies(40)
    with pytest.raises(ValueError, match="heads is 2, but this untrained estimator has 1"):
        PropertyEstimator(make_network()).fit(photometry=table, labels=labels, heads=2)
    with pytest.raises(ValueError, match="heads is 0"):
        make_estimator().fit(photometry=table, labels=labels, heads=0)
