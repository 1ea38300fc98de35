"""Observed spectra of a data set for the spectrum network."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from generation_cases import make_columns, make_network
from spectrum_dataset_cases import FLUX, write_observed
from training_cases import make_observed, write_real

from astrogenspec.datasets import spectrum_samples
from astrogenspec.datasets.spectrum_samples import (
    draw_sample,
    observed_sample,
    observed_spectra,
    simulated_spectra,
)
from astrogenspec.generation.observed_spectra import fit_prior
from astrogenspec.wavelengths import REST


@pytest.fixture
def folders(tmp_path):
    simulated = tmp_path / "simulated"
    simulated.mkdir()
    with h5py.File(simulated / "shard-00000.h5", "w") as file:
        for name, values in make_columns(70).items():
            file[name] = values
    training = write_observed(tmp_path / "set" / "train" / "shard-00000.h5", 20, 1)
    write_observed(tmp_path / "set" / "validation" / "shard-00000.h5", 2, 2)
    return tmp_path / "set", simulated, training


def test_draws_of_noise_free_spectra(folders):
    observed, simulated, (galaxies, columns) = folders
    sample, held_out = observed_sample(observed, simulated, make_network())
    assert len(sample) == 22 and held_out == [20, 21]
    assert sample.continuum.shape == (22, 4, REST.size)
    np.testing.assert_allclose(sample.redshift[:20], galaxies.redshift, rtol=1e-6)
    np.testing.assert_allclose(sample.total[:20], columns["flux"], rtol=1e-6)
    # Shapes of the noise-free continua, where they were observed; 2% noise a pixel averages out.
    good = columns["spectrum_ivar"] > 0
    for k in range(5):
        ratio = sample.continuum[k].float().numpy() / galaxies.continuum[k].numpy()
        ratio = ratio[:, good[k]]
        scatter = np.median(np.abs(ratio / np.median(ratio, axis=1, keepdims=True) - 1))
        assert scatter < 0.02
    # The flux density at a pixel is the draw times the flux in r.
    product = (sample.continuum.float() * sample.flux[..., None]).numpy()[:5]
    true = FLUX * galaxies.continuum[:5].numpy()
    np.testing.assert_allclose(np.median((product / true[:, None])[:, :, 3500:4000]), 1, atol=0.03)
    # Unobserved bins have no weight: the gap of 40 pixels is 5 bins.
    assert (sample.weight[:5, 375:380] == 0).all() and (sample.weight[:5, 380:420] == 1).all()


def test_spectra_that_cannot_be_drawn_are_left_out(folders):
    observed, simulated, (_, columns) = folders
    prior, fits = fit_prior(simulated_spectra(simulated), observed_spectra(columns))
    broken = [
        *fits[:3],
        None,
        replace(fits[4], coefficients=np.full_like(fits[4].coefficients, np.nan)),
        *fits[5:],
    ]
    sample, rows = draw_sample(columns, prior, broken, torch.zeros(5), 1)
    assert rows.tolist() == [*range(3), *range(5, 20)] and len(sample) == 18
    np.testing.assert_allclose(sample.redshift, columns["theta"][rows, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="no spectrum can be described"):
        draw_sample(columns, prior, [None] * 20, torch.zeros(5), 1)


def test_draws_that_no_galaxy_can_have_are_left_out(folders, monkeypatch):
    """Half precision would store them as infinite or zero, and the training would not be finite."""
    _, simulated, (_, columns) = folders
    prior, fits = fit_prior(simulated_spectra(simulated), observed_spectra(columns))
    sample, rows = draw_sample(columns, prior, fits, torch.zeros(5), 1)
    largest = sample.continuum.float().amax((1, 2))
    assert rows.tolist() == list(range(20)) and largest.max() < 100
    assert sample.continuum.min() >= 1e-4 * (1 - 1e-3)
    monkeypatch.setattr(spectrum_samples, "_MIN_CONTINUUM", 0.2)
    raised = draw_sample(columns, prior, fits, torch.zeros(5), 1)[0]
    torch.testing.assert_close(raised.continuum, sample.continuum.clamp_min(0.2))
    ordered = largest.sort().values
    k = int(ordered.diff().argmax())
    limit = float(ordered[k : k + 2].mean())
    monkeypatch.setattr(spectrum_samples, "_MAX_CONTINUUM", limit)
    kept = draw_sample(columns, prior, fits, torch.zeros(5), 1)[1]
    assert kept.tolist() == (largest < limit).nonzero()[:, 0].tolist()


def test_too_few_spectra(tmp_path):
    write_observed(tmp_path / "shard-00000.h5", 3, 1)
    with pytest.raises(ValueError, match="has 3 spectra .* at least 20 are needed"):
        observed_sample(tmp_path, tmp_path, make_network())


def test_data_sets_without_spectra(folders, tmp_path):
    _, simulated, _ = folders
    write_real(tmp_path / "other" / "shard-00000.h5", make_observed(3))
    with pytest.raises(ValueError, match="has no spectra"):
        observed_sample(tmp_path / "other", simulated, make_network())
