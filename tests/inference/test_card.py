"""Cards with missing or invalid entries are refused when they are loaded."""

import copy
import json

import pytest
from estimator_cases import make_estimator, make_network, make_photometry

from astrogenspec import PropertyEstimator, SpectrumEstimator, WeightsError, load_card


@pytest.fixture(scope="module")
def card():
    """Card with all entries."""
    properties = load_card("astrogenspec-properties")
    simulated = load_card("astrogenspec-properties-simulated")
    return properties | {"recalibration": simulated["recalibration"]}


def changed(card, path, value):
    """Return a copy with another value, or none for "missing", at e.g. "novelty.image.signal"."""
    new = copy.deepcopy(card)
    part = new
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys:
        part = part[key]
    if value == "missing":
        del part[last]
    else:
        part[last] = value
    return new


def test_complete_card_is_valid(card):
    posterior = PropertyEstimator(make_network(), card=card).predict(
        photometry=make_photometry(2), n_draws=5, seed=1
    )
    assert posterior.usable.all()


@pytest.mark.parametrize("value", [3, "x", True, [[]], {"a": None}, [1, 2]])
@pytest.mark.parametrize(
    "key", ["recalibration", "training_range", "novelty", "predictive", "population", "fits"]
)
def test_entries_of_another_type_are_refused(card, key, value):
    with pytest.raises(ValueError, match=f"^card is invalid: the entry {key}"):
        PropertyEstimator(make_network(), card=card | {key: value})


@pytest.mark.parametrize("value", ["missing", None, "x", [], {}, -3.5])
@pytest.mark.parametrize(
    "path",
    [
        "recalibration.layout",
        "recalibration.corrections",
        "recalibration.corrections.0.mode",
        "recalibration.corrections.0.quantity",
        "recalibration.corrections.0.bands",
        "recalibration.corrections.0.regression",
        "recalibration.corrections.0.regression.shift",
        "recalibration.corrections.0.regression.basis",
        "recalibration.corrections.0.regression.basis.centres",
        "recalibration.corrections.0.regression.basis.limits",
        "recalibration.corrections.0.regression.basis.knots",
        "recalibration.corrections.0.regression.basis.knots.0",
        "recalibration.corrections.0.regression.basis.means.3",
        "recalibration.corrections.0.regression.basis.transforms.1",
        "recalibration.notes.0.note",
        "training_range.redshift",
        "novelty.colours",
        "novelty.colours.mixture.means",
        "novelty.colours.mixture.covariances",
        "novelty.colours.least_log_tail",
        "novelty.image_colours",
        "novelty.image.signal",
        "predictive.centre",
        "predictive.coefficients",
        "predictive.covariance",
        "predictive.reference",
        "predictive.reference.gr",
        "population.redshift",
        "fits.0.held_out.redshift",
    ],
)
def test_missing_and_invalid_values_are_refused(card, path, value):
    allowed = {
        ("training_range.redshift", "missing"),
        ("population.redshift", "missing"),
        ("fits.0.held_out.redshift", "missing"),
        # Corrections of no band set and of unknown quantities are never applied.
        ("recalibration.corrections", "[]"),
        ("recalibration.corrections.0.bands", "[]"),
        ("recalibration.corrections.0.quantity", "x"),
        ("recalibration.notes.0.note", "x"),
        ("novelty.colours.least_log_tail", "-3.5"),
    }
    new = changed(card, path, value)
    if (path, str(value)) in allowed:
        estimator = PropertyEstimator(make_network(), card=new)
        assert len(estimator.predict(photometry=make_photometry(2), n_draws=3, seed=1)) == 2
        return
    with pytest.raises(ValueError, match="^card is invalid: the entry ") as caught:
        PropertyEstimator(make_network(), card=new)
    message = str(caught.value)
    assert message.split("entry ")[1].startswith(path.split(".")[0])
    assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize("value", [[], "x", 3, True])
def test_cards_of_another_type_are_refused(value):
    with pytest.raises(TypeError, match="card is a .*: it must be a dict"):
        PropertyEstimator(make_network(), card=value)


def test_invalid_card_files_name_the_file_and_the_entry(tmp_path):
    path = make_estimator().save(tmp_path / "tiny.safetensors")
    text = (tmp_path / "tiny.json").read_text()
    (tmp_path / "tiny.json").write_text(json.dumps(json.loads(text) | {"training_range": [1]}))
    with pytest.raises(
        WeightsError,
        match=r"the card of .*tiny.safetensors cannot be used: the entry training_range",
    ):
        PropertyEstimator.load(path)


@pytest.mark.parametrize(
    "recalibration",
    [
        [],
        {},
        {"layout": 1},
        {"layout": 1, "factors": [3]},
        {"layout": 1, "factors": [{"mode": "both"}]},
    ]
    + [{"layout": 1, "factors": [{"mode": "both", "aperture": "fibre", "values": ["a"] * 7}]}],
)
def test_invalid_recalibrations_of_spectra_are_refused(recalibration):
    from generation_cases import make_network as make_spectrum_network

    with pytest.raises(ValueError, match="^card is invalid: the entry recalibration"):
        SpectrumEstimator(make_spectrum_network(), card={"recalibration": recalibration})
