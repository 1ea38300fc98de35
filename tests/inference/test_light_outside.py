"""Photometry in a fibre: posteriors include the light outside."""

import numpy as np
import pytest
from estimator_cases import N, make_cutouts, make_estimator, make_photometry
from scipy.stats import ks_2samp

from astrogenspec import coerce_photometry
from astrogenspec.flags import Flag
from astrogenspec.inference.light_outside import MAX_OFFSET, N_OFFSETS, with_light_outside
from astrogenspec.inputs.observations import observe
from astrogenspec.inputs.photometry import PhotometryBatch


@pytest.fixture
def in_fibre():
    return coerce_photometry(make_photometry(), aperture="fibre")


def _brighter(batch, magnitudes):
    factor = 10 ** (0.4 * magnitudes)
    return PhotometryBatch(
        factor * batch.flux,
        factor * batch.error,
        batch.ebv,
        batch.measured,
        extinction=batch.extinction,
    )


def test_offsets_are_uniform_in_any_first_draws(in_fibre):
    parts = with_light_outside(observe(None, in_fibre))
    offsets = [2.5 * np.log10(part.photometry.flux[0, 2] / in_fibre.flux[0, 2]) for part in parts]
    step = MAX_OFFSET / N_OFFSETS
    np.testing.assert_allclose(np.sort(offsets), step * (np.arange(N_OFFSETS) + 0.5))
    for first in (2, 4, 8):
        counts = np.histogram(offsets[:first], first, (0, MAX_OFFSET))[0]
        assert (counts == 1).all()
    assert not any(part.photometry.in_fibre for part in parts)


def test_the_posterior_is_the_mixture_over_the_light_outside(in_fibre):
    estimator = make_estimator()
    found = estimator.predict(photometry=in_fibre, n_draws=1600, seed=1)
    assert found.n_draws == 1600
    assert found.meta["photometry_aperture"] == "fibre"
    offsets = MAX_OFFSET * (np.arange(N_OFFSETS) + 0.5) / N_OFFSETS
    parts = [
        estimator.predict(photometry=_brighter(in_fibre, d), n_draws=400, seed=k)
        for k, d in enumerate(offsets)
    ]
    for name in ("redshift", "stellar_mass", "halpha_flux"):
        expected = np.concatenate([part[name].draws.value for part in parts], axis=1)
        values = found[name].draws.value
        for one, two in zip(values, expected, strict=True):
            assert ks_2samp(one, two).statistic < 0.06
    # A number of draws that is not a multiple of the number of offsets.
    assert estimator.predict(photometry=in_fibre, n_draws=21, seed=1).n_draws == 21


def test_the_photometry_of_the_posterior_is_the_one_given(in_fibre):
    posterior = make_estimator().predict(photometry=in_fibre, n_draws=20, seed=1)
    np.testing.assert_array_equal(posterior.photometry["flux_r"].value, in_fibre.flux[:, 2])
    assert ((posterior.flag_codes & Flag.ASSUMPTION) != 0).all()
    assert all("in a fibre" in text for text in posterior.flags)
    total = make_estimator().predict(photometry=make_photometry(), n_draws=20, seed=1)
    assert not (total.flag_codes & Flag.ASSUMPTION).any()


def test_known_redshifts_are_kept_and_densities_are_those_of_the_mixture(in_fibre):
    estimator, z = make_estimator(), np.full(N, 0.05)
    posterior = estimator.predict(photometry=in_fibre, known={"redshift": z}, n_draws=32, seed=1)
    np.testing.assert_allclose(posterior["redshift"].draws.value, 0.05, rtol=1e-6)
    assert (np.ptp(posterior["stellar_mass"].draws.value, axis=1) > 0).all()
    found = estimator.log_prob({"redshift": z}, photometry=in_fibre)
    offsets = MAX_OFFSET * (np.arange(N_OFFSETS) + 0.5) / N_OFFSETS
    each = [estimator.log_prob({"redshift": z}, photometry=_brighter(in_fibre, d)) for d in offsets]
    np.testing.assert_allclose(found, np.log(np.mean(np.exp(each), axis=0)), rtol=1e-5)


def test_selection_and_concatenation_keep_the_aperture(in_fibre):
    assert in_fibre[1:3].in_fibre
    assert PhotometryBatch.concatenate([in_fibre, in_fibre[:1]]).in_fibre
    assert coerce_photometry(in_fibre).in_fibre
    total = coerce_photometry(make_photometry())
    assert not total.in_fibre
    with pytest.raises(ValueError, match="fluxes in a fibre and total fluxes; concatenate"):
        PhotometryBatch.concatenate([in_fibre, total])


def test_invalid_apertures_are_one_sentence(in_fibre):
    with pytest.raises(ValueError, match="aperture is 'slit', but it must be total or fibre"):
        coerce_photometry(make_photometry(), aperture="slit")
    with pytest.raises(ValueError, match="photometry is that in a fibre, but images of the whole"):
        make_estimator().predict(make_cutouts(), in_fibre)
