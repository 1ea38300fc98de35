"""Data augmentation: images, photometry, missing inputs, morphology."""

import math
from dataclasses import replace

import pytest
import torch
from network_cases import make_batch, make_galaxies, seeded

from astrogenspec.inputs.features import (
    MORPHOLOGY_FEATURES,
    PHOTOMETRY_FEATURES,
    PIXEL_SIGMA,
    image_features,
    morphology_features,
)
from astrogenspec.training.augmentation import (
    AugmentationConfig,
    MorphologyAugmentation,
    add_background,
    add_noise,
    augment,
    augment_photometry,
    draw_band_subsets,
    draw_modes,
    draw_sky_sigma,
    observe_morphology,
    orient_randomly,
    redraw_flux,
    shift_randomly,
)

N = 4000
LOG_R50, CONCENTRATION, AXIS_RATIO = MORPHOLOGY_FEATURES.columns("shape")
EXACT = MorphologyAugmentation(
    shown=1.0,
    kept=1.0,
    radius_scatter=0.0,
    concentration_scatter=0.0,
    axis_ratio_scatter=0.0,
    other_pipeline=0.0,
)


def true_morphology(n=N):
    r50 = 1 + 4 * torch.rand(n, generator=torch.Generator().manual_seed(1))
    return {"r50": r50, "r90": 2.5 * r50, "axis_ratio": torch.full((n,), 0.6)}


def observed(config, seed=0):
    return observe_morphology(true_morphology(), config, torch.Generator().manual_seed(seed))


def test_morphology_without_errors_equals_the_truth():
    true, none = true_morphology(), torch.full((N, 5), torch.nan)
    wanted = morphology_features(none, none, true["r50"], true["r90"], true["axis_ratio"])
    torch.testing.assert_close(observed(EXACT), wanted)


def test_morphology_is_missing_as_often_as_configured():
    features = observed(replace(EXACT, shown=0.5, kept=0.7))
    present = features[:, MORPHOLOGY_FEATURES.columns("shape_present")]
    assert not features[:, MORPHOLOGY_FEATURES.columns("petrosian", "petrosian_present")].any()
    # Each part is kept in 70%; r90 requires r50.
    for k, fraction in enumerate((0.35, 0.245, 0.35)):
        assert present[:, k].mean() == pytest.approx(fraction, abs=0.03)
    assert present.any(1).float().mean() == pytest.approx(0.5 * (1 - 0.3**2), abs=0.03)


def test_morphology_errors_have_the_configured_size():
    config = replace(EXACT, radius_scatter=0.03, axis_ratio_scatter=0.05)
    difference = observed(config) - observed(EXACT)
    assert difference[:, LOG_R50].std() * 0.3 == pytest.approx(0.03, rel=0.1)
    assert difference[:, AXIS_RATIO].std() * 0.2 == pytest.approx(0.05, rel=0.1)
    assert difference[:, CONCENTRATION].std() < 1e-4  # r90 scales with r50
    config = replace(EXACT, concentration_scatter=0.02)
    ratio = (observed(config)[:, CONCENTRATION] * 0.5 + 2.5) / 2.5
    assert ratio.log10().std() == pytest.approx(0.02, rel=0.1)


def test_radii_of_other_pipelines_are_larger():
    config = replace(EXACT, other_pipeline=0.5)
    larger = (observed(config) - observed(EXACT))[:, LOG_R50] * 0.3
    assert (larger > 1e-4).float().mean() == pytest.approx(0.5, abs=0.04)
    assert larger.min() > -1e-5 and 0.2 < larger.max() <= 0.25 + 1e-5


def test_inputs_contain_the_morphology():
    true, flux = true_morphology(300), 30 * torch.ones(300, 5)
    config = AugmentationConfig(mode_weights=(0.5, 0.5, 0.0, 0.0), structure=EXACT)
    rng = torch.Generator().manual_seed(0)
    alone = augment_photometry(flux, 0.02 * flux, config, rng, morphology=true)
    images = torch.ones(300, 5, 64, 64)
    both = augment(images, flux, 0.02 * flux, morphology=true, config=config, generator=rng)
    for inputs in (alone, both):
        assert (inputs.morphology[:, MORPHOLOGY_FEATURES.columns("shape_present")] == 1).all()
    assert augment_photometry(flux, 0.02 * flux, config, rng).morphology is None


def test_morphology_is_reproducible():
    first, again, other = (observed(MorphologyAugmentation(), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


class TestImagesAndPhotometry:
    def test_all_eight_orientations_occur_and_keep_the_pixels(self):
        image = torch.arange(16.0).view(1, 1, 4, 4).repeat(200, 1, 1, 1)
        oriented = orient_randomly(image, seeded())
        assert torch.equal(oriented.flatten(1).sort(-1).values, image.flatten(1))
        assert len({tuple(row.tolist()) for row in oriented.flatten(1)}) == 8

    def test_shift_moves_the_centre(self):
        image = torch.zeros(100, 1, 9, 9)
        image[:, :, 4, 4] = 1
        shifted = shift_randomly(image, 2, seeded())
        assert (shifted.flatten(1).sum(1) == 1).all()
        position = shifted.flatten(1).argmax(1)
        assert position.unique().numel() > 15
        assert ((position // 9 - 4).abs() <= 2).all() and ((position % 9 - 4).abs() <= 2).all()
        assert torch.equal(shift_randomly(image, 0, seeded()), image)

    def test_noise_has_the_stated_variance(self):
        sigma = torch.tensor(PIXEL_SIGMA).expand(4, -1)
        for brightness in (0.0, 5.0):
            truth = torch.full((4, 5, 64, 64), brightness)
            noisy, ivar = add_noise(truth, sigma, seeded())
            normalised = (noisy - truth) * ivar.sqrt()
            assert normalised.mean().abs() < 0.01 and normalised.std().item() == pytest.approx(
                1, abs=0.01
            )
        assert (ivar[0, :, 0, 0] < PIXEL_SIGMA[0] ** 0 / torch.tensor(PIXEL_SIGMA) ** 2).all()

    def test_background_is_constant_in_a_band(self):
        flux = add_background(torch.zeros(200, 5, 8, 8), torch.ones(200, 5), 0.1, seeded())
        assert (flux.std((-2, -1)) < 1e-6).all()
        assert flux[..., 0, 0].std().item() == pytest.approx(0.1, rel=0.1)

    @pytest.mark.parametrize(("spread", "rare"), [(0.0, 0.0), (1.0, 0.0717)])
    def test_background_errors_have_the_configured_tails(self, spread, rare):
        config = AugmentationConfig(
            mode_weights=(0, 0, 1, 0),
            full_bands=1.0,
            sigma_scatter=0.0,
            deep_fraction=0.0,
            shallow_fraction=0.0,
            background=0.1,
            background_spread=spread,
        )
        dark, flux = torch.zeros(2000, 5, 16, 16), torch.ones(2000, 5)
        inputs = augment(dark, flux, flux, config=config, generator=seeded())
        level = inputs.image.sinh().mean((-2, -1))  # in units of the noise
        assert level.mean().abs() < 0.01
        assert (level.abs() > 0.4).float().mean().item() == pytest.approx(rare, abs=0.015)
        if spread == 0:
            assert level.std().item() == pytest.approx(math.hypot(0.1, 1 / 16), rel=0.05)

    def test_sky_noise_scatters_around_its_nominal_value(self):
        sigma = draw_sky_sigma(4000, AugmentationConfig(), seeded()) / torch.tensor(PIXEL_SIGMA)
        torch.testing.assert_close(sigma.median(0).values, torch.ones(5), rtol=0, atol=0.03)
        assert (sigma > 1.6).float().mean() > 0.07

    def test_band_subsets(self):
        bands = draw_band_subsets(20000, AugmentationConfig(), seeded())
        assert bands.any(-1).all()
        assert bands.all(-1).float().mean().item() == pytest.approx(0.5 + 0.3 / 32, abs=0.01)
        gri = (bands == torch.tensor([False, True, True, True, False])).all(-1)
        assert gri.float().mean().item() == pytest.approx(0.2 + 0.3 / 32, abs=0.01)

    def test_modes_have_their_frequencies(self):
        mode = draw_modes(20000, AugmentationConfig(), seeded())
        frequency = torch.bincount(mode, minlength=4) / 20000
        torch.testing.assert_close(
            frequency, torch.tensor([0.45, 0.25, 0.15, 0.15]), rtol=0, atol=0.01
        )

    def test_redrawn_flux_scatters_by_its_error(self):
        true = torch.full((5000, 5), 50.0)
        config = AugmentationConfig(
            photometry_error_scale=(0.5, 2.0), photometry_scatter=(0.0,) * 5, outlier_fraction=0.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 2.0), config, seeded())
        assert error.min() >= 1 and error.max() <= 4
        assert ((flux - true) / error).std().item() == pytest.approx(1, abs=0.02)

    def test_redrawn_flux_has_intrinsic_scatter_and_outliers(self):
        true = torch.full((20000, 5), 50.0)
        config = AugmentationConfig(
            photometry_scatter=(0.1, 0.0, 0.0, 0.0, 0.0), outlier_fraction=0.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 1e-3), config, seeded())
        scatter = 1.0857 * (flux / true - 1).std(0)
        torch.testing.assert_close(scatter, torch.tensor([0.1, 0, 0, 0, 0]), rtol=0.05, atol=1e-4)
        config = AugmentationConfig(
            photometry_scatter=(0.0,) * 5, outlier_fraction=0.1, outlier_factor=20.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 1.0), config, seeded())
        far = ((flux - true) / error).abs() > 5
        assert far.float().mean().item() == pytest.approx(0.1 * 0.803, abs=0.01)

    def test_measured_photometry_is_flagged_and_used(self):
        images, flux, error, _ = make_galaxies()
        config = AugmentationConfig(mode_weights=(0.0, 0.0, 0.0, 1.0), full_bands=1.0)
        inputs = augment(
            images,
            flux,
            error,
            measured_flux=2 * flux,
            measured_error=error,
            config=config,
            generator=seeded(),
        )
        assert inputs.measured.all()
        magnitude = inputs.photometry[:, PHOTOMETRY_FEATURES.index("magnitude_r")] * 1.5 + 17.3
        torch.testing.assert_close(
            magnitude, 22.5 - 2.5 * torch.log10(2 * flux[:, 2]), rtol=0, atol=1e-2
        )

    def test_inputs_are_reproducible(self):
        one, two, other = (make_batch(seed=s)[0] for s in (1, 1, 2))
        assert torch.equal(one.image, two.image) and torch.equal(one.photometry, two.photometry)
        assert not torch.equal(one.photometry, other.photometry)

    def test_inputs_are_scaled_as_observed_images(self):
        images, flux, error, _ = make_galaxies()
        config = AugmentationConfig(
            mode_weights=(1.0, 0.0, 0.0, 0.0), full_bands=1.0, sigma_scatter=0.0
        )
        inputs = augment(images, flux, error, config=config, generator=seeded())
        truth = image_features(images.float(), torch.ones(12, 5, 64, 64))[0]
        difference = (inputs.image - truth)[:, :, :8, :8]
        assert difference.std().item() == pytest.approx(1, abs=0.4)
        assert inputs.image_noise.abs().max() < 0.35
