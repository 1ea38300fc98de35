"""Distillation: teacher samples, the loss, augmentation, encoding of simulated galaxies."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from estimator_cases import make_estimator, make_photometry
from generation_cases import make_columns
from torch.testing import assert_close

from astrogenspec.inference.finetuning.dataset import (
    augment_galaxies,
    frequent_band_sets,
    read_labelled_galaxies,
)
from astrogenspec.inference.finetuning.distillation import (
    DistillationLoss,
    LabelledBatch,
    SimulatedBatch,
    TeacherSamples,
    encode_shards,
)
from astrogenspec.inference.training import EncodedGalaxies
from astrogenspec.inputs.features import PhotometryReader, photometry_features
from astrogenspec.inputs.observations import InputOptions, ObservationBatches
from astrogenspec.inputs.photometry import coerce_photometry

N, N_SIMULATED = 40, 300


def labelled():
    """Return galaxies with redshifts and half of the masses as labels."""
    theta = np.full((N, 9), np.nan)
    theta[:, 0] = np.linspace(0.05, 0.2, N)
    theta[::2, 1] = 10.5
    blocks = ObservationBatches(None, make_photometry(N), InputOptions())
    return read_labelled_galaxies(blocks, theta, None)[0]


def teacher_samples(seed=0):
    galaxies, network = labelled(), make_estimator().network
    generator = torch.Generator().manual_seed(seed)
    return galaxies, network, TeacherSamples(
        network, galaxies.inputs, galaxies.theta, generator=generator
    )  # fmt: skip


def picked(kept, n, name):
    rng = torch.Generator().manual_seed(9)
    return torch.stack([getattr(kept.pick(torch.arange(N), rng), name) for _ in range(n)])


def test_known_quantities_are_kept_and_others_drawn():
    galaxies, _, kept = teacher_samples()
    theta = picked(kept, 50, "theta")
    known = galaxies.theta.isfinite().expand_as(theta)
    assert torch.equal(theta[known], galaxies.theta.expand_as(theta)[known])
    assert theta.isfinite().all()
    spread = theta.std(0)
    assert (spread[~known[0]] > 0).all() and (spread[known[0]] < 1e-6).all()


def test_free_draws_follow_the_posterior():
    galaxies, network, kept = teacher_samples()
    free = picked(kept, 200, "free")[:, :, 0]
    assert len(free.unique(dim=0)) > 10
    with torch.no_grad():
        drawn = network.posterior(galaxies.inputs).sample(2000)[..., 0]
        contexts = network.contexts(galaxies.inputs)
    distance = (free.mean(0) - drawn.mean(1)) / drawn.std(1)
    assert distance.abs().mean() < 0.4  # sixteen draws
    assert_close(picked(kept, 1, "measurable")[0], network.measurable(contexts).detach())


def test_teacher_samples_are_reproducible():
    first, again, other = (picked(teacher_samples(seed)[2], 3, "theta") for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_encoded_images_give_the_same_samples():
    galaxies, network, _ = teacher_samples()
    latent = network.latent(galaxies.inputs)
    kept = [
        TeacherSamples(
            network, galaxies.inputs, latent=given, generator=torch.Generator().manual_seed(1)
        )
        for given in (None, tuple(part.detach() for part in latent))
    ]
    assert torch.equal(picked(kept[0], 2, "free"), picked(kept[1], 2, "free"))
    assert torch.equal(picked(kept[0], 2, "free"), picked(kept[0], 2, "theta"))


def test_conditions_are_supervised_by_the_teacher_only():
    galaxies, network, kept = teacher_samples()
    galaxies.learnt[:, 0] = False
    rows, rng = torch.arange(N), torch.Generator().manual_seed(0)
    targets = kept.pick(rows, rng)
    network.train()
    loss = DistillationLoss()
    terms = [loss(network, [LabelledBatch(galaxies, targets)], 0.5)["total"]]
    targets.free[:, 0] = 0.29
    terms.append(loss(network, [LabelledBatch(galaxies, targets)], 0.5)["total"])
    network.eval()
    assert terms[0].isfinite() and not torch.isclose(terms[0], terms[1])


def test_an_imputed_image_supervises_the_redshift_only():
    galaxies, network, kept = teacher_samples()
    targets = kept.pick(torch.arange(N), torch.Generator().manual_seed(0))
    galaxies.inputs.image_bands[:] = 1.0
    latent = torch.zeros(N, network.vae.latent_size), torch.zeros(N, network.vae.latent_size)
    network.train()

    def loss():
        batch = LabelledBatch(galaxies, targets, latent, torch.ones(N, dtype=torch.bool))
        return DistillationLoss()(network, [batch], 0.5)["total"].item()

    before = loss()
    targets.theta[:, 1:] *= 1.001
    unchanged = loss()
    targets.theta[:, 0] *= 1.5
    after = loss()
    network.eval()
    assert abs(unchanged - before) < 1e-4 < abs(after - before)


def test_frequent_band_sets():
    galaxies = labelled()
    galaxies.flux[:] = 1.0
    galaxies.flux[:30, 0] = torch.nan
    galaxies.flux[-1, 1:] = torch.nan  # one in forty is not frequent
    griz, gri, ugriz = "griz", "gri", "ugriz"
    wanted = {tuple(b in subset for b in "ugriz") for subset in (griz, gri, ugriz)}
    assert {tuple(row) for row in frequent_band_sets(galaxies).tolist()} == wanted
    galaxies.learnt[:, 0] = False
    assert frequent_band_sets(galaxies).shape == (0, 5)


@pytest.mark.parametrize(("seen", "supervised"), [("ugriz", False), ("gri", False), ("r", True)])
def test_simulated_galaxies_supervise_redshifts_of_rare_band_sets(seen, supervised):
    galaxies, network, kept = teacher_samples()
    galaxies.flux[:] = 1.0
    targets = kept.pick(torch.arange(N), torch.Generator().manual_seed(0))
    bands = torch.tensor([b in seen for b in "ugriz"])
    flux = torch.where(bands, 30.0, torch.nan).expand(N, 5)
    inputs = replace(galaxies.inputs, photometry=photometry_features(flux, 0.02 * flux))
    latent = torch.zeros(N, network.vae.latent_size)
    simulated = EncodedGalaxies(inputs, latent, latent, flux, targets.theta, targets.measurable)
    network.train()
    loss = DistillationLoss(frequent_band_sets(galaxies))

    def simulated_loss(targets):
        batch = [LabelledBatch(galaxies), SimulatedBatch(simulated, targets)]
        torch.manual_seed(0)
        return loss(network, batch, 0.5)["simulated_0"].item()

    targets.theta[:, 1:] = torch.nan
    before = simulated_loss(targets)
    targets.theta[:, 0] *= 1.5
    after = simulated_loss(targets)
    network.eval()
    assert (after != before) == supervised


def test_augmentation_increases_half_of_the_errors():
    galaxies = labelled()
    galaxies.error[:] = 0.005 * galaxies.flux
    log_snr_r, has_r = slice(11, 12), slice(16, 17)
    generator = torch.Generator().manual_seed(2)
    reader = PhotometryReader(coerce_photometry(make_photometry()), None)
    seen = [augment_galaxies(galaxies, generator, reader).inputs.photometry for _ in range(20)]
    snr = torch.cat([v[:, log_snr_r][v[:, has_r] > 0] for v in seen])
    stated = snr.max()  # up to noise of a quarter of sigma
    assert 0.65 < (snr > stated - 0.01).float().mean() < 0.85
    assert float(stated - snr.min()) > 0.8  # 6% instead of 0.5%


# ---- simulated galaxies


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    with h5py.File(folder / "shard-00000.h5", "w") as file:
        for name, values in make_columns(N_SIMULATED).items():
            file[name] = values
    return encode_shards(make_estimator().network, folder, N_SIMULATED, seed=3)


def test_simulated_galaxies_have_all_input_modes(encoded):
    inputs = encoded.inputs
    catalogue = inputs.has_photometry & ~inputs.measured
    fractions = {
        "both": inputs.has_image & catalogue,
        "photometry": ~inputs.has_image & catalogue,
        "image": inputs.has_image & ~inputs.has_photometry,
        "image, measured": inputs.has_image & inputs.measured,
    }
    found = {name: rows.float().mean().item() for name, rows in fractions.items()}
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(
        {"both": 0.45, "photometry": 0.2, "image": 0.15, "image, measured": 0.2}, abs=0.09
    )


def test_galaxies_without_image_have_zero_latents(encoded):
    shown = encoded.inputs.has_image
    assert not encoded.mu[~shown].any() and not encoded.logvar[~shown].any()
    assert (encoded.mu[shown] != 0).any(dim=1).all()


def test_the_validation_part_of_the_first_training_is_left_out(encoded):
    assert 0.9 * N_SIMULATED < len(encoded) < N_SIMULATED
    assert torch.isfinite(encoded.flux).all() and (encoded.redshift > 0).all()
