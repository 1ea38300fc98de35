"""Network inputs of real galaxies, and reading of their shards."""

import h5py
import numpy as np
import pytest
import torch
from training_cases import (
    RECIPE,
    SDSS_NAMES,
    TRAINING,
    make_columns,
    make_observed,
    write_real,
)

from astrogenspec.inference.training import train_properties
from astrogenspec.inputs.features import PHOTOMETRY_FEATURES, to_flux
from astrogenspec.training import shards as shards_module
from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.observed import observed_inputs
from astrogenspec.training.shards import MappedColumn, Shards, training_folders

EVERYTHING = AugmentationConfig(
    mode_weights=(1.0, 0.0, 0.0, 0.0), full_bands=1.0, gri_bands=0.0, same_bands=1.0, max_shift=0
)


def tensors(columns):
    return {k: torch.as_tensor(v) for k, v in columns.items() if v.dtype.kind != "S"}


def seen(observed, config=EVERYTHING, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return observed_inputs(tensors(observed), SDSS_NAMES, config, generator)


def test_real_pixels_get_no_noise():
    observed = make_observed()
    inputs = seen(observed)
    assert torch.equal(inputs.image_bands, torch.tensor([[0, 1, 1, 1, 0.0]]).expand(6, 5))
    flux = to_flux(inputs.image).numpy()
    # Orientation apart, the pixels are the same: compare them sorted.
    np.testing.assert_allclose(
        np.sort(flux.reshape(6, 5, -1)),
        np.sort(observed["image"].astype(float).reshape(6, 5, -1)),
        atol=1e-5,
    )
    # The masked corner has no weight, wherever it is turned to.
    assert ((inputs.image_weight == 0).sum((2, 3)) == torch.tensor([4096, 64, 64, 64, 4096])).all()
    np.testing.assert_allclose(inputs.image_noise[:, 1:4].numpy(), 0, atol=1e-5)


def test_catalogue_fluxes_are_those_observed():
    observed = make_observed()
    photometry = seen(observed).photometry
    present = photometry[:, PHOTOMETRY_FEATURES.slice("present")]
    assert torch.equal(present[:, 4], torch.tensor([1, 1, 1, 0, 0, 0.0]))
    assert (present[:, :4] == 1).all()
    again = seen(observed, seed=5).photometry
    assert torch.equal(photometry, again)
    snr = photometry[:, PHOTOMETRY_FEATURES.slice("log_snr")][:, 2]
    np.testing.assert_allclose(snr, np.log10(20) - 1.5, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "image", "photometry", "measured"),
    [(0, 1, 1, 0), (1, 0, 1, 0), (2, 1, 0, 0), (3, 1, 1, 1)],
)
def test_input_modes(mode, image, photometry, measured):
    weights = tuple(float(k == mode) for k in range(4))
    config = AugmentationConfig(mode_weights=weights, full_bands=1.0, gri_bands=0.0)
    inputs = seen(make_observed(), config)
    assert (inputs.has_image == bool(image)).all()
    assert (inputs.has_photometry == bool(photometry)).all()
    assert (inputs.measured == bool(measured)).all()


def test_galaxies_keep_what_they_have():
    """A galaxy without image keeps its photometry in every mode, and the other way round."""
    observed = make_observed()
    observed["ivar"][0] = 0
    observed["flux"][1] = np.nan
    for mode in range(4):
        weights = tuple(float(k == mode) for k in range(4))
        inputs = seen(observed, AugmentationConfig(mode_weights=weights), seed=mode)
        assert not inputs.has_image[0] and inputs.has_photometry[0]
        assert inputs.has_image[1]
        assert (inputs.has_image | inputs.has_photometry).all()


def test_photometry_in_other_filters_needs_components():
    observed = tensors(make_observed())
    observed = {k: v[:, 1:] if k in ("flux", "error") else v for k, v in observed.items()}
    names = tuple(f"decamDR1-{band}" for band in "griz")
    with pytest.raises(ValueError, match="the network reads that of SDSS only"):
        observed_inputs(observed, names, EVERYTHING, torch.Generator())


def test_shards_of_different_lengths_and_memory_maps(tmp_path, monkeypatch):
    columns = make_observed(7)
    for k, rows in enumerate((slice(0, 4), slice(4, 7))):
        write_real(tmp_path / f"shard-{k:05d}.h5", {name: v[rows] for name, v in columns.items()})
    in_memory = Shards.read(tmp_path)
    assert len(in_memory) == 7 and in_memory.are_real and in_memory.has_images
    monkeypatch.setattr(shards_module, "MAX_IN_MEMORY", 1000)
    mapped = Shards.read(tmp_path)
    assert isinstance(mapped.columns["image"], MappedColumn)
    assert isinstance(mapped.columns["theta"], torch.Tensor)
    rows = torch.tensor([6, 0, 3, 4])
    for part, of in ((mapped, in_memory), (mapped.split(0.5)[1], in_memory.split(0.5)[1])):
        picked = rows % len(part)
        one = part.inputs(picked, EVERYTHING, torch.Generator().manual_seed(1))
        other = of.inputs(picked, EVERYTHING, torch.Generator().manual_seed(1))
        assert torch.equal(one.image, other.image) and torch.equal(one.photometry, other.photometry)
    np.testing.assert_array_equal(mapped.columns["image"][rows], columns["image"][rows])


def test_shards_of_an_unknown_format(tmp_path):
    write_real(
        tmp_path / "shard-00000.h5", make_observed(2), version="astrogenspec real galaxies 9"
    )
    with pytest.raises(ValueError, match="upgrade astrogenspec"):
        Shards.read(tmp_path)


def test_shards_of_different_layouts(tmp_path):
    columns = make_observed(4)
    write_real(tmp_path / "shard-00000.h5", columns)
    write_real(tmp_path / "shard-00001.h5", {k: v for k, v in columns.items() if k != "image"})
    with pytest.raises(ValueError, match="has another layout"):
        Shards.read(tmp_path)


def test_missing_labels_of_real_shards(tmp_path):
    write_real(tmp_path / "shard-00000.h5", make_observed(2))
    with pytest.raises(ValueError, match="no column continuum; make the data set again"):
        Shards.read(tmp_path, ("theta", "continuum"))


def test_training_on_real_galaxies_with_missing_labels(tmp_path):
    """The validation part of the data set is used, and unknown labels do not count."""
    write_real(tmp_path / "set" / "train" / "shard-00000.h5", make_observed(16))
    write_real(tmp_path / "set" / "validation" / "shard-00000.h5", make_observed(8, seed=1))
    folders = training_folders(tmp_path / "set")
    assert folders == (tmp_path / "set" / "train", tmp_path / "set" / "validation")
    network, history = train_properties(
        [tmp_path / "set"], tmp_path / "run", recipe=RECIPE, training=TRAINING
    )
    last = history.rows[-1]
    assert np.isfinite(last["valid_total"])
    assert last["valid_nll_sfr_0"] == 0 and last["valid_nll_redshift_0"] != 0
    # Only quantities with labels are standardised.
    assert network.chain.scale[0] != 1 and network.chain.scale[2] == 1


def test_training_on_real_and_simulated_galaxies(tmp_path):
    simulated = tmp_path / "simulated" / "shard-00000.h5"
    simulated.parent.mkdir()
    with h5py.File(simulated, "w") as file:
        for name, values in make_columns(24, False).items():
            file[name] = values
    write_real(tmp_path / "real" / "shard-00000.h5", make_observed(24))
    _, history = train_properties(
        [tmp_path / "real", simulated.parent], tmp_path / "run", recipe=RECIPE, training=TRAINING
    )
    assert np.isfinite(history.rows[-1]["valid_total_0"])
    assert np.isfinite(history.rows[-1]["valid_total_1"])
