"""Kinds of change between the beginning of a run and its continuation: each is refused by name."""

import json

import h5py
import numpy as np
import pytest
from estimator_cases import make_estimator
from survey_run_cases import SETTINGS, in_other_format, make_catalogue, write_parquet

from astrogenspec.distributed.manifest import ManifestError, make_manifest
from astrogenspec.distributed.sources import find_files
from astrogenspec.distributed.tables import Inference

N, ROWS = 12, 5


def write(folder, change=lambda tables: tables, names=("a", "b", "c")):
    """Write a catalogue of three files."""
    folder.mkdir(exist_ok=True)
    table = make_catalogue(N)
    tables = change([table[4 * k : 4 * k + 4] for k in range(3)])
    for old in folder.iterdir():
        old.unlink()
    for name, each in zip(names, tables, strict=False):
        write_parquet(each, folder / f"{name}.parquet")


def manifest(folder, version="1.0", **settings):
    """Describe a run of the catalogue in a folder."""
    rows = settings.pop("rows", ROWS)
    root, files = find_files(folder / "in")
    weights = str(folder / "tiny.safetensors")
    inference = Inference(**{**SETTINGS, "weights": weights, **settings})
    return make_manifest(inference, rows, root, files, version)


def changed(column, row, value):
    """Return a change of one number."""

    def change(tables):
        tables[1] = tables[1].copy()
        tables[1][column][row] = value * (getattr(tables[1][column], "unit", None) or 1)
        return tables

    return change


def without_column(tables):
    tables[2] = tables[2].copy()
    tables[2].remove_column("flux_u")
    return tables


def renamed_column(tables):
    tables[2] = tables[2].copy()
    tables[2].rename_column("flux_u", "flux_U")
    return tables


def shorter_numbers(tables):
    tables[0] = tables[0].copy()
    tables[0]["flux_g"] = tables[0]["flux_g"].astype(np.float32)
    return tables


def other_unit(tables):
    tables[0] = tables[0].copy()
    tables[0]["flux_g"] = tables[0]["flux_g"].value * (tables[0]["flux_err_g"].unit * 2)
    return tables


def another_column(tables):
    tables[0] = tables[0].copy()
    tables[0]["note"] = np.arange(4)
    return tables


SETTING_CHANGES = [
    ({"seed": 4}, "the option seed"),
    ({"draws": 21}, "the option draws"),
    ({"quantiles": 5}, "the option quantiles"),
    ({"quantiles": 0}, "the option quantiles"),
    ({"ids": "ra"}, "the column of identifiers"),
    ({"keep": ("ra",)}, "the option keep"),
    ({"keep": ("dec", "ra")}, "the option keep"),
    ({"columns": {"flux_g": "flux_r"}}, "the option columns"),
    ({"survey": "sdss"}, "the option survey"),
    ({"ebv": 0.1}, "the option ebv"),
    ({"flux_unit": "nJy"}, "the option flux-unit"),
    ({"save_draws": "float16"}, "the option save-draws"),
    ({"batch_size": 128}, "the option batch-size"),
    ({"device": "cuda"}, "inference device"),
    ({"rows": 6}, "rows per partition"),
    ({"weights": None}, "the (weights|card) .*SHA-256|the model"),
    ({"weights": "astrogenspec-properties-deep"}, "the (weights|card) .*SHA-256|the model"),
    ({"images": "images.hdf5"}, "the option images"),
    ({"images": "images.hdf5", "image_bands": "g,r"}, "the option image-bands"),
    ({"images": "images.hdf5", "pixel_scale": 0.2}, "the option images"),
    ({"images": "images.hdf5", "image_unit": "nJy"}, "the option image-unit"),
    ({"images": "images.hdf5", "images_only": True}, "the option images"),
    ({"spectra": 4}, "the weights|the model of spectra|spectra"),
    ({"version": "1.1"}, "version"),
]
FILE_CHANGES = [
    (changed("flux_r", 1, 80.0), "the contents of b.parquet"),
    (changed("flux_err_i", 2, 1.0000001), "the contents of b.parquet"),
    (changed("flux_g", 0, np.nan), "the contents of b.parquet"),
    (changed("ebv", 3, 0.3), "the contents of b.parquet"),
    (changed("object_id", 0, 5), "the contents of b.parquet"),
    (changed("ra", 0, 359.0), "the contents of b.parquet"),
    (lambda tables: [tables[0][:3], *tables[1:]], "a.parquet of 4 rows"),
    (lambda tables: [tables[0][[0, 1, 2, 3, 3]], *tables[1:]], "a.parquet of 4 rows"),
    (lambda tables: [tables[0][::-1], *tables[1:]], "the contents of a.parquet"),
    (lambda tables: tables[:2], "the input file c.parquet"),
    (lambda tables: [tables[1], tables[0], tables[2]], "the contents of a.parquet"),
    (lambda tables: [tables[0][:0], *tables[1:]], "a.parquet of 4 rows"),
    (without_column, "the contents of c.parquet"),
    (renamed_column, "the contents of c.parquet"),
    (shorter_numbers, "the contents of a.parquet"),
    (other_unit, "the contents of a.parquet"),
    (another_column, "the contents of a.parquet"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write a catalogue, weights and images, and go there."""
    write(tmp_path / "in")
    make_estimator().save(tmp_path / "tiny.safetensors")
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file["object_id"] = np.arange(3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("change", "name"), SETTING_CHANGES)
def test_changed_settings(folder, change, name):
    with pytest.raises(ManifestError, match=f"the run began with .*({name})"):
        manifest(folder).check_same(manifest(folder, **change))


@pytest.mark.parametrize(("change", "name"), FILE_CHANGES)
def test_changed_files(folder, change, name):
    before = manifest(folder)
    write(folder / "in", change)
    with pytest.raises(ManifestError, match=f"the run began with {name}"):
        before.check_same(manifest(folder))


def test_further_changes(folder, monkeypatch):
    """Check files, images, weights and versions that are changed on the disk."""
    before = manifest(folder)
    before.check_same(manifest(folder))
    write(folder / "in", names=("a", "b", "d"))
    with pytest.raises(ManifestError, match=r"the input file [cd].parquet"):
        before.check_same(manifest(folder))
    write(folder / "in", lambda tables: [*tables, tables[0]], names=("a", "b", "c", "d"))
    with pytest.raises(ManifestError, match=r"the input file d.parquet absent"):
        before.check_same(manifest(folder))
    write(folder / "in")
    cut = (folder / "in" / "b.parquet").read_bytes()
    (folder / "in" / "b.parquet").write_bytes(cut[:-20])
    with pytest.raises(ManifestError, match=r"b.parquet of 4 rows"):
        before.check_same(manifest(folder))
    write(folder / "in")
    before.check_same(manifest(folder))
    with_images = manifest(folder, images="images.hdf5")
    with h5py.File(folder / "images.hdf5", "r+") as file:
        file["object_id"][1] = 7
    with pytest.raises(ManifestError, match="the images with SHA-256"):
        with_images.check_same(manifest(folder, images="images.hdf5"))
    card = folder / "tiny.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "note": "x"}))
    with pytest.raises(ManifestError, match="the card with SHA-256"):
        before.check_same(manifest(folder))
    monkeypatch.setattr("numpy.__version__", "9.9")
    with pytest.raises(ManifestError, match="versions numpy|card"):
        before.check_same(manifest(folder))


def test_another_format(folder, tmp_path):
    before = manifest(folder)
    for old in (folder / "in").iterdir():
        old.unlink()
    in_other_format(make_catalogue(N), folder / "in" / "a.csv")
    with pytest.raises(ManifestError, match=r"the input file a\.(csv|parquet)"):
        before.check_same(manifest(folder))
