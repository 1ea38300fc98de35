"""``astrogenspec train``: fine-tuning on labelled galaxies and training of spectra, on files."""

import json
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import pytest
import torch
from astropy.table import QTable
from estimator_cases import make_cutouts, make_estimator, make_photometry
from generation_cases import NETWORK, make_columns

from astrogenspec import PropertyEstimator
from astrogenspec.cli import main
from astrogenspec.cli.commands import make_parser
from astrogenspec.generation import training as recipe
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts

N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    make_estimator().save(path / "tiny.safetensors")
    rng = np.random.default_rng(1)
    table = make_photometry(N)
    redshift = rng.uniform(0.03, 0.25, N)
    table["flux_r"] = table["flux_g"] * (1 + 4 * redshift)
    known = redshift.copy()
    known[::2] = np.nan
    table["redshift"] = np.where(np.isnan(known), redshift, np.nan) * u.one
    table["known_redshift"] = known * u.one
    table["stellar_mass"] = (9 + 8 * redshift) * u.dex(u.Msun)
    table.write(path / "labelled.ecsv")
    make_photometry(N).write(path / "bare.ecsv")
    return path


def fine_tune(folder, out, *more, table="labelled.ecsv"):
    model = ["--model", str(folder / "tiny.safetensors")]
    return main(
        [
            "train",
            "properties",
            "--fine-tune",
            str(folder / table),
            *model,
            "--out",
            str(out),
            "--epochs",
            "2",
            *more,
        ]
    )


def test_fine_tuning_writes_weights_and_report(folder, tmp_path, capsys):
    assert fine_tune(folder, tmp_path / "fine-tuned", "--seed", "3") == 0
    printed = capsys.readouterr().out
    assert "scatter_before" in printed and "stellar_mass" in printed
    new = PropertyEstimator.load(tmp_path / "fine-tuned" / "properties.safetensors")
    assert new.card["fits"][0]["labels"]["redshift"] == 30
    assert new.card["fits"][0]["labels"]["stellar_mass"] == N
    card = json.loads((tmp_path / "fine-tuned" / "properties.json").read_text())
    assert card["fits"][0]["epochs"] == 2
    assert "report.html" in printed
    assert "Before and after the fit" in (tmp_path / "fine-tuned" / "report.html").read_text()


def test_fine_tuning_works_without_matplotlib(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert fine_tune(folder, tmp_path / "fine-tuned", "--seed", "3") == 0
    assert "not written: it requires the extra plot" in capsys.readouterr().out
    assert not (tmp_path / "fine-tuned" / "report.html").exists()


def test_fine_tuning_with_several_heads(folder, tmp_path):
    assert fine_tune(folder, tmp_path / "fine-tuned", "--heads", "2", "-q") == 0
    new = PropertyEstimator.load(tmp_path / "fine-tuned" / "properties.safetensors")
    assert len(new.network.heads) == 2 and new.card["fits"][0]["members"] == 2


def test_fine_tuning_with_images_uses_them(folder, tmp_path, capsys):
    files = []
    batch = coerce_cutouts(make_cutouts(N))
    for k in range(N):
        files.append(str(tmp_path / f"{k:03d}.fits"))
        write_cutout_fits(files[-1], batch, k)
    assert fine_tune(folder, tmp_path / "seen", "--seed", "3", "-q", "--images", *files) == 0
    assert fine_tune(folder, tmp_path / "blind", "--seed", "3", "-q") == 0
    cards = [
        PropertyEstimator.load(tmp_path / name / "properties.safetensors").card["fits"][0]
        for name in ("seen", "blind")
    ]
    assert cards[0]["labels"] == cards[1]["labels"]
    assert cards[0]["held_out_loss"] != cards[1]["held_out_loss"]
    capsys.readouterr()
    assert fine_tune(folder, tmp_path / "few", "--images", *files[:3]) == 2
    assert f"3 files, but the tables of --fine-tune have {N} rows" in capsys.readouterr().err
    (tmp_path / "000.fits").write_text("not an image")
    assert fine_tune(folder, tmp_path / "bad", "-q", "--images", *files) == 0
    message = capsys.readouterr().err
    assert "1 of the --images could not be read" in message and "000.fits" in message
    out = ["--out", str(tmp_path / "new")]
    assert main(["train", "properties", "--data", str(tmp_path), "--images", *files, *out]) == 2
    assert "--images requires --fine-tune" in capsys.readouterr().err


def test_table_without_labels_is_refused(folder, tmp_path, capsys):
    assert fine_tune(folder, tmp_path / "fine-tuned", table="bare.ecsv") == 2
    assert "no label column; expected at least one of redshift" in capsys.readouterr().err
    assert not (tmp_path / "fine-tuned").exists()


def test_training_without_data_is_refused(tmp_path, capsys):
    assert main(["train", "properties", "--out", str(tmp_path / "new")]) == 2
    assert "either --data" in capsys.readouterr().err


def test_spectra_are_trained_from_shards(tmp_path, monkeypatch, capsys):
    (tmp_path / "shards").mkdir()
    with h5py.File(tmp_path / "shards" / "shard-00000.h5", "w") as file:
        for name, values in make_columns(48).items():
            file[name] = values
    small = {
        "image_batch": 6,
        "photometry_batch": 8,
        "detail": 4,
        "held_out": 0.25,
        "network": NETWORK,
    }
    monkeypatch.setattr(recipe, "SpectrumRecipe", lambda seed: _recipe(seed=seed, **small))
    arguments = [
        "train",
        "spectra",
        "--data",
        str(tmp_path / "shards"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*arguments, "--steps", "2", "-q"]) == 0
    estimator = SpectrumEstimator.load(tmp_path / "run" / "spectra.safetensors")
    assert estimator.card["training"]["stopped"] == "steps"
    table = make_photometry(2)
    spectra = estimator.predict(photometry=QTable(table), n_draws=2, seed=0, progress=False)
    assert np.isfinite(spectra.flux.value).all()
    model = ["--model", str(tmp_path / "run" / "spectra.safetensors")]
    arguments[-1] = str(tmp_path / "again")
    assert main([*arguments, *model, "--steps", "1", "-q"]) == 0
    again = SpectrumEstimator.load(tmp_path / "again" / "spectra.safetensors")
    assert again.card["continued_from"] == model[1]
    weights = estimator.network.state_dict()
    moved = [not torch.equal(v, weights[k]) for k, v in again.network.state_dict().items()]
    assert 0 < sum(moved) < len(moved)
    torch.testing.assert_close(again.network.zero_points, estimator.network.zero_points)


@pytest.mark.parametrize("part", ["--heads-only", "--photometry-only"])
def test_heads_continue_from_trained_weights(folder, tmp_path, capsys, part):
    (tmp_path / "shards").mkdir()
    with h5py.File(tmp_path / "shards" / "shard-00000.h5", "w") as file:
        for name, values in make_columns(150).items():
            file[name] = values
    arguments = ["train", "properties", "--data", str(tmp_path / "shards"), "--steps", "2", "-q"]
    arguments += ["--out", str(tmp_path / "run"), part]
    assert main(arguments) == 2
    assert "--model" in capsys.readouterr().err
    assert fine_tune(folder, tmp_path / "run", part) == 2
    assert f"omit {part}" in capsys.readouterr().err
    assert fine_tune(folder, tmp_path / "run", "--learning-rate", "1e-4") == 2
    assert "omit --learning-rate" in capsys.readouterr().err
    assert fine_tune(folder, tmp_path / "run", "--final-rate", "1e-4") == 2
    assert "omit --final-rate" in capsys.readouterr().err
    assert main([*arguments, "--final-rate", "1", "--model", "x"]) == 2
    assert "at most the peak rate, 0.0012" in capsys.readouterr().err
    model = str(folder / "tiny.safetensors")
    for rate in ("-1", "nan"):
        assert main([*arguments, "--learning-rate", rate, "--model", model]) == 2
        assert "it must be positive" in capsys.readouterr().err
    rates = ["--learning-rate", "5e-4", "--final-rate", "2e-4"]
    assert main([*arguments, *rates, "--model", model]) == 0
    before, after = (
        PropertyEstimator.load(path)
        for path in (model, tmp_path / "run" / "properties.safetensors")
    )
    alone = part == "--photometry-only"
    assert after.card["continued_from"] == model
    assert after.card["recipe"]["heads_alone"] is not alone
    assert after.card["training"]["learning_rate"] == 5e-4
    assert after.card["training"]["final_factor"] == pytest.approx(0.4)
    assert after.network.config["photometry_members"] == alone
    weights = before.network.state_dict()
    found = after.network.state_dict()
    moved = {k for k, v in weights.items() if not torch.equal(v, found[k])}
    assert all(name.startswith("heads.") for name in moved)
    assert bool(moved) is not alone


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--anchor", "x"], {"fine_tune": [Path("x")]}),
        (["--members", "3"], {"heads": 3}),
        (["--heads-alone"], {"heads_alone": True}),
        (["--photometry-alone"], {"photometry_alone": True}),
    ],
)
def test_former_option_names_are_aliases(old, new):
    options = make_parser().parse_args(["train", "properties", "--out", "x", *old])
    assert {name: getattr(options, name) for name in new} == new


_recipe = recipe.SpectrumRecipe
