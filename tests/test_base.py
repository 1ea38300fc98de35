"""Tests of the base class of the estimators: construction, saving, loading, seeds, errors."""

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

import astrogenspec.weights
from astrogenspec.base import Estimator, NotFittedError, make_generator
from astrogenspec.weights import WeightsError, WeightsFile


class Line(nn.Module):
    def __init__(self, slope=0.5):
        super().__init__()
        self.config = {"slope": slope}
        self.slope = nn.Parameter(torch.tensor(slope))


class LineEstimator(Estimator):
    @classmethod
    def build_network(cls, config):
        return Line(**config)

    def predict(self, x):
        self.check_fitted()
        return self.network.slope.item() * x

    def fit(self, x, y):
        return LineEstimator(Line(y / x), card={})


@pytest.fixture
def estimator():
    return LineEstimator(Line(), card={"name": "line"})


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Estimator(Line())


def test_network_is_in_evaluation_mode_and_in_the_repr(estimator):
    assert not estimator.network.training
    assert repr(estimator) == "<LineEstimator: line, 1 parameters, on cpu>"
    assert repr(LineEstimator(Line())) == "<LineEstimator: untrained, 1 parameters, on cpu>"


def test_invalid_network_is_an_error():
    with pytest.raises(TypeError, match=r"network is a str: .* use from_pretrained"):
        LineEstimator("weights.safetensors")


@pytest.mark.parametrize("device", ["gpu", None, "cuda:99"])
def test_invalid_device_is_an_error(device):
    if device == "cuda:99" and torch.cuda.is_available():
        device = "gpu"
    with pytest.raises(ValueError, match="device is"):
        LineEstimator(Line(), device=device)


def test_estimator_without_a_card_is_untrained(tmp_path):
    untrained = LineEstimator(Line())
    assert not untrained.fitted
    for call in (lambda: untrained.predict(1), lambda: untrained.save(tmp_path / "a.safetensors")):
        with pytest.raises(NotFittedError, match="this LineEstimator was never trained"):
            call()
    assert list(tmp_path.iterdir()) == []
    assert untrained.fit(2, 3).predict(4) == 6
    assert not untrained.fitted
    assert issubclass(NotFittedError, ValueError) and issubclass(NotFittedError, AttributeError)


def test_save_and_load_round_trip(estimator, tmp_path):
    path = estimator.save(str(tmp_path / "line.safetensors"))
    again = LineEstimator.load(path)
    assert type(again) is LineEstimator
    assert again.predict(3) == estimator.predict(3)
    assert again.card["name"] == "line"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.json", "line.safetensors"]


def test_weights_are_saved_in_single_precision_by_default(tmp_path):
    exact = LineEstimator(Line(0.1234567), card={})
    assert LineEstimator.load(exact.save(tmp_path / "a.safetensors")).predict(1) == exact.predict(1)
    short = LineEstimator.load(exact.save(tmp_path / "b.safetensors", half=True)).predict(1)
    assert short != exact.predict(1)
    assert short == pytest.approx(exact.predict(1), rel=1e-3)


def test_existing_file_is_kept_by_default(estimator, tmp_path):
    path = tmp_path / "line.safetensors"
    estimator.save(path)
    other = LineEstimator(Line(2.0), card={})
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        other.save(path)
    assert LineEstimator.load(path).predict(1) == 0.5
    other.save(path, overwrite=True)
    assert LineEstimator.load(path).predict(1) == 2.0


def test_an_interrupted_save_leaves_the_old_file(estimator, tmp_path, monkeypatch):
    path = tmp_path / "line.safetensors"
    estimator.save(path)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            LineEstimator(Line(2.0), card={}).save(path, overwrite=True)
    assert LineEstimator.load(path).predict(1) == 0.5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.json", "line.safetensors"]


def test_missing_folder_is_an_oserror(estimator, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist; create it first"):
        estimator.save(tmp_path / "missing" / "line.safetensors")
    with pytest.raises(NotADirectoryError, match="is a file; give a path inside a folder"):
        estimator.save(tmp_path / "file" / "line.safetensors")


def test_load_reports_invalid_files(estimator, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"the weights file .*nothing\.safetensors does not exist"
    ):
        LineEstimator.load(tmp_path / "nothing.safetensors")
    (tmp_path / "line.txt").write_text("slope 3")
    with pytest.raises(ValueError, match="not a .safetensors file"):
        LineEstimator.load(tmp_path / "line.txt")
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(WeightsError, match="truncated"):
        LineEstimator.load(tmp_path / "bad.safetensors")
    path = tmp_path / "line.safetensors"
    estimator.save(path)
    card = json.loads(path.with_suffix(".json").read_text()) | {"sha256": "0" * 64, "name": "b"}
    path.with_suffix(".json").write_text(json.dumps(card))
    assert LineEstimator.load(path).card["name"] == "line"


def test_weights_of_another_network_are_an_error(estimator, tmp_path):
    class Plane(Line):
        def __init__(self, tilt=1.0):
            super().__init__()
            self.config = {"tilt": tilt}

    class Longer(Line):
        def __init__(self, slope=1.0):
            super().__init__(slope)
            self.more = nn.Linear(2, 2)

    for k, network in enumerate((Plane(), Longer())):
        estimator.network = network
        path = estimator.save(tmp_path / f"{k}.safetensors")
        with pytest.raises(WeightsError, match="does not hold the network of a LineEstimator"):
            LineEstimator.load(path)


def test_from_pretrained_takes_registered_names_and_paths(estimator, tmp_path, monkeypatch):
    path = tmp_path / "line.safetensors"
    estimator.save(path)
    asked = []

    def fetch(name):
        asked.append(name)
        return WeightsFile(path, {"name": str(name)})

    monkeypatch.setattr("astrogenspec.base.fetch_weights", fetch)
    assert LineEstimator.from_pretrained().card["name"] == astrogenspec.weights.DEFAULT_MODEL
    assert LineEstimator.from_pretrained("line").predict(2) == 1.0
    assert asked == [LineEstimator.default_model, "line"]


def test_unknown_model_lists_the_registered_ones():
    with pytest.raises(ValueError, match="no model is named 'nonsense'; choose one of"):
        LineEstimator.from_pretrained("nonsense")


# ---- seeds


def test_equal_seeds_give_equal_numbers():
    one, two = (torch.rand(3, generator=make_generator(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.rand(3, generator=make_generator(8)))


def test_a_generator_is_returned_as_it_is():
    generator = torch.Generator()
    assert make_generator(generator) is generator


def test_default_seed_is_random_and_keeps_the_global_state():
    before = torch.get_rng_state()
    one, two = (torch.rand(3, generator=make_generator(None)) for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("seed", "kind"),
    [(1.5, TypeError), ("1", TypeError), (True, TypeError), (-1, ValueError), (2**64, ValueError)],
)
def test_invalid_seed_is_an_error(seed, kind):
    with pytest.raises(kind, match="seed is"):
        make_generator(seed)


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, "1", np.array([1]), np.nan])
def test_seeds_of_other_types_are_errors(seed):
    with pytest.raises(TypeError, match="^seed is .*: it must be an int"):
        make_generator(seed)


def test_seeds_may_be_integers_of_numpy():
    for seed in (np.int64(7), np.uint8(7), np.array(7)):
        assert make_generator(seed).initial_seed() == 7
