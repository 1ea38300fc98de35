"""The training loop: schedule, resuming, checkpoints, early stopping, history."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from astropy.table import QTable
from torch import nn

from astrogenspec.atomic import sole_writer
from astrogenspec.training import loop as training
from astrogenspec.training.loop import (
    BatchStream,
    ExponentialAverage,
    TrainingConfig,
    evaluate,
    fit,
    learning_rate_factor,
    save_atomically,
)

X = torch.linspace(-1, 1, 64)[:, None]
Y = torch.sin(3 * X)


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))


def make_stream(seed=0):
    return BatchStream(
        lambda i, g: (X[i] + 0.01 * torch.randn(len(i), 1, generator=g), Y[i]), 64, 16, seed=seed
    )


def squared_error(model, batch, progress):
    x, y = batch
    return {"total": (model(x) - y).square().mean(), "progress": torch.tensor(progress)}


def settings(**changes):
    defaults = {"max_steps": 60, "learning_rate": 1e-2, "validate_every": 20, "quiet": True}
    return TrainingConfig(**(defaults | changes))


class Interrupting:
    """Loss function that raises an exception at one step."""

    def __init__(self, at, error=KeyboardInterrupt):
        self.calls, self.at, self.error = 0, at, error

    def __call__(self, model, batch, progress):
        self.calls += model.training
        if self.calls == self.at:
            raise self.error
        return squared_error(model, batch, progress)


def test_learns_and_keeps_history(tmp_path):
    model = make_model()
    before = evaluate(model, [(X, Y)], squared_error)["total"]
    history = fit(
        model,
        make_stream(),
        [(X, Y)],
        settings(max_steps=300, ema_decay=0.9, learning_rate=0.05),
        squared_error,
    )
    assert evaluate(model, [(X, Y)], squared_error)["total"] < 0.2 * before
    assert history.stopped == "steps" and len(history) == 15
    history.write(tmp_path / "history.ecsv")
    table = QTable.read(tmp_path / "history.ecsv")
    assert list(table["step"]) == list(range(20, 301, 20))
    assert {"train_total", "valid_total", "learning_rate", "train_gradient_norm"} <= set(
        table.colnames
    )


def test_final_weights_are_the_best_average():
    model = make_model()
    history = fit(model, make_stream(), [(X, Y)], settings(max_steps=100), squared_error)
    best = min(row["valid_total"] for row in history.rows)
    assert evaluate(model, [(X, Y)], squared_error)["total"] == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("stop", [7, 20, 33])
def test_resumed_training_equals_uninterrupted_training(tmp_path, stop):
    whole = make_model()
    torch.manual_seed(1)
    expected = fit(whole, make_stream(), [(X, Y)], settings(), squared_error)

    path = tmp_path / "checkpoint.pt"
    interrupted = make_model()
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, make_stream(), [(X, Y)], settings(checkpoint=path), Interrupting(stop))
    resumed = make_model(seed=5)
    history = fit(resumed, make_stream(), [(X, Y)], settings(checkpoint=path), squared_error)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    for row, other in zip(expected.rows, history.rows, strict=True):
        assert row | {"seconds": 0} == other | {"seconds": 0}


def test_two_trainings_do_not_write_one_checkpoint(tmp_path):
    config = settings(checkpoint=tmp_path / "checkpoint.pt", max_steps=20)
    with (
        sole_writer(tmp_path),
        pytest.raises(BlockingIOError, match=f"another process is writing to {tmp_path}; wait"),
    ):
        fit(make_model(), make_stream(), None, config, squared_error)
    assert not list(tmp_path.iterdir())
    fit(make_model(), make_stream(), None, config, squared_error)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_training_is_not_continued(tmp_path):
    config = settings(checkpoint=tmp_path / "checkpoint.pt", max_steps=20)
    fit(make_model(), make_stream(), None, config, squared_error)
    model = make_model(seed=3)
    history = fit(model, make_stream(), None, config, Interrupting(1))
    assert history.stopped == "steps" and len(history) == 1


def test_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_atomically({"a": 1}, path)

    def half(state, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(training.torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_atomically({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_checkpoints_are_written_during_training(tmp_path):
    path = tmp_path / "folder" / "checkpoint.pt"
    seen = []

    def loss(model, batch, progress):
        seen.append(path.exists())
        return squared_error(model, batch, progress)

    fit(
        make_model(),
        make_stream(),
        None,
        settings(max_steps=5, checkpoint=path, checkpoint_minutes=1e-9),
        loss,
    )
    assert seen == [False, True, True, True, True]


def test_patience_stops_training():
    rising = iter(range(1000))

    def loss(model, batch, progress):
        terms = squared_error(model, batch, progress)
        return terms if model.training else {"total": torch.tensor(float(next(rising)))}

    history = fit(
        make_model(), make_stream(), [(X, Y)], settings(validate_every=5, patience=3), loss
    )
    assert history.stopped == "patience" and history.best_step == 5 and len(history) == 4


def test_time_limit_stops_training_and_sets_the_schedule(monkeypatch):
    now = iter(range(0, 100000))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(now))
    history = fit(
        make_model(),
        make_stream(),
        None,
        settings(max_steps=None, max_seconds=300, validate_every=10),
        squared_error,
    )
    rates = history.to_table()["learning_rate"]
    assert history.stopped == "time"
    assert rates[0] > 0.5e-2 and rates[-1] < 0.05e-2 and (rates[1:] <= rates[:-1]).all()


def test_finite_batches_end_training():
    history = fit(make_model(), [(X, Y)] * 3, None, settings(), squared_error)
    assert history.stopped == "batches" and history.rows[-1]["step"] == 3


def test_non_finite_steps_are_skipped_and_then_reported():
    model = make_model()
    calls = iter([float("nan"), 1.0, 1.0])

    def loss(model, batch, progress):
        return {"total": squared_error(model, batch, progress)["total"] * next(calls)}

    fit(model, make_stream(), None, settings(max_steps=3), loss)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    with pytest.raises(FloatingPointError, match="consecutive"):
        fit(
            model,
            make_stream(),
            None,
            settings(),
            lambda m, b, p: {"total": m(b[0]).mean() * torch.nan},
        )


def test_learning_rate_schedule():
    values = [learning_rate_factor(p / 100, 0.1, 0.02) for p in range(101)]
    assert values[5] == pytest.approx(0.5) and values[10] == 1 and values[-1] == pytest.approx(0.02)
    assert max(values) == 1 and min(values) > 0


def test_average_follows_the_weights_with_a_lag():
    model = nn.Linear(1, 1)
    average = ExponentialAverage(model, 0.9)
    start = average.model.weight.clone()
    with torch.no_grad():
        model.weight += 1
    for _ in range(200):
        average.update(model)
    torch.testing.assert_close(average.model.weight, start + 1)
    with torch.no_grad():
        model.weight += 1
    average.update(model)
    torch.testing.assert_close(average.model.weight, start + 1.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": None},
        {"max_steps": 0},
        {"clip": -1.0},
        {"ema_decay": 1.0},
        {"max_seconds": -3.0},
    ],
)
def test_invalid_settings_are_rejected(changes):
    with pytest.raises(ValueError, match="must be|required"):
        settings(**changes)


def test_loss_terms_with_gradient_emit_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(make_model(), make_stream(), None, settings(max_steps=2), squared_error)


def test_full_disk_keeps_the_last_checkpoint(tmp_path):
    """In a process whose files are limited to 3000 bytes."""
    path = tmp_path / "checkpoint.pt"
    code = f"""
import resource, signal, torch
from astrogenspec.training.loop import save_atomically
save_atomically({{"step": 1}}, {str(path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    save_atomically({{"step": torch.zeros(10_000)}}, {str(path)!r})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not be written; the disk is probably full" in done.stdout
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]
