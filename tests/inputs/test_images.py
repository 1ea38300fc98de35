"""Resampling and cropping of images."""

import numpy as np
import pytest

from astrogenspec.inputs.resampling import MIN_COVERAGE, crop_or_pad, overlap_weights, resample


def blob(shape, centre, sigma):
    y, x = np.indices(shape)
    return np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * y).sum() / image.sum(), (image * x).sum() / image.sum()


class TestOverlapWeights:
    @pytest.mark.parametrize("step", [0.31, 0.5, 1.0, 1.37, 3.0])
    def test_inner_pixels_are_distributed_completely(self, step):
        weights = overlap_weights(40, 200, step=step, start=-3.21)
        covered = weights.sum(axis=0)
        inside = np.arange(1, 41) < -3.21 + 200 * step
        np.testing.assert_allclose(covered[inside], 1, atol=1e-12)
        assert weights.min() >= 0
        assert weights.max() <= 1

    def test_disjoint_grids_have_no_overlap(self):
        assert not overlap_weights(5, 5, step=1.0, start=10.0).any()

    @pytest.mark.parametrize("step", [0.0, -1.0, np.nan])
    def test_step_must_be_positive(self, step):
        with pytest.raises(ValueError, match="must be positive"):
            overlap_weights(4, 4, step=step, start=0)


class TestResample:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        ("n", "scale"), [(128, 0.5), (97, 0.66), (64, 1.0), (50, 1.3), (31, 2.5)]
    )
    def test_flux_is_conserved_and_centred(self, n, scale, dtype):
        middle = (n - 1) / 2
        image = blob((n, n), (middle, middle), 4 / scale).astype(dtype)
        step = (1 / scale, 1 / scale)
        flux, _ = resample(image, np.ones_like(image), step=step, centre=(middle, middle))
        assert flux.shape == (64, 64)
        assert flux.dtype == dtype
        total = flux.sum(dtype=float)
        assert total == pytest.approx(image.sum(dtype=float), rel=1e-5)
        np.testing.assert_allclose(centroid(flux.astype(float)), 31.5, atol=1e-3)

    def test_shifted_centre_and_rectangular_pixels(self):
        image = blob((90, 150), (40.3, 81.8), 5.0)
        flux, _ = resample(image, np.ones_like(image), step=(1.0, 2.0), centre=(40.3, 81.8))
        np.testing.assert_allclose(centroid(flux), 31.5, atol=1e-6)
        assert flux.sum() == pytest.approx(image.sum(), rel=1e-6)

    def test_binning_adds_variances(self):
        rng = np.random.default_rng(1)
        ivar = rng.uniform(1, 2, (128, 128))
        _, new = resample(np.zeros((128, 128)), ivar, step=(2, 2), centre=(63.5, 63.5))
        expected = (1 / ivar).reshape(64, 2, 64, 2).sum(axis=(1, 3))
        np.testing.assert_allclose(1 / new, expected, rtol=1e-6)

    def test_smaller_pixels_keep_the_error_of_an_aperture(self):
        _, new = resample(
            np.zeros((32, 32)), np.ones((32, 32)), step=(0.5, 0.5), centre=(15.5,) * 2
        )
        assert (1 / new).sum() == pytest.approx(32 * 32)

    def test_aperture_noise_matches_its_error(self):
        rng = np.random.default_rng(2)
        images = rng.normal(size=(400, 48, 48))
        flux, ivar = resample(images, np.ones_like(images), step=(0.6, 0.6), centre=(23.5, 23.5))
        part = (slice(None), slice(12, 52), slice(12, 52))
        scatter = flux[part].sum(axis=(1, 2)).std()
        claimed = np.sqrt((1 / ivar[part]).sum(axis=(1, 2)))[0]
        assert scatter == pytest.approx(claimed, rel=0.12)

    def test_images_of_a_stack_are_independent(self):
        rng = np.random.default_rng(3)
        images = rng.normal(size=(3, 2, 40, 44))
        ivar = rng.uniform(0, 1, images.shape) * (rng.uniform(size=images.shape) > 0.1)
        options = {"step": (1.7, 0.9), "centre": (20.2, 21.9)}
        flux, new = resample(images, ivar, **options)
        for index in np.ndindex(3, 2):
            one, one_ivar = resample(images[index], ivar[index], **options)
            np.testing.assert_allclose(flux[index], one)
            np.testing.assert_allclose(new[index], one_ivar)

    def test_bad_pixels_do_not_change_surface_brightness(self):
        image, ivar = np.ones((128, 128)), np.ones((128, 128))
        image[60, 60], ivar[60, 60] = np.nan, 0
        ivar[20:30, 20:30] = 0
        flux, new = resample(image, ivar, step=(2, 2), centre=(63.5, 63.5))
        assert flux[30, 30] == pytest.approx(4)
        assert new[30, 30] == pytest.approx(3 / 16)
        assert not flux[10:15, 10:15].any()
        assert not new[10:15, 10:15].any()

    def test_pixels_outside_the_input_have_zero_weight(self):
        flux, ivar = resample(
            np.ones((20, 20)), np.ones((20, 20)), step=(0.5, 0.5), centre=(9.5, 9.5)
        )
        assert (ivar > 0).sum() == 40 * 40
        assert not flux[ivar == 0].any()
        assert 0 < MIN_COVERAGE <= 0.5


class TestCropOrPad:
    def test_matching_input_is_returned(self):
        image = np.ones((2, 64, 64))
        assert crop_or_pad(image, image, offset=(0, 0))[0] is image

    @pytest.mark.parametrize("offset", [(0, 0), (3, 8), (-5, 4), (-70, 0), (99, 0)])
    def test_pixel_positions(self, offset):
        image = np.arange(70 * 80, dtype=float).reshape(70, 80) + 1
        flux, ivar = crop_or_pad(image, image, offset=offset)
        y, x = np.mgrid[:64, :64] + np.array(offset)[:, None, None]
        inside = (y >= 0) & (y < 70) & (x >= 0) & (x < 80)
        expected = np.where(inside, image[y.clip(0, 69), x.clip(0, 79)], 0)
        np.testing.assert_array_equal(flux, expected)
        np.testing.assert_array_equal(ivar, expected)
