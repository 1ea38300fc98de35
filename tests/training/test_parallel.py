"""Micro-batches, and processes that train together."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from torch import nn
from training_cases import RECIPE, TRAINING, make_columns

from astrogenspec.generation.network import SpectrumNetwork
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inference.training import train_properties
from astrogenspec.training.loop import TrainingConfig, fit
from astrogenspec.training.parallel import Workers, compile_parts, micro_batch_seed
from astrogenspec.training.streams import BatchStream, ZippedStreams


def square_loss(model, batch, progress):
    return {"total": (model(batch) - 1).square().mean()}


def make_stream(batch_size):
    data = torch.linspace(-1, 1, 32)[:, None]
    return BatchStream(lambda rows, _: data[rows], 32, batch_size, seed=1)


def trained(micro_batches, **settings):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    config = TrainingConfig(
        max_steps=6, validate_every=2, quiet=True, clip=1e9, micro_batches=micro_batches, **settings
    )
    history = fit(model, make_stream(8 // micro_batches), None, config, square_loss)
    return model, history


def test_micro_batches_are_parts_of_a_batch():
    """The items of a step are the same, hence the mean gradient and the mean loss."""
    (whole, history), (parts, other) = trained(1), trained(4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)
    one, four = ([row["train_total"] for row in h.rows] for h in (history, other))
    np.testing.assert_allclose(four, one, rtol=1e-5)


def test_compiled_steps_give_the_same_losses(monkeypatch):
    """The real compiler takes minutes; its first stage is used."""
    seen = []
    plain_compile = nn.Module.compile

    def compiled(module, **options):
        seen.append(module)
        plain_compile(module, backend="eager", **options)

    def fitted(compiled):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(1, 300), nn.SiLU(), nn.Linear(300, 300), nn.Linear(300, 1))
        model = nn.ModuleDict({"large": layers})
        config = TrainingConfig(max_steps=3, validate_every=1, quiet=True, compiled=compiled)
        loss = lambda m, batch, _: {"total": (m["large"](batch) - 1).square().mean()}  # noqa: E731
        return model, fit(model, make_stream(8), None, config, loss)

    monkeypatch.setattr(nn.Module, "compile", compiled)
    (plain, history), (model, other) = fitted(False), fitted(True)
    assert seen == [model["large"]]
    assert plain.state_dict().keys() == model.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    one, two = ([row["train_total"] for row in h.rows] for h in (history, other))
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_parts_of_the_networks_that_are_compiled(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda *_, **__: None)
    network = PropertyNetwork()
    names = {module: name for name, module in network.named_modules()}
    parts = {names[part] for part in compile_parts(network)}
    assert parts == {"vae.trunk", "vae.head", "vae.decoder", "heads.0.context_network"}
    spectra = SpectrumNetwork()
    names = {module: name for name, module in spectra.named_modules()}
    parts = {names[part] for part in compile_parts(spectra)}
    assert {"low.transformer", "high.transformer", "conditions.observation.trunk"} <= parts


def test_skipped_batches_are_passed_over():
    one, other = ZippedStreams([make_stream(4)]), ZippedStreams([make_stream(4)])
    next(one)
    other.skip()
    assert torch.equal(next(one)[0], next(other)[0])


def test_seeds_differ():
    seeds = {micro_batch_seed(step, index) for step in range(50) for index in range(8)}
    assert len(seeds) == 400


def test_processes_share_the_micro_batches_equally():
    assert Workers(0, 2).number_of_micro_batches(1) == 2
    assert Workers(0, 2).number_of_micro_batches(6) == 6
    with pytest.raises(ValueError, match="give a multiple of 2"):
        Workers(1, 2).number_of_micro_batches(3)


def test_unknown_precision():
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        TrainingConfig(max_steps=1, precision="fp8")


def test_bfloat16_trains(tmp_path):
    """Matrix products are rounded, the weights are not."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    config = TrainingConfig(max_steps=60, learning_rate=0.1, quiet=True, precision="bf16")
    history = fit(model, make_stream(8), None, config, square_loss)
    assert model.weight.dtype == torch.float32
    assert history.rows[-1]["train_total"] < 0.3


_TRAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from training_cases import RECIPE, TRAINING
from astrogenspec.inference.training import train_properties
from astrogenspec.training.parallel import joined_workers
with joined_workers("cpu"):
    training = replace(TRAINING, micro_batches=2)
    train_properties(sys.argv[3:], sys.argv[2], recipe=RECIPE, training=training)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_give_the_losses_of_one(tmp_path):
    """The same micro-batches in one process and in two."""
    folder = tmp_path / "images"
    folder.mkdir()
    with h5py.File(folder / "shard-00000.h5", "w") as file:
        for name, values in make_columns(48, True).items():
            file[name] = values
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _TRAIN, str(root / "tests"), str(tmp_path / "two"), folder]
    port = free_port()
    processes = [
        subprocess.Popen(
            command,
            env=os.environ
            | {
                "PYTHONPATH": str(root),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    network, history = train_properties(
        [folder], tmp_path / "one", recipe=RECIPE, training=replace(TRAINING, micro_batches=2)
    )
    two = Table.read(tmp_path / "two" / "history.ecsv")
    one = history.to_table()
    names = [name for name in one.colnames if name.startswith(("train_", "valid_"))]
    assert len(names) > 20 and set(names) <= set(two.colnames)
    for name in names:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    best = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)["model"]
    own = torch.load(tmp_path / "one" / "checkpoint.pt", weights_only=True)["model"]
    for name, value in own.items():
        torch.testing.assert_close(best[name], value, rtol=1e-3, atol=1e-5)
