import threading

import numpy as np
import pytest
import torch
from estimator_cases import draws_of, make_cutouts, make_estimator, make_photometry
from finetuning_cases import FIT, galaxies
from spectrum_estimator_cases import photometry, predict

from astrogenspec import PropertyEstimator, SpectrumEstimator
from astrogenspec.nn.precision import single_precision


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def other_default(request):
    """Set another default dtype, as other packages do, and check that it is kept."""

    def set_default():
        torch.set_default_dtype(request.param)

    before = torch.get_default_dtype()
    yield set_default
    after = torch.get_default_dtype()
    torch.set_default_dtype(before)
    assert after == request.param


def test_properties_do_not_depend_on_the_default_dtype(other_default):
    def results():
        estimator = PropertyEstimator.from_pretrained()
        settings = {"n_draws": 7, "seed": 1}
        both = estimator.predict(make_cutouts(2), make_photometry(2), **settings)
        known = {"redshift": [0.1, np.nan]}
        catalogue = estimator.predict(photometry=make_photometry(2), known=known, **settings)
        theta = {name: draws[:, 0] for name, draws in both.draws.items()}
        density = estimator.log_prob(theta, photometry=make_photometry(2))
        latent = estimator.embed(make_cutouts(1))["latent"]
        return draws_of(both), draws_of(catalogue), np.asarray(density), np.asarray(latent)

    expected = results()
    other_default()
    for one, other in zip(expected, results(), strict=True):
        assert np.array_equal(one, other, equal_nan=True) and one.dtype == other.dtype


def test_spectra_do_not_depend_on_the_default_dtype(other_default):
    def results():
        estimator = SpectrumEstimator.from_pretrained()
        with_images = predict(estimator, make_cutouts(2), make_photometry(2), n_draws=2)
        whole = predict(estimator, photometry=photometry(2), n_draws=2, aperture="total")
        return with_images.flux.value, whole.flux.value

    expected = results()
    other_default()
    for one, other in zip(expected, results(), strict=True):
        assert np.array_equal(one, other)


def test_fine_tuning_does_not_depend_on_the_default_dtype(other_default):
    table, labels = galaxies(40)

    def results():
        fitted = make_estimator().fit(photometry=table, labels=labels, **FIT | {"epochs": 2})
        return draws_of(fitted.predict(photometry=table[:3], n_draws=3, seed=1))

    expected = results()
    other_default()
    assert np.array_equal(results(), expected)


def test_simulations_do_not_depend_on_the_default_dtype(other_default):
    from astrogenspec.simulate import Simulator

    def results():
        simulator = Simulator()
        drawn = simulator.draw(2, seed=1)
        images = simulator.images(drawn, simulator.generator(2))
        return drawn.theta, images.flux, simulator.spectra(drawn)

    expected = results()
    other_default()
    for one, other in zip(expected, results(), strict=True):
        assert torch.equal(one, other)


def test_the_default_dtype_is_restored_after_the_last_thread(other_default):
    other_default()
    inside, leave = threading.Event(), threading.Event()

    def wait():
        with single_precision():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait()
    with single_precision():
        assert torch.zeros(1).dtype == torch.float32
    assert torch.zeros(1).dtype == torch.float32
    leave.set()
    thread.join()
