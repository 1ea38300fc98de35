"""What a former network says of galaxies, kept to teach another one; and galaxies as they are varied in a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from estimator_cases import make_estimator, make_photometry
from torch.testing import assert_close

from astrogenspec.inference.finetuning.dataset import (
    augmented,
    frequent_band_sets,
    read_labelled_galaxies,
)
from astrogenspec.inference.finetuning.distillation import (
    DistillationBatch,
    DistillationLoss,
    TeacherSamples,
)
from astrogenspec.inference.training import EncodedGalaxies
from astrogenspec.inputs.features import photometry_features
from astrogenspec.inputs.observations import InputOptions, ObservationBatches

N = 40


def labelled():
    """Galaxies with redshifts and half of the masses."""
    theta = np.full((N, 9), np.nan)
    theta[:, 0] = np.linspace(0.05, 0.2, N)
    theta[::2, 1] = 10.5
    blocks = ObservationBatches(None, make_photometry(N), InputOptions())
    return read_labelled_galaxies(blocks, theta, None)[0]


def lessons(seed=0):
    galaxies, network = labelled(), make_estimator().network
    generator = torch.Generator().manual_seed(seed)
    return galaxies, network, TeacherSamples(
        network, galaxies.inputs, galaxies.theta, generator=generator
    )  # fmt: skip


def picked(kept, n, name):
    rng = torch.Generator().manual_seed(9)
    return torch.stack([getattr(kept.pick(torch.arange(N), rng), name) for _ in range(n)])


def test_what_is_known_stays_and_the_rest_is_drawn():
    galaxies, _, kept = lessons()
    theta = picked(kept, 50, "theta")
    known = galaxies.theta.isfinite().expand_as(theta)
    assert torch.equal(theta[known], galaxies.theta.expand_as(theta)[known])
    assert theta.isfinite().all()
    spread = theta.std(0)
    assert (spread[~known[0]] > 0).all() and (spread[known[0]] < 1e-6).all()


def test_free_draws_are_those_of_the_posterior():
    galaxies, network, kept = lessons()
    free = picked(kept, 200, "free")[:, :, 0]
    assert len(free.unique(dim=0)) > 10
    with torch.no_grad():
        drawn = network.posterior(galaxies.inputs).sample(2000)[..., 0]
        contexts = network.contexts(galaxies.inputs)
    distance = (free.mean(0) - drawn.mean(1)) / drawn.std(1)
    assert distance.abs().mean() < 0.4  # of sixteen draws
    assert_close(picked(kept, 1, "measurable")[0], network.measurable(contexts).detach())


def test_lessons_follow_their_seed():
    first, again, other = (picked(lessons(seed)[2], 3, "theta") for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_image_that_is_encoded_already_is_not_wanted_again():
    galaxies, network, _ = lessons()
    latent = network.latent(galaxies.inputs)
    kept = [
        TeacherSamples(
            network, galaxies.inputs, latent=given, generator=torch.Generator().manual_seed(1)
        )
        for given in (None, tuple(part.detach() for part in latent))
    ]
    assert torch.equal(picked(kept[0], 2, "free"), picked(kept[1], 2, "free"))
    assert torch.equal(picked(kept[0], 2, "free"), picked(kept[0], 2, "theta"))


def test_conditions_are_taught_by_the_former_network_alone():
    galaxies, network, kept = lessons()
    galaxies.learnt[:, 0] = False
    rows, rng = torch.arange(N), torch.Generator().manual_seed(0)
    lesson = kept.pick(rows, rng)
    network.train()
    loss = DistillationLoss()
    terms = [loss(network, [DistillationBatch(galaxies, lesson)], 0.5)["total"]]
    lesson.free[:, 0] = 0.29
    terms.append(loss(network, [DistillationBatch(galaxies, lesson)], 0.5)["total"])
    network.eval()
    assert terms[0].isfinite() and not torch.isclose(terms[0], terms[1])


def test_a_lent_image_teaches_the_redshift_alone():
    galaxies, network, kept = lessons()
    lesson = kept.pick(torch.arange(N), torch.Generator().manual_seed(0))
    galaxies.inputs.image_bands[:] = 1.0
    latent = torch.zeros(N, network.vae.latent_size), torch.zeros(N, network.vae.latent_size)
    network.train()

    def loss():
        taught = DistillationBatch(galaxies, lesson, latent, torch.ones(N, dtype=torch.bool))
        return DistillationLoss()(network, [taught], 0.5)["total"].item()

    before = loss()
    lesson.theta[:, 1:] *= 1.001
    unchanged = loss()
    lesson.theta[:, 0] *= 1.5
    after = loss()
    network.eval()
    assert abs(unchanged - before) < 1e-4 < abs(after - before)


def test_bands_shown_are_those_of_the_labelled_galaxies():
    galaxies = labelled()
    galaxies.flux[:] = 1.0
    galaxies.flux[:30, 0] = torch.nan
    galaxies.flux[-1, 1:] = torch.nan  # one in forty: seldom
    griz, gri, ugriz = "griz", "gri", "ugriz"
    wanted = {tuple(b in subset for b in "ugriz") for subset in (griz, gri, ugriz)}
    assert {tuple(row) for row in frequent_band_sets(galaxies).tolist()} == wanted
    galaxies.learnt[:, 0] = False
    assert frequent_band_sets(galaxies).shape == (0, 5)


@pytest.mark.parametrize(("seen", "taught"), [("ugriz", False), ("gri", False), ("r", True)])
def test_simulated_galaxies_teach_redshifts_of_bands_seldom_shown(seen, taught):
    galaxies, network, kept = lessons()
    galaxies.flux[:] = 1.0
    lesson = kept.pick(torch.arange(N), torch.Generator().manual_seed(0))
    bands = torch.tensor([b in seen for b in "ugriz"])
    flux = torch.where(bands, 30.0, torch.nan).expand(N, 5)
    inputs = replace(galaxies.inputs, photometry=photometry_features(flux, 0.02 * flux))
    latent = torch.zeros(N, network.vae.latent_size)
    simulated = EncodedGalaxies(inputs, latent, latent, flux, lesson.theta, lesson.measurable)
    network.train()
    loss = DistillationLoss(frequent_band_sets(galaxies))

    def of_simulated(said):
        batch = [DistillationBatch(galaxies), DistillationBatch(simulated, said, (latent, latent))]
        torch.manual_seed(0)
        return loss(network, batch, 0.5)["simulated_0"].item()

    lesson.theta[:, 1:] = torch.nan
    before = of_simulated(lesson)
    lesson.theta[:, 0] *= 1.5
    after = of_simulated(lesson)
    network.eval()
    assert (after != before) == taught


def test_errors_of_other_conventions_are_tried():
    galaxies = labelled()
    galaxies.error[:] = 0.005 * galaxies.flux
    log_snr_r, has_r = slice(11, 12), slice(16, 17)
    generator = torch.Generator().manual_seed(2)
    seen = [augmented(galaxies, generator).inputs.photometry for _ in range(20)]
    snr = torch.cat([v[:, log_snr_r][v[:, has_r] > 0] for v in seen])
    stated = snr.max()  # but for a quarter of sigma of noise
    assert 0.4 < (snr > stated - 0.01).float().mean() < 0.6
    assert float(stated - snr.min()) > 0.8  # 6% instead of 0.5%
