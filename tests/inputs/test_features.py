"""Network inputs from observed batches."""

import numpy as np
import pytest
import torch

from astrogenspec.inputs.features import (
    MORPHOLOGY_FEATURES,
    PHOTOMETRY_FEATURES,
    PIXEL_SIGMA,
    SHAPE_FEATURES,
    ModelInputs,
    image_features,
    make_inputs,
    photometry_features,
    to_flux,
)
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.surveys import SDSS


def make_cutouts(n=3, seed=0):
    """Bright galaxies of constant surface brightness on noise, all bands good."""
    rng = np.random.default_rng(seed)
    sigma = np.array(PIXEL_SIGMA, dtype=np.float32)[:, None, None]
    flux = (sigma * (10 + rng.normal(size=(n, 5, 64, 64)))).astype(np.float32)
    return SimpleCutouts(flux, np.broadcast_to(1 / sigma**2, flux.shape).astype(np.float32).copy())


class SimpleCutouts:
    """Attributes of a batch of cutouts that `make_inputs` uses."""

    def __init__(self, flux, ivar):
        self.flux, self.ivar = flux, ivar

    def __len__(self):
        return len(self.flux)


class SimplePhotometry:
    """Attributes of a batch of photometry that `make_inputs` uses."""

    def __init__(self, flux, error, extinction=0.0, measured=False):
        self.flux, self.error = np.asarray(flux, float), np.asarray(error, float)
        self.extinction = np.broadcast_to(extinction, self.flux.shape)
        self.measured = np.full(len(self.flux), measured)
        self.morphology = None

    def __len__(self):
        return len(self.flux)

    def dereddened(self):
        factor = 10 ** (0.4 * self.extinction)
        return self.flux * factor, self.error * factor


def test_reference_noise_equals_that_of_the_survey():
    assert tuple(SDSS.pixel_sigma[band] for band in SDSS.bands) == PIXEL_SIGMA


class TestImages:
    def test_scaling_is_asinh_and_invertible(self):
        flux = torch.tensor(PIXEL_SIGMA)[:, None, None] * torch.linspace(-20, 3000, 64 * 64).view(
            64, 64
        )
        image, *_ = image_features(flux[None], torch.ones(1, 5, 64, 64))
        torch.testing.assert_close(
            image[0, 1].flatten(), torch.asinh(torch.linspace(-20, 3000, 4096))
        )
        torch.testing.assert_close(to_flux(image)[0], flux, rtol=1e-4, atol=1e-5)

    def test_weight_is_the_inverse_variance_of_the_scaled_pixel(self):
        torch.manual_seed(0)
        sigma = PIXEL_SIGMA[2]
        for brightness in (0.0, 3.0, 200.0):
            truth = torch.full((1, 5, 64, 64), brightness * sigma)
            noisy = truth + 0.3 * sigma * torch.randn(truth.shape)
            image = image_features(noisy, torch.full_like(truth, (0.3 * sigma) ** -2))[0][:, 2]
            weight = image_features(truth, torch.full_like(truth, (0.3 * sigma) ** -2))[1][
                0, 2, 0, 0
            ]
            floor = (0.05 * brightness) ** 2 / (brightness**2 + 1)
            expected = 1 / (image.var().item() + floor)
            assert weight.item() == pytest.approx(expected, rel=0.09)

    def test_bad_pixels_and_missing_bands_are_zero(self):
        cutouts = make_cutouts(2)
        cutouts.ivar[0, 0] = 0
        cutouts.ivar[1, 2, 10:20, 10:20] = 0
        cutouts.flux[0, 0] = np.nan
        inputs = make_inputs(cutouts)
        assert (inputs.image[0, 0] == 0).all() and (inputs.image_weight[0, 0] == 0).all()
        assert (inputs.image[1, 2, 10:20, 10:20] == 0).all()
        assert inputs.image_bands.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
        assert inputs.image_noise[0, 0] == 0
        assert all(
            torch.isfinite(t).all() for t in (inputs.image, inputs.image_weight, inputs.image_noise)
        )

    def test_noise_is_relative_to_the_reference(self):
        cutouts = make_cutouts(1)
        cutouts.ivar /= 4
        noise = make_inputs(cutouts).image_noise
        torch.testing.assert_close(noise, torch.full((1, 5), np.log10(2.0), dtype=torch.float32))

    def test_extinction_brightens_image_and_its_noise(self):
        cutouts = make_cutouts(1)
        extinction = np.array([[0.5, 0.4, 0.3, 0.2, 0.1]])
        corrected = make_inputs(cutouts, extinction=extinction)
        factor = torch.tensor(10 ** (0.4 * extinction), dtype=torch.float32)[:, :, None, None]
        torch.testing.assert_close(
            to_flux(corrected.image), torch.as_tensor(cutouts.flux) * factor, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(corrected.image_noise, torch.tensor(0.4 * extinction).float())

    def test_extinction_of_the_photometry_is_used_for_the_image(self):
        cutouts = make_cutouts(1)
        photometry = SimplePhotometry(np.full((1, 5), 50.0), np.ones((1, 5)), extinction=0.3)
        one = make_inputs(cutouts, photometry)
        two = make_inputs(cutouts, extinction=np.full((1, 5), 0.3))
        torch.testing.assert_close(one.image, two.image)


class TestPhotometry:
    def test_bright_fluxes_give_pogson_magnitudes(self):
        flux = torch.tensor([[100.0, 100.0, 1000.0, 1000.0, 1000.0]])
        features = photometry_features(flux, flux / 10)
        magnitude = features[0, :5] * 1.5 + torch.tensor([19.3, 17.9, 17.3, 17.0, 16.8])
        expected = torch.tensor([17.5, 17.5, 15.0, 15.0, 15.0])
        torch.testing.assert_close(magnitude, expected, rtol=0, atol=1e-3)
        assert features[0, 6] * 0.3 + 0.75 == pytest.approx(2.5, abs=1e-3)
        torch.testing.assert_close(features[0, 9:14], torch.full((5,), -0.5))
        assert features[0, 14:].tolist() == [1, 1, 1, 1, 1, 0]

    def test_missing_band_removes_its_colours(self):
        flux = torch.tensor([[10.0, torch.nan, 20.0, 30.0, 40.0]])
        features = photometry_features(flux, torch.ones(1, 5), torch.tensor([True]))[0]
        assert features[[1, 5, 6, 10, 15]].tolist() == [0] * 5
        assert (features[[0, 2, 7, 8, 19]] != 0).all()
        assert torch.isfinite(features).all()

    def test_negative_and_noisy_fluxes_are_finite(self):
        features = photometry_features(
            torch.tensor([[-5.0, 0.0, 1e6, 1e-9, 3.0]]), torch.full((1, 5), 2.0)
        )
        assert torch.isfinite(features).all()

    def test_missing_photometry_is_zero(self):
        nothing = torch.full((1, 5), torch.nan)
        assert (photometry_features(nothing, nothing, torch.tensor([True])) == 0).all()

    def test_zero_error_is_missing(self):
        assert photometry_features(torch.ones(1, 5), torch.zeros(1, 5)).abs().sum() == 0


class TestModelInputs:
    def test_flags_and_selection(self):
        flux = np.full((3, 5), 10.0)
        flux[1] = np.nan
        cutouts = make_cutouts(3)
        cutouts.ivar[2] = 0
        inputs = make_inputs(cutouts, SimplePhotometry(flux, np.ones((3, 5))))
        assert inputs.has_image.tolist() == [True, True, False]
        assert inputs.has_photometry.tolist() == [True, False, True]
        part = inputs[torch.tensor([2, 0])]
        assert len(part) == 2 and part.has_image.tolist() == [False, True]
        assert len(inputs[1:]) == 2
        assert isinstance(inputs.to("cpu"), ModelInputs)

    def test_photometry_alone_has_no_image_tensors(self):
        inputs = make_inputs(photometry=SimplePhotometry(np.full((2, 5), 10.0), np.ones((2, 5))))
        assert inputs.image is None and not inputs.has_image.any()
        assert len(inputs[:1].to("cpu")) == 1

    def test_real_batches(self):
        batch = PhotometryBatch(
            np.full((2, 5), 30.0), np.ones((2, 5)), np.array([0.0, 0.1]), np.array([False, True])
        )
        inputs = make_inputs(photometry=batch)
        assert inputs.photometry[1, 0] < inputs.photometry[0, 0]
        assert inputs.measured.tolist() == [False, True]

    def test_errors(self):
        with pytest.raises(ValueError, match="neither"):
            make_inputs()
        with pytest.raises(ValueError, match="3 cutouts but photometry of 2"):
            make_inputs(make_cutouts(3), SimplePhotometry(np.ones((2, 5)), np.ones((2, 5))))


class TestLayout:
    def test_lengths_and_names(self):
        assert len(PHOTOMETRY_FEATURES) == 20 and len(MORPHOLOGY_FEATURES) == 16
        assert PHOTOMETRY_FEATURES.names[5:9] == (
            "colour_ug",
            "colour_gr",
            "colour_ri",
            "colour_iz",
        )

    def test_columns(self):
        assert PHOTOMETRY_FEATURES.slice("present") == slice(14, 19)
        assert PHOTOMETRY_FEATURES.index("measured") == 19
        assert MORPHOLOGY_FEATURES.columns("shape", "shape_present") == (5, 6, 7, 13, 14, 15)
        assert MORPHOLOGY_FEATURES.columns("shape", "shape_present") == SHAPE_FEATURES

    def test_unknown_names(self):
        with pytest.raises(ValueError, match="not in tuple"):
            PHOTOMETRY_FEATURES.index("magnitude_y")
        with pytest.raises(KeyError):
            PHOTOMETRY_FEATURES.slice("line")
