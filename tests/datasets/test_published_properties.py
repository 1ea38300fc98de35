"""The published method of properties through the commands: data set, training, evaluation."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import QTable
from dataset_cases import make_table, write_cutout

from astrogenspec import PropertyEstimator
from astrogenspec.cli.commands import main
from astrogenspec.datasets.folders import read_columns, read_manifest
from astrogenspec.datasets.sources import checked_cutout_size, kept_image
from astrogenspec.inference.images_to_physics import ImagesToPhysicsNetwork
from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.shards import Shards, image_size

N = 36
UNITS = {"sfr": u.dex(u.Msun / u.yr), "black_hole_mass": u.dex(u.Msun), "gas_metallicity": u.dex}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A survey with images of 160 pixels, and all quantities of most galaxies."""
    path = tmp_path_factory.mktemp("published")
    table = make_table(N, seed=3)
    rng = np.random.default_rng(5)
    table["stellar_mass"] = rng.normal(10.5, 0.3, N) * u.dex(u.Msun)
    for name, middle in {"sfr": 0.2, "black_hole_mass": 7.5, "gas_metallicity": 8.7}.items():
        table[name] = rng.normal(middle, 0.1, N) * UNITS[name]
    for name in ("halpha", "hbeta", "nii6584", "oiii5007"):
        table[f"{name}_flux"] = 10 ** rng.normal(2, 0.2, N) * 1e-17 * u.erg / u.s / u.cm**2
    table["sfr"][:4] = np.nan * UNITS["sfr"]
    (path / "images").mkdir()
    for k, row in enumerate(table):
        write_cutout(path / "images" / f"{row['name']}.fits", row, seed=k, size=160)
    table.write(path / "mine.ecsv")
    command = ["dataset", "from-files", str(path / "mine.ecsv"), "--images", str(path / "images")]
    assert main([*command, "--out", str(path / "set"), "--cutout-size", "160", "-q"]) == 0
    assert main([*command, "--out", str(path / "small"), "-q"]) == 0
    return path


def train(folder, out, *more, data="set"):
    command = ["train", "properties", "--data", str(folder / data), "--out", str(out)]
    return main([*command, "--configuration", "images-to-physics", "-q", "--steps", "4", *more])


def test_images_of_the_data_set(folder):
    columns, _ = read_columns(folder / "set" / "train")
    assert columns["image"].shape[1:] == columns["ivar"].shape[1:] == (5, 160, 160)
    # The measured flux is that of the central 64 pixels.
    small, _ = read_columns(folder / "small" / "train")
    np.testing.assert_array_equal(columns["measured_flux"], small["measured_flux"])
    np.testing.assert_array_equal(columns["image"][..., 48:112, 48:112], small["image"])
    settings = read_manifest(folder / "set")["settings"]
    assert settings["cutout_size"] == 160
    assert "cutout_size" not in read_manifest(folder / "small")["settings"]
    assert image_size(folder / "set") == 160 and image_size(folder / "small") == 64


def test_another_size_needs_another_folder(folder, capsys):
    command = ["dataset", "from-files", str(folder / "mine.ecsv"), "--out", str(folder / "set")]
    assert main([*command, "--images", str(folder / "images")]) == 2
    assert "cutout_size is 160 there, and None now" in capsys.readouterr().err


@pytest.mark.parametrize("size", [63, 65, 62, 514])
def test_impossible_sizes(size):
    with pytest.raises(ValueError, match=f"--cutout-size is {size}; give an even number"):
        checked_cutout_size(size)


def test_size_on_disk():
    assert kept_image(64) == pytest.approx(123e-6, rel=1e-3)
    assert kept_image(160) == pytest.approx(0.768e-3)


def test_other_networks_read_the_centre(folder):
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for name in ("set", "small"):
        shards = Shards.read(folder / name / "train")
        config = AugmentationConfig(mode_weights=(1, 0, 0, 0), max_shift=0, full_bands=1)
        inputs[name] = shards.inputs(torch.arange(4), config, generator.manual_seed(0))
    torch.testing.assert_close(inputs["set"].image, inputs["small"].image, rtol=0, atol=0)
    with pytest.raises(ValueError, match="have 64 pixels on a side, but the network reads 160"):
        Shards.read(folder / "small" / "train", cutout_size=160)


def test_trained_saved_loaded_and_judged(folder, tmp_path):
    out = tmp_path / "run"
    assert train(folder, out, "--size", "small") == 0
    estimator = PropertyEstimator.from_pretrained(str(out / "properties.safetensors"))
    assert isinstance(estimator.network, ImagesToPhysicsNetwork)
    assert estimator.network.cutout_size == 160
    training = estimator.card["training"]
    assert (training["learning_rate"], training["weight_decay"]) == (1e-4, 0.0)
    assert (training["warmup"], training["final_factor"]) == (0.0, 1.0)
    first = QTable.read(out / "autoencoder" / "history.ecsv")
    assert first["train_flow_0"][-1] == 0 and first["train_reconstruction_0"][-1] > 0
    assert QTable.read(out / "history.ecsv")["step"][-1] == 2
    page = tmp_path / "page.html"
    command = ["evaluate", "--data", str(folder / "set"), "--n-draws", "20", "-q"]
    weights = str(out / "properties.safetensors")
    scores = tmp_path / "scores.ecsv"
    assert main([*command, "--properties", weights, "--report", str(page), "-o", str(scores)]) == 0
    table = QTable.read(scores)
    assert set(table["input"]) == {"both", "image", "photometry"}
    assert np.isfinite(table["r2"][table["input"] == "both"]).all()
    assert page.stat().st_size > 10_000


def test_galaxies_with_unknown_quantities_do_not_train_the_joint_flow(folder, tmp_path):
    out = tmp_path / "run"
    assert train(folder, out, "--size", "small") == 0
    history = QTable.read(out / "history.ecsv")
    assert np.isfinite(history["train_nll_black_hole_mass_0"]).all()


def test_smaller_images_are_used_with_a_warning(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "run", "--size", "small", data="small") == 0
    message = capsys.readouterr().err
    assert "reads images of 64 pixels" in message and "--cutout-size 160" in message
    loaded = PropertyEstimator.load(tmp_path / "run" / "properties.safetensors")
    assert loaded.network.cutout_size == 64


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--size", "large"), "the size is 'large', but the network of the configuration"),
        (("--any-filters",), "--any-filters cannot be combined with --configuration"),
        (("--max-redshift", "1"), "--max-redshift cannot be combined with --configuration"),
        (("--model", "x"), "--configuration describes a new network and cannot be combined with"),
    ],
)
def test_options_that_contradict_the_configuration(folder, tmp_path, capsys, more, message):
    assert train(folder, tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err


def test_a_data_set_without_images(folder, tmp_path, capsys):
    command = ["dataset", "from-files", str(folder / "mine.ecsv"), "--out", str(tmp_path / "set")]
    assert main([*command, "-q"]) == 0
    assert train(tmp_path, tmp_path / "run") == 2
    assert "images-to-physics needs images" in capsys.readouterr().err
