r"""Observation of simulated galaxies in random sets of filters.

For every galaxy of a batch a set of filters is drawn: those of a survey, of two surveys, or random
trapezoids, of which some bands may be missing.  A survey has a random depth, and each band a
random depth relative to it; fluxes have Gaussian noise of the stated error, of the stated error of
the calibration, and, for the bands of a second survey, of a common difference of the apertures.
Some galaxies contain the light of another one, and the errors of some bands are too small.

With filters that vary continuously in wavelength and width, a network can be used with filters that
it never saw; surveys that are left out of the training show how well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..inputs.filter_sets import calibration_errors, sdss_filters
from ..inputs.sed_features import FilterResponses, SEDComponents, SEDInference, filter_curve
from ..nn.noise import normal, uniform
from ..surveys import get_filter
from ..wavelengths import SED_GRID

__all__ = [
    "TRAINING_SETS",
    "BandObservation",
    "FilterBank",
    "FilterNoise",
    "FilterObserver",
    "FilterSet",
    "random_curve",
    "sets_with_other_filters",
]

_MAG = 2.5 / math.log(10)
#: Largest number of bands of a galaxy.
_MAX_BANDS = 12
#: Random filters of a batch.
_RANDOM_PER_BATCH = 120
#: Bands redward of this wavelength may be those of a shallow survey.
_INFRARED = 11_500.0
_SDSS = "sdss2010"


@dataclass(frozen=True)
class FilterSet:
    """Filters that are observed together.

    Attributes
    ----------
    filters : tuple of str
        Names of the filters of a first survey.
    second : tuple of str
        Names of the filters of a second survey with other apertures.
    weight : float
        Relative frequency.
    """

    filters: tuple[str, ...]
    second: tuple[str, ...] = ()
    weight: float = 1.0


def _names(group: str, bands: str) -> tuple[str, ...]:
    return tuple(f"{group}-{band}" for band in bands)


_UGRIZ = _names(_SDSS, "ugriz")
_TWOMASS = ("twomass-J", "twomass-H", "twomass-Ks")
_LSST = _names("lsst2023", "ugrizy")
_EUCLID = tuple(f"Euclid-{band}" for band in ("VIS", "Y", "J", "H"))
#: Filter sets of the training; Pan-STARRS and Bessell BVRI are left out.
TRAINING_SETS = (
    FilterSet(_UGRIZ, weight=0.30),
    FilterSet(_UGRIZ, _TWOMASS, weight=0.06),
    FilterSet(_names("decamDR1", "grz"), weight=0.06),
    FilterSet(_names("decamDR1", "griz"), weight=0.04),
    FilterSet(_names("decam2014", "grizY"), weight=0.04),
    FilterSet(_names("decam2014", "ugrizY"), weight=0.02),
    FilterSet((*_names("BASS", "gr"), "MzLS-z"), weight=0.04),
    FilterSet(_names("hsc2017", "grizy"), weight=0.05),
    FilterSet(_LSST, weight=0.07),
    FilterSet(_LSST, _EUCLID, weight=0.03),
    FilterSet(_EUCLID, weight=0.03),
    FilterSet(_names("decam2014", "grizY"), _TWOMASS, weight=0.02),
    FilterSet(_names("cfht_megacam", "ugriz"), weight=0.03),
    FilterSet(_names("decamDR1", "grz"), _TWOMASS, weight=0.02),
)


def sets_with_other_filters(filters: Collection[str]) -> tuple[FilterSet, ...]:
    """Return the filter sets of the training with at least one filter that is not among these.

    Parameters
    ----------
    filters : collection of str
        Names of filters.

    Returns
    -------
    tuple of FilterSet
    """
    return tuple(
        item for item in TRAINING_SETS if not {*item.filters, *item.second} <= set(filters)
    )


@dataclass(frozen=True)
class FilterNoise:
    """Noise and missing bands of galaxies in random sets of filters.

    Attributes
    ----------
    random_fraction : float
        Fraction of galaxies with 3 to 8 random filters.
    random_second : float
        Fraction of these whose infrared bands are those of a second survey.
    depth : tuple of float
        Range of the 5 sigma AB magnitude of a survey other than SDSS.
    depth_scatter : float
        Scatter of the depth of the bands, mag.
    shallow_fraction : float
        Fraction of bands in which the galaxy is hardly detected.
    infrared_depth : tuple of float
        Range of the depth of shallow infrared surveys such as 2MASS, for 60% of the galaxies.
    error_scale : tuple of float
        Range of the factor by which the errors of SDSS are multiplied.
    calibration_error : tuple of float
        Range of the calibration error of a survey other than SDSS, mag.
    sdss_calibration : tuple of float
        Calibration error of ugriz; the scatter that reproduces the colours of SDSS galaxies, see
        `~astrogenspec.training.augmentation.AugmentationConfig`, at least 0.005 mag.
    aperture_error : tuple of float
        Range of the scatter of the aperture differences of two surveys, mag.
    all_bands : float
        Fraction of galaxies with all bands; of the others each band is kept with probability 0.7.
    gri_bands : float
        Fraction of SDSS galaxies with g, r and i only.
    blend_fraction : float
        Fraction of galaxies with the light of another one, of 2.5% to 40% in r.
    outlier_fraction, outlier_factor : float
        Fraction of bands whose error is underestimated, and the factor.
    """

    random_fraction: float = 0.2
    random_second: float = 0.4
    depth: tuple[float, float] = (20.0, 26.0)
    depth_scatter: float = 0.5
    shallow_fraction: float = 0.03
    infrared_depth: tuple[float, float] = (16.5, 18.5)
    error_scale: tuple[float, float] = (0.8, 1.3)
    calibration_error: tuple[float, float] = (0.005, 0.04)
    sdss_calibration: tuple[float, ...] = (0.024, 0.015, 0.005, 0.012, 0.005)
    aperture_error: tuple[float, float] = (0.02, 0.3)
    all_bands: float = 0.65
    gri_bands: float = 0.15
    blend_fraction: float = 0.03
    outlier_fraction: float = 0.03
    outlier_factor: float = 4.0


@dataclass(frozen=True)
class BandObservation:
    """Observed fluxes of n galaxies, each in up to m filters of its own.

    Attributes
    ----------
    flux, error : Tensor, shape (n, m)
        nmgy; NaN where a band is missing.
    index : Tensor of int, shape (n, m)
        Index of the filter in the bank.
    calibration_error : Tensor, shape (n, m)
        Magnitudes.
    aperture_error : Tensor, shape (n, m, 1)
        Magnitudes; 0 for the bands of the first survey.
    """

    flux: Tensor
    error: Tensor
    index: Tensor
    calibration_error: Tensor
    aperture_error: Tensor

    def columns(self, chosen: Tensor) -> BandObservation:
        """Select bands of each galaxy by index, shape (n, k)."""
        flux, error, index, calibration = (
            values.gather(1, chosen)
            for values in (self.flux, self.error, self.index, self.calibration_error)
        )
        aperture = self.aperture_error[..., 0].gather(1, chosen)[..., None]
        return BandObservation(flux, error, index, calibration, aperture)


def random_curve(rng: np.random.Generator) -> np.ndarray:
    """Draw a filter: a trapezoid in log wavelength with a sloping top.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.

    Returns
    -------
    ndarray, shape (SED_GRID.size,)
        Centres are 3500 to 10,000 A, and to 2.2 micron for a third of the filters; full widths are
        4.6 to 35% of the wavelength.
    """
    low, high = math.log10(3500), math.log10(10_000)
    if rng.random() < 0.33:
        high = math.log10(22_000)
    centre = rng.uniform(low, high)
    half = 0.5 * rng.uniform(0.02, 0.15)
    soft = half * rng.uniform(0.05, 0.8)
    fine = SED_GRID.log_wavelength[:, None] + np.linspace(-0.5, 0.5, 20) * SED_GRID.step
    x = fine - centre
    curve = np.clip((half - np.abs(x)) / soft + 0.5, 0, 1) * (1 + rng.uniform(-0.6, 0.6) * x / half)
    curve = np.clip(curve, 0, None).mean(1)
    return curve / curve.sum()


class FilterObserver:
    """Features of simulated galaxies that are observed in random sets of filters.

    Parameters
    ----------
    bank : FilterBank
        Filters and noise.
    components : SEDComponents
        Components of the network.
    """

    def __init__(self, bank: FilterBank, components: SEDComponents) -> None:
        self.bank, self.components = bank, components
        self._responses = bank.responses(components)
        self._sdss = components.responses_of(sdss_filters())

    def __call__(self, sed: Tensor, sdss_error: Tensor, generator: torch.Generator) -> Tensor:
        """Observe galaxies and return the features of their photometry.

        Parameters
        ----------
        sed, sdss_error, generator
            As for `FilterBank.observe`.

        Returns
        -------
        features : Tensor, shape (n, len(components.layout))
        """
        return self.components.features(self.infer(sed, sdss_error, generator))

    def infer(self, sed: Tensor, sdss_error: Tensor, generator: torch.Generator) -> SEDInference:
        """Observe galaxies and infer the coefficients of their spectra.

        Parameters
        ----------
        sed, sdss_error, generator
            As for `FilterBank.observe`.

        Returns
        -------
        SEDInference
        """
        seen = self.bank.observe(sed, sdss_error, generator)
        responses = FilterResponses(
            self._responses.template[seen.index], self._responses.matrix[seen.index]
        )
        return self.components.infer(
            seen.flux, seen.error, responses, seen.calibration_error, seen.aperture_error
        )

    def measured_on_image(self, flux: Tensor, error: Tensor) -> Tensor:
        """Return the features of fluxes in ugriz that were measured on images of SDSS.

        Parameters
        ----------
        flux, error : Tensor, shape (n, 5)
            nmgy; NaN where missing.

        Returns
        -------
        features : Tensor, shape (n, len(components.layout))
        """
        calibration = torch.as_tensor(calibration_errors(sdss_filters()))
        inferred = self.components.infer(flux, error, self._sdss, calibration)
        return self.components.features(inferred, torch.ones(len(flux), dtype=torch.bool))


@dataclass(frozen=True)
class _Choice:
    """Filters of each galaxy of a batch, as indices of the bank; -1 for no filter."""

    index: Tensor
    second: Tensor
    is_sdss: Tensor


@dataclass
class FilterBank:
    """Curves of the filters of a training, and observation with them.

    Parameters
    ----------
    sets : sequence of FilterSet, optional
        Sets of filters.
    noise : FilterNoise, optional
        Noise and missing bands.
    n_random : int, optional
        Number of random filters.
    seed : int, optional
        Seed of the random filters.
    """

    sets: Sequence[FilterSet] = TRAINING_SETS
    noise: FilterNoise = field(default_factory=FilterNoise)
    n_random: int = 4000
    seed: int = 5

    def __post_init__(self) -> None:
        names = sorted({name for item in self.sets for name in (*item.filters, *item.second)})
        self.names = tuple(names)
        rng = np.random.default_rng(self.seed)
        curves = [filter_curve(get_filter(name)) for name in names]
        curves += [random_curve(rng) for _ in range(self.n_random)]
        self.curves = torch.tensor(np.array(curves), dtype=torch.float32)
        log_wavelength = torch.tensor(SED_GRID.log_wavelength, dtype=torch.float32)
        self._pivot = 10 ** (self.curves @ log_wavelength)
        width = max(len(item.filters) + len(item.second) for item in self.sets)
        self._index = torch.full((len(self.sets), max(width, _MAX_BANDS)), -1)
        self._second = torch.zeros_like(self._index, dtype=torch.bool)
        for k, item in enumerate(self.sets):
            both = (*item.filters, *item.second)
            self._index[k, : len(both)] = torch.tensor([names.index(name) for name in both])
            self._second[k, len(item.filters) : len(both)] = True
        weights = torch.tensor([item.weight for item in self.sets])
        share = 1 - self.noise.random_fraction
        self._weights = torch.cat(
            [weights / weights.sum() * share, torch.tensor([self.noise.random_fraction])]
        )
        self._is_sdss = torch.tensor(
            [*(item.filters[0].startswith(_SDSS) for item in self.sets), False]
        )

    def responses(self, components: SEDComponents) -> FilterResponses:
        """Compute the response of all filters to the components."""
        return components.responses(self.curves)

    def observe(
        self, sed: Tensor, sdss_error: Tensor, generator: torch.Generator
    ) -> BandObservation:
        """Observe galaxies, each in filters of its own.

        Parameters
        ----------
        sed : Tensor, shape (n, SED_GRID.size)
            Mean flux density in the bins of the grid [nmgy].
        sdss_error : Tensor, shape (n, 5)
            Standard error of the fluxes in SDSS ugriz [nmgy].
        generator : `torch.Generator`
            Source of randomness.

        Returns
        -------
        BandObservation
        """
        n_real, noise = len(self.names), self.noise
        extra = n_real + torch.randperm(self.n_random, generator=generator)[:_RANDOM_PER_BATCH]
        used = torch.cat([torch.arange(n_real), extra])
        blended = _blend(sed, noise, generator)
        choice = self._choose(len(sed), used, generator)
        mask = choice.index >= 0
        index = choice.index.clamp(min=0)
        flux = (blended @ self.curves[used].T).gather(1, index)
        error, calibration = self._errors(used[index], choice, sdss_error, generator)
        mask &= _kept(choice, noise, generator)
        mask[:, 0] |= ~mask.any(1)
        low, high = noise.aperture_error
        spread = low + (high - low) * uniform((len(sed), 1), generator)
        spread = spread * (uniform((len(sed), 1), generator) > 0.2)
        aperture = spread * choice.second
        offset = aperture * normal((len(sed), 1), generator)
        flux = flux * 10 ** (0.4 * offset)
        outlier = uniform(flux.shape, generator) < noise.outlier_fraction
        sigma = torch.hypot(error, calibration / _MAG * flux)
        sigma = sigma * torch.where(outlier, noise.outlier_factor, 1.0)
        flux = flux + sigma * normal(flux.shape, generator)
        observed = BandObservation(
            torch.where(mask, flux, torch.nan), error, used[index], calibration, aperture[..., None]
        )
        order = (~mask).float().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
        return observed.columns(order)

    def _choose(self, n: int, used: Tensor, generator: torch.Generator) -> _Choice:
        """Draw the filters of each galaxy, as indices of ``used``.

        Of random filters, those in the infrared may be the ones of a second survey.
        """
        noise, width, n_real = self.noise, self._index.shape[1], len(self.names)
        which = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        drawn = uniform((n, len(used) - n_real), generator).argsort(1)[:, :width] + n_real
        count = torch.randint(3, 9, (n, 1), generator=generator)
        drawn = torch.where(torch.arange(width) < count, drawn, -1)
        is_random = (which == len(self.sets))[:, None]
        known = which.clamp(max=len(self.sets) - 1)
        two = uniform((n, 1), generator) < noise.random_second
        index = torch.where(is_random, drawn, self._index[known])
        infrared = self._pivot[used][index] > _INFRARED
        second = torch.where(is_random, two & infrared, self._second[known])
        return _Choice(index, second, self._is_sdss[which])

    def _errors(
        self, bands: Tensor, choice: _Choice, sdss_error: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw flux errors [nmgy] and calibration errors [mag], shape (n, m)."""
        noise, shape = self.noise, tuple(bands.shape)
        one = (len(bands), 1)
        low, high = noise.depth
        depth = low + (high - low) * uniform(one, generator)
        depth = depth + noise.depth_scatter * normal(shape, generator)
        infrared = self._pivot[bands] > _INFRARED
        low, high = noise.infrared_depth
        shallow = low + (high - low) * uniform(one, generator)
        depth = torch.where(infrared & (uniform(one, generator) < 0.6), shallow, depth)
        faint = uniform(shape, generator) < noise.shallow_fraction
        depth = torch.where(faint, 14 + 4 * uniform(shape, generator), depth)
        error = 10 ** (0.4 * (22.5 - depth)) / 5
        calibration = _log_uniform(noise.calibration_error, one, generator)
        calibration = calibration * torch.exp(0.3 * normal(shape, generator))
        rows = choice.is_sdss
        scale = _log_uniform(noise.error_scale, (int(rows.sum()), 1), generator)
        n_sdss = sdss_error.shape[1]
        error[rows, :n_sdss] = sdss_error[rows] * scale
        calibration[rows, :n_sdss] = torch.tensor(noise.sdss_calibration)
        return error, calibration


def _log_uniform(limits: tuple[float, float], shape: tuple[int, ...], generator) -> Tensor:
    low, high = (math.log(value) for value in limits)
    return torch.exp(low + (high - low) * uniform(shape, generator))


def _blend(sed: Tensor, noise: FilterNoise, generator: torch.Generator) -> Tensor:
    """Add the light of the next galaxy of the batch to some galaxies."""
    chance = uniform((len(sed), 2), generator)
    ratio = 10 ** (-1.6 + 1.2 * chance[:, :1]) * (chance[:, 1:] < noise.blend_fraction)
    other = sed.roll(1, 0)
    level = sed.sum(1, keepdim=True) / other.sum(1, keepdim=True)
    return sed + ratio * level * other


def _kept(choice: _Choice, noise: FilterNoise, generator: torch.Generator) -> Tensor:
    """Draw which bands of each galaxy were observed, shape (n, m)."""
    n, m = choice.index.shape
    chance = uniform((n, 1), generator)
    kept = uniform((n, m), generator) < 0.7
    kept[torch.arange(n), torch.randint(3, (n,), generator=generator)] = True
    gri = torch.zeros(m, dtype=torch.bool)
    gri[1:4] = True
    only_gri = choice.is_sdss[:, None] & (chance > 1 - noise.gri_bands)
    return torch.where(only_gri, gri, kept | (chance < noise.all_bands))
