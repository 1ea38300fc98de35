"""Results on a GPU agree with those on the CPU; skipped where there is none."""

import astropy.units as u
import h5py
import numpy as np
import pytest
import torch
from finetuning_cases import galaxies
from spectrum_estimator_cases import photometry, predict
from training_cases import RECIPE, TRAINING, make_columns

from astrogenspec import PropertyEstimator, SpectrumEstimator, demo
from astrogenspec.inference.training import train_properties

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICES = ("cpu", "cuda")


@pytest.mark.parametrize("images", [False, True])
def test_properties_agree(images):
    seen = (demo.load_cutouts()[0], None) if images else (None, photometry(4))
    options = {"ebv": 0.02 * u.mag} if images else {}
    found = [
        PropertyEstimator.from_pretrained(device=device).predict(
            *seen, n_draws=200, seed=0, progress=False, **options
        )
        for device in DEVICES
    ]
    for name in found[0].quantities:
        one, two = (posterior[name] for posterior in found)
        scale = one.std().value[:, None]
        difference = np.abs(one.draws.value - two.draws.value) / scale
        assert np.quantile(difference, 0.99) < 0.02, name


def test_spectra_agree():
    found = [
        predict(SpectrumEstimator.from_pretrained(device=device), None, photometry())
        for device in DEVICES
    ]
    one, two = (spectra.flux.value for spectra in found)
    assert np.nanmedian(np.abs(two / one - 1)) < 0.01


def test_fits_agree():
    table, labels = galaxies(40)
    losses = []
    for device in DEVICES:
        estimator = PropertyEstimator.from_pretrained(
            "astrogenspec-properties-simulated", device=device
        )
        fitted = estimator.fit(
            photometry=table, labels=labels, epochs=2, patience=None, seed=1, progress=False
        )
        losses.append(fitted.card["fits"][-1]["held_out_loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


def test_training_runs(tmp_path):
    with h5py.File(tmp_path / "shard-00000.h5", "w") as file:
        for name, values in make_columns(40, images=True).items():
            file[name] = values
    totals = []
    for device in DEVICES:
        training = TRAINING.__class__(**vars(TRAINING) | {"device": device})
        history = train_properties([tmp_path], tmp_path / device, recipe=RECIPE, training=training)[
            1
        ]
        totals.append(history.rows[-1]["valid_total"])
    assert totals[1] == pytest.approx(totals[0], rel=0.02)
