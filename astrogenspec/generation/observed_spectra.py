r"""Noise-free rest-frame spectra from observed ones, with which a network can be trained.

The logarithm of the continuum of a galaxy is modelled as a mean plus components with Gaussian
coefficients :math:`a`, and its narrow and broad emission lines as Gaussians of free flux
:math:`A`,

.. math:: f(\lambda) = \exp\left[\mu(\lambda) + \sum_k a_k\,b_k(\lambda)\right]
          + \sum_l A_l\,P_l(\lambda) + n(\lambda), \qquad
          a \sim N(0, \Sigma), \quad n \sim N(0, \mathrm{ivar}^{-1}) .

The components are the principal components of simulated spectra (`SpectrumPrior.fit`), followed by
those of the differences between observed spectra and their best fits (`SpectrumPrior.extend`),
which the simulations lack. Next to lines these differences are seen in galaxies without emission
only; their mean corrects the stellar absorption below the lines of all galaxies. The posterior of
the coefficients given the pixels of a spectrum, with their inverse variances and gaps, is Gaussian
to first order about its maximum, which Gauss-Newton iterations find. Line fluxes that are not
detected are drawn from their prior given the continuum, limited by the measurement.

Training on draws of this posterior, instead of observed spectra or best fits, is one step of
expectation maximisation with a generative model (Rozet et al. 2024, arXiv:2405.13712): the network
learns the distribution of noise-free spectra, and where a spectrum was not observed, or not
measured well, the draws differ as much as the prior allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from ..nn.records import TensorRecord
from ..wavelengths import (
    BROAD_DECREMENT,
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    LINES,
    REST,
    add_lines,
    line_index,
)
from .components import PER_BIN, Galaxy

__all__ = [
    "MIN_SIMULATED",
    "NoiseFree",
    "ObservedSpectra",
    "SpectrumPrior",
    "binned_residuals",
    "draw_noise_free",
    "expected_ivar",
    "factor_modes",
    "fit_prior",
    "fit_spectra",
    "fit_spectrum",
    "has_emission",
    "to_rest_grid",
]

#: Factor of the prior standard deviations of the coefficients, as observed galaxies need not be
#: like simulated ones.
_INFLATION = 1.3
#: Relative error of the model in each pixel, added in quadrature to the noise.
_MODEL_ERROR = 0.005
_N_ITERATIONS = 5
#: Maximum change of the logarithm of the continuum in an iteration.
_MAX_STEP = 0.5
#: Minimum of the logarithm (dex) of line fluxes per nmgy in r.
_MIN_LOG_LINE = -3.0
#: Number of good pixels over which inverse variances are compared with their median, and largest
#: ratio of those that are replaced by it; larger ones are sky lines and bad pixels.
_IVAR_WINDOW, _MAX_IVAR_RATIO = 25, 2.0
#: Rest-frame ranges (Angstrom) not used: interstellar Na I.
_UNUSED = ((5885.0, 5903.0),)
#: Distance from lines (Angstrom) within which residuals do not define components.
_NEAR_LINE = 12.0
#: Lines by which galaxies without emission are recognised, because stars hardly absorb there, and
#: their largest equivalent width (Angstrom).
_EMISSION, _MAX_WIDTH = ("Halpha", "NII6585", "OIII5008"), 0.5
#: Relative error of a bin of residuals, and largest residual.
_BIN_ERROR, _MAX_RESIDUAL = 0.003, 0.3
#: Factor of the standard deviations of the components of residuals.
_RESIDUAL_INFLATION = 1.5
#: Number of pseudo-galaxies without residuals, which shrink the mean of those of few galaxies.
_PSEUDO_GALAXIES = 10
#: Smallest number of simulated galaxies of a prior.
MIN_SIMULATED = 20
#: Standard deviations of components, relative to the largest one or in each pixel, below which they
#: are rounding errors.
_MIN_RELATIVE_SCALE = 1e-5
#: Minimum signal-to-noise ratio of broad Halpha.
_MIN_BROAD_SNR = 5.0


@dataclass(frozen=True)
class ObservedSpectra(TensorRecord):
    """Observed spectra of n galaxies at rest-frame wavelengths.

    Attributes
    ----------
    flux, ivar : Tensor, shape (n, 6400)
        Flux density on `~astrogenspec.wavelengths.REST`, 1e-17 erg/s/cm2/A as observed, corrected
        for Galactic extinction, and its inverse variance; ``ivar`` is 0 where missing.
    redshift : Tensor, shape (n,)
        Redshift.
    line_velocity : Tensor, shape (n,)
        Velocity dispersion of narrow lines (km/s).
    broad : Tensor of bool, shape (n,)
        Whether broad Halpha and Hbeta are fitted.
    """

    flux: Tensor
    ivar: Tensor
    redshift: Tensor
    line_velocity: Tensor
    broad: Tensor


def to_rest_grid(
    log_wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, redshift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shift spectra on a grid of 1e-4 dex to the rest frame.

    Flux densities are not rescaled. They are interpolated with a Catmull-Rom spline, inverse
    variances linearly; a pixel is missing if one of the four it depends on is.

    Parameters
    ----------
    log_wavelength : ndarray, shape (m,)
        log10 of the observed vacuum wavelengths (Angstrom), in steps of 1e-4 dex.
    flux, ivar : ndarray, shape (n, m)
        Flux densities and inverse variances; 0 or less where missing.
    redshift : ndarray, shape (n,)
        Redshifts.

    Returns
    -------
    flux, ivar : ndarray of float32, shape (n, 6400)

    Raises
    ------
    ValueError
        If the grid has another step.
    """
    if not np.allclose(np.diff(log_wavelength), REST.step, rtol=1e-3):
        raise ValueError(
            f"log_wavelength has steps of {np.median(np.diff(log_wavelength)):.3g} dex, but "
            f"{REST.step:g} is expected; resample the spectra first."
        )
    n, m = flux.shape
    moved = np.zeros((2, n, REST.size), np.float32)
    for row in range(n):
        first = (REST.start + np.log10(1 + redshift[row]) - log_wavelength[0]) / REST.step
        whole = int(np.floor(first))
        t = first - whole
        weights = (
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        )
        pixel = whole + np.arange(REST.size)
        inside = (pixel >= 1) & (pixel < m - 2)
        pixel = pixel[inside]
        good = np.ones(len(pixel), bool)
        value = np.zeros(len(pixel))
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            value += weight * flux[row, pixel + offset]
            good &= ivar[row, pixel + offset] > 0
        inverse = (1 - t) * ivar[row, pixel] + t * ivar[row, pixel + 1]
        moved[0, row, inside] = np.where(good, value, 0.0)
        moved[1, row, inside] = np.where(good, inverse, 0.0)
    return moved[0], moved[1]


def expected_ivar(ivar: np.ndarray) -> np.ndarray:
    """Remove from inverse variances what they owe to the noise of their own pixel.

    Photon noise is estimated from the counts of a pixel, so that pixels in which the noise is low
    by chance have larger inverse variances, and weighted means of fluxes are too low. An inverse
    variance is replaced by the median of its neighbours, unless it differs by a factor of 2 or
    more.

    Parameters
    ----------
    ivar : ndarray, shape (m,)
        Inverse variances of one spectrum; 0 where missing.

    Returns
    -------
    ndarray, shape (m,)
    """
    result = np.array(ivar, float)
    good = np.flatnonzero(result > 0)
    if len(good) < _IVAR_WINDOW:
        return result
    seen = result[good]
    smooth = median_filter(seen, _IVAR_WINDOW, mode="nearest")
    alike = np.abs(np.log(seen / smooth)) < np.log(_MAX_IVAR_RATIO)
    result[good] = np.where(alike, smooth, seen)
    return result


@dataclass
class SpectrumPrior:
    """Gaussian prior of the logarithms of continua and of narrow-line fluxes.

    Attributes
    ----------
    mean : ndarray, shape (6400,)
        Mean of the logarithm of the continuum per nmgy in r.
    basis : ndarray, shape (k, 6400)
        Components of the logarithm.
    scale : ndarray, shape (k,)
        Standard deviations of their coefficients.
    line_mean : ndarray, shape (17,)
        Mean log10 line flux per nmgy in r of a galaxy with all coefficients 0.
    line_slope : ndarray, shape (k, 17)
        Change of log10 line fluxes per coefficient.
    line_covariance : ndarray, shape (17, 17)
        Covariance of log10 line fluxes about the regression.
    n_simulated : int
        Number of components from simulations.
    """

    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    line_mean: np.ndarray
    line_slope: np.ndarray
    line_covariance: np.ndarray
    n_simulated: int

    @classmethod
    def fit(cls, galaxies: Galaxy, n_components: int = 50) -> SpectrumPrior:
        """Compute the prior from simulated galaxies at full resolution.

        Parameters
        ----------
        galaxies : Galaxy
            At least a few thousand galaxies.
        n_components : int
            Maximum number of principal components; fewer if the galaxies differ in fewer ways.

        Returns
        -------
        SpectrumPrior

        Raises
        ------
        ValueError
            If there are fewer than `MIN_SIMULATED` galaxies, or all have the same spectrum.
        """
        if len(galaxies) < MIN_SIMULATED:
            raise ValueError(
                f"there are {len(galaxies)} simulated spectra for the prior of noise-free spectra; "
                f"at least {MIN_SIMULATED}, better a few thousand, are needed."
            )
        logs = galaxies.continuum.float().clamp_min(1e-5).log()
        mean = logs.mean(0)
        logs -= mean
        q = min(n_components + 10, len(logs))
        _, scale, basis = torch.svd_lowrank(logs, q=q, niter=3)
        # Differences of a part in 100,000 in all pixels are rounding errors.
        rounding = _MIN_RELATIVE_SCALE * np.sqrt(logs.numel())
        distinct = scale > max(_MIN_RELATIVE_SCALE * float(scale[0]), rounding)
        n_components = min(n_components, int(distinct.sum()))
        if not n_components:
            raise ValueError(
                "all simulated spectra are alike, so that they define no prior of noise-free "
                "spectra; give different galaxies."
            )
        basis = basis.T[:n_components]
        coefficients = (logs @ basis.T).double().numpy()
        prior = cls(
            mean.double().numpy(),
            basis.double().numpy(),
            _INFLATION * scale[:n_components].double().numpy() / np.sqrt(len(logs)),
            np.zeros(0),
            np.zeros(0),
            np.zeros(0),
            n_components,
        )
        lines = galaxies.narrow.clamp_min(10**_MIN_LOG_LINE).log10().double().numpy()
        prior.fit_lines(coefficients, lines, inflation=_INFLATION)
        return prior

    def fit_lines(
        self, coefficients: np.ndarray, lines: np.ndarray, *, inflation: float = 1.0
    ) -> None:
        """Compute the prior of the lines given the continuum.

        Parameters
        ----------
        coefficients : ndarray, shape (n, k)
            Coefficients of the continuum; ridge regression, in units of their scales.
        lines : ndarray, shape (n, 17)
            log10 of line fluxes per nmgy in r.
        inflation : float
            Factor of the standard deviations.
        """
        x = np.column_stack(
            [np.ones(len(lines)), coefficients / self.scale[: coefficients.shape[1]]]
        )
        ridge = 10.0 * np.eye(x.shape[1])
        ridge[0, 0] = 0
        slope = np.linalg.solve(x.T @ x + ridge, x.T @ lines)
        residual = lines - x @ slope
        self.line_mean = slope[0]
        self.line_slope = slope[1:] / self.scale[: coefficients.shape[1], None]
        floor = 0.05**2 * np.eye(lines.shape[1])
        self.line_covariance = inflation**2 * (residual.T @ residual) / len(lines) + floor

    def correct(self, residual: np.ndarray, weight: np.ndarray) -> None:
        """Add the mean of residuals to that of the continua.

        Parameters
        ----------
        residual, weight : ndarray, shape (n, 800)
            Binned logarithm of observed minus fitted continua, and inverse variances. The mean is
            shrunk towards 0 where few galaxies were observed.
        """
        total, n = weight.sum(0), (weight > 0).sum(0)
        sums = (weight * residual).sum(0)
        mean = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
        self.mean = self.mean + _spread(mean * n / (n + _PSEUDO_GALAXIES))

    def extend(self, residual: np.ndarray, weight: np.ndarray, n_components: int) -> None:
        """Append principal components of residuals with noise and gaps.

        The components maximise the likelihood of a factor model, found by expectation
        maximisation; they are zero where no spectrum was observed.

        Parameters
        ----------
        residual, weight : ndarray, shape (n, 800)
            Binned logarithm of observed minus fitted continua, and inverse variances.
        n_components : int
            Maximum number of components. There are at most as many as spectra, and none where
            spectra do not differ from their fits.
        """
        used = (weight > 0).any(axis=1)
        n_components = min(n_components, int(used.sum()))
        if not n_components:
            return
        modes = factor_modes(residual[used], weight[used], n_components)
        pixels = np.stack([_spread(mode) for mode in modes])
        norm = np.linalg.norm(pixels, axis=1)
        rounding = _MIN_RELATIVE_SCALE * np.sqrt(pixels.shape[1])
        real = norm > max(_MIN_RELATIVE_SCALE * norm.max(), rounding)
        pixels, norm = pixels[real], norm[real]
        self.basis = np.vstack([self.basis, pixels / norm[:, None]])
        self.scale = np.append(self.scale, _RESIDUAL_INFLATION * norm)
        padding = np.zeros((len(norm), self.line_slope.shape[1]))
        self.line_slope = np.vstack([self.line_slope, padding])


def _spread(bins: np.ndarray) -> np.ndarray:
    """Interpolate binned values linearly to the pixels of `REST`."""
    centre = PER_BIN * np.arange(len(bins)) + 0.5 * (PER_BIN - 1)
    return np.interp(np.arange(PER_BIN * len(bins)), centre, bins)


def factor_modes(
    residual: np.ndarray, weight: np.ndarray, n_modes: int, n_iterations: int = 40
) -> np.ndarray:
    """Fit modes to residuals with noise and gaps: probabilistic principal components.

    Parameters
    ----------
    residual, weight : ndarray, shape (n, m)
        Residuals and inverse variances, 0 where missing.
    n_modes : int
        Number of modes, at most n.
    n_iterations : int
        Number of steps of expectation maximisation.

    Returns
    -------
    ndarray, shape (n_modes, m)
        Orthogonal modes, each multiplied by the standard deviation of its coefficient.
    """
    known = weight.sum(0) > 0
    filled = np.where(weight > 0, residual, 0.0)
    modes = np.linalg.svd(filled, full_matrices=False)[2][:n_modes] * np.std(filled)
    eye = np.eye(n_modes)
    for _ in range(n_iterations):
        precision = np.einsum("km,nm,lm->nkl", modes, weight, modes, optimize=True) + eye
        covariance = np.linalg.inv(precision)
        mean = np.einsum("nkl,lm,nm->nk", covariance, modes, weight * filled, optimize=True)
        second = mean[:, :, None] * mean[:, None] + covariance
        left = np.einsum("nm,nkl->mkl", weight, second, optimize=True) + 1e-6 * eye
        right = np.einsum("nm,nk->mk", weight * filled, mean, optimize=True)
        modes = np.linalg.solve(left, right[..., None])[..., 0].T
    modes[:, ~known] = 0.0
    # Rotate to the principal axes of the second moments of the coefficients.
    root = np.linalg.cholesky(second.mean(0) + 1e-12 * eye)
    _, size, axes = np.linalg.svd(root.T @ modes, full_matrices=False)
    return size[:, None] * axes


@dataclass
class NoiseFree:
    """Gaussian posterior of the noise-free spectrum of one galaxy.

    Attributes
    ----------
    coefficients : ndarray, shape (k,)
        Coefficients of the continuum.
    covariance : ndarray, shape (k, k)
        Their covariance.
    lines, line_covariance : ndarray, shape (17,), (17, 17)
        Fluxes of narrow lines, not limited to positive values, and their covariance; zero if not
        fitted.
    line_slope : ndarray, shape (17, k)
        Change of the expected line fluxes per change of a coefficient.
    line_scatter : ndarray, shape (17, 17)
        Covariance of the line fluxes for given coefficients.
    broad, broad_error : float
        Flux of broad Halpha and its error; zero if not fitted.
    emission : ndarray, shape (6400,)
        Spectrum of the lines.
    chi2 : float
        Reduced chi squared.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    lines: np.ndarray
    line_covariance: np.ndarray
    line_slope: np.ndarray
    line_scatter: np.ndarray
    broad: float
    broad_error: float
    emission: np.ndarray
    chi2: float


def fit_spectrum(
    prior: SpectrumPrior, spectra: ObservedSpectra, *, with_lines: bool = True
) -> NoiseFree:
    """Fit the model to one spectrum.

    Parameters
    ----------
    prior : SpectrumPrior
    spectra : ObservedSpectra
        One galaxy.
    with_lines : bool
        Whether the galaxy may have emission lines.

    Returns
    -------
    NoiseFree
        Fluxes in units of the spectrum; the coefficients include its flux scale, for the first
        component of the fit is a constant.
    """
    flux, ivar = (values[0].double().numpy().copy() for values in (spectra.flux, spectra.ivar))
    ivar = expected_ivar(ivar)
    for low, high in _UNUSED:
        ivar[(low < REST.wavelength) & (high > REST.wavelength)] = 0.0
    used = ivar > 0
    flux, ivar, mean = flux[used], ivar[used], prior.mean[used]
    # A free constant takes up the flux scale.
    basis = np.vstack([np.ones(used.sum()), prior.basis[:, used]])
    precision = np.append(1e-4, prior.scale**-2.0)
    whole_profiles = _profiles(spectra) if with_lines else np.zeros((0, REST.size))
    profiles = whole_profiles[:, used]
    k = len(basis)
    x = np.zeros(k)
    x[0] = np.median(np.log(np.maximum(flux, 1e-3 * np.median(flux))) - mean)
    lines = np.zeros(len(profiles))
    for _ in range(_N_ITERATIONS):
        continuum = np.exp(np.clip(mean + x @ basis, -20, 20))
        weight = 1 / (1 / ivar + (_MODEL_ERROR * continuum) ** 2)
        design = np.vstack([continuum * basis, profiles])
        normal = (design * weight) @ design.T
        normal[np.arange(k), np.arange(k)] += precision
        normal[np.arange(k, len(normal)), np.arange(k, len(normal))] += 1e-12
        right = design @ (weight * (flux - continuum))
        right[:k] += normal[:k, :k] @ x - precision * x
        right[k:] += normal[k:, :k] @ x
        solution = np.linalg.solve(normal, right)
        step = solution[:k] - x
        largest = np.abs(step @ basis).max()
        x = x + step * min(1.0, _MAX_STEP / max(largest, 1e-9))
        lines = solution[k:]
    covariance = np.linalg.inv(normal)
    continuum = np.exp(np.clip(mean + x @ basis, -20, 20))
    chi2 = float(np.mean(weight * (flux - continuum - lines @ profiles) ** 2))
    n = len(LINE_NAMES)
    has_broad = len(profiles) > n
    if not with_lines:
        zero = np.zeros(n), np.zeros((n, n)), np.zeros((n, k)), np.zeros((n, n))
        return NoiseFree(x, covariance, *zero, 0.0, 0.0, np.zeros(REST.size), chi2)
    scatter = np.linalg.inv(normal[k:, k:])
    return NoiseFree(
        x,
        covariance[:k, :k],
        lines[:n],
        covariance[k : k + n, k : k + n],
        -(scatter @ normal[k:, :k])[:n],
        scatter[:n, :n],
        float(lines[n]) if has_broad else 0.0,
        float(np.sqrt(covariance[-1, -1])) if has_broad else 0.0,
        lines @ whole_profiles,
        chi2,
    )


def _profiles(spectra: ObservedSpectra) -> np.ndarray:
    """Return profiles of unit flux of the narrow lines, and of broad lines if they are fitted."""
    n = len(LINE_NAMES)
    zero, stretch = torch.zeros(n), 1 + spectra.redshift
    empty = torch.zeros(n, REST.size)
    narrow = add_lines(
        empty, REST, LINE_NAMES, torch.eye(n) / stretch, spectra.line_velocity.expand(n), zero
    )
    parts = [narrow]
    if bool(spectra.broad[0]):
        ratio = torch.tensor([[1 / BROAD_DECREMENT, 1.0]]) / stretch
        velocity = torch.tensor([BROAD_VELOCITY])
        parts.append(add_lines(empty[:1], REST, BROAD_LINES, ratio, velocity, zero[:1]))
    return torch.cat(parts).double().numpy()


def fit_spectra(
    prior: SpectrumPrior, spectra: ObservedSpectra, emission: Sequence[bool] | None = None
) -> list[NoiseFree | None]:
    """Fit every spectrum; see `fit_spectrum`.

    None for one without pixels, or whose equations have no solution.

    Parameters
    ----------
    prior : SpectrumPrior
    spectra : ObservedSpectra
    emission : sequence of bool, shape (n,), optional
        Whether each galaxy may have emission lines; by default all.
    """
    with_lines = [True] * len(spectra) if emission is None else emission
    fits: list[NoiseFree | None] = []
    for k, lines in enumerate(with_lines):
        try:
            seen = bool((spectra.ivar[k] > 0).any())
            one = spectra[k : k + 1]
            fits.append(fit_spectrum(prior, one, with_lines=lines) if seen else None)
        except np.linalg.LinAlgError:
            fits.append(None)
    return fits


def has_emission(prior: SpectrumPrior, fitted: NoiseFree | None) -> bool:
    """Return whether Halpha, [N II] or [O III] are wider than 0.5 A, or were not observed."""
    if fitted is None or fitted.broad:
        return True
    for name in _EMISSION:
        line, pixel = line_index(name), np.searchsorted(REST.wavelength, LINES[name])
        level = np.exp(
            prior.mean[pixel]
            + fitted.coefficients[0]
            + fitted.coefficients[1:] @ prior.basis[:, pixel]
        )
        error = np.sqrt(fitted.line_covariance[line, line])
        if max(abs(fitted.lines[line]), error) > _MAX_WIDTH * level:
            return True
    return False


def binned_residuals(
    prior: SpectrumPrior,
    spectra: ObservedSpectra,
    fits: Sequence[NoiseFree | None],
    emission: Sequence[bool] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return relative residuals of fits in bins, and their inverse variances.

    Parameters
    ----------
    prior : SpectrumPrior
    spectra : ObservedSpectra
    fits : sequence of NoiseFree or None
    emission : sequence of bool, shape (n,), optional
        Whether each galaxy may have emission lines, next to which residuals are not used; by
        default all.

    Returns
    -------
    residual, weight : ndarray, shape (n, 800)
    """
    near = np.any([np.abs(REST.wavelength - line) < _NEAR_LINE for line in LINES.values()], axis=0)
    with_lines = [True] * len(fits) if emission is None else emission
    residual, weight = np.zeros((2, len(fits), REST.size // PER_BIN))
    for row, (fitted, lines) in enumerate(zip(fits, with_lines, strict=True)):
        if fitted is None:
            continue
        continuum = np.exp(
            prior.mean + fitted.coefficients[0] + fitted.coefficients[1:] @ prior.basis
        )
        inverse = expected_ivar(spectra.ivar[row].numpy()) * continuum**2
        inverse = np.where(near & lines, 0.0, inverse)
        ratio = (spectra.flux[row].numpy() - fitted.emission) / continuum - 1
        total = inverse.reshape(-1, PER_BIN).sum(1)
        sums = (inverse * ratio).reshape(-1, PER_BIN).sum(1)
        residual[row] = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
        weight[row] = total / (1 + total * _BIN_ERROR**2)
    return np.clip(residual, -_MAX_RESIDUAL, _MAX_RESIDUAL), weight


def fit_prior(
    simulated: Galaxy, spectra: ObservedSpectra, n_simulated: int = 50, n_residual: int = 12
) -> tuple[SpectrumPrior, list[NoiseFree | None]]:
    """Compute the prior from simulated and observed galaxies, and fit the observed ones with it.

    Parameters
    ----------
    simulated : Galaxy
        Simulated galaxies at full resolution.
    spectra : ObservedSpectra
        Observed spectra.
    n_simulated, n_residual : int
        Maximum number of components from simulated galaxies, and from the residuals of observed
        ones. A few or similar spectra give fewer.

    Returns
    -------
    prior : SpectrumPrior
    fits : list of NoiseFree or None
        One per observed galaxy; None for one whose equations have no solution.

    Raises
    ------
    ValueError
        If the simulated galaxies are too few, or all alike.
    """
    prior = SpectrumPrior.fit(simulated, n_simulated)
    emission = [has_emission(prior, fitted) for fitted in fit_spectra(prior, spectra)]
    fits = fit_spectra(prior, spectra, emission)
    prior.correct(*binned_residuals(prior, spectra, fits, emission))
    prior.extend(*binned_residuals(prior, spectra, fits, emission), n_residual)
    return prior, fit_spectra(prior, spectra)


def draw_noise_free(
    prior: SpectrumPrior,
    fitted: NoiseFree,
    dispersion: float,
    redshift: float,
    r_band: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> tuple[Galaxy, np.ndarray]:
    """Draw noise-free spectra of one galaxy from their posterior.

    Parameters
    ----------
    prior : SpectrumPrior
    fitted : NoiseFree
        Fit of the galaxy.
    dispersion : float
        Velocity dispersion of the stars (km/s).
    redshift : float
        Redshift.
    r_band : ndarray, shape (6400,)
        Weights of the flux in r (nmgy, on the system of the survey) of spectra on `REST` at this
        redshift.
    n : int
        Number of draws.
    rng : `numpy.random.Generator`

    Returns
    -------
    galaxies : Galaxy
        Spectra per nmgy in r. The fraction of light in the fibre is NaN.
    flux : ndarray, shape (n,)
        Flux in r (nmgy).
    """
    emission = fitted.emission
    root = np.linalg.cholesky(fitted.covariance + 1e-12 * np.eye(len(fitted.covariance)))
    x = fitted.coefficients + rng.normal(size=(n, len(root))) @ root.T
    continuum = np.exp(prior.mean + x[:, :1] + x[:, 1:] @ prior.basis)
    scale = (continuum + emission) @ r_band
    lines = np.stack(
        [_draw_lines(prior, fitted, row, factor, rng) for row, factor in zip(x, scale, strict=True)]
    )
    broad = fitted.broad if fitted.broad > _MIN_BROAD_SNR * fitted.broad_error else 0.0
    tensor = lambda values: torch.as_tensor(values, dtype=torch.float32)  # noqa: E731
    full = torch.full((n,), 0.0)
    galaxies = Galaxy(
        continuum=tensor(continuum / scale[:, None]),
        narrow=tensor(10**lines),
        broad=tensor(broad / scale),
        redshift=full + redshift,
        dispersion=full + dispersion,
        fibre_fraction=full + torch.nan,
    )
    return galaxies, scale


def _draw_lines(
    prior: SpectrumPrior,
    fitted: NoiseFree,
    coefficients: np.ndarray,
    scale: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw log10 line fluxes per nmgy given their measurement and the continuum (Laplace)."""
    expected = prior.line_mean + coefficients[1:] @ prior.line_slope
    inverse = np.linalg.inv(prior.line_covariance)
    change = fitted.line_slope @ (coefficients - fitted.coefficients)
    measured = (fitted.lines + change) / scale
    noise = np.linalg.inv(fitted.line_scatter / scale**2 + np.diag((0.02 * measured) ** 2 + 1e-8))
    # Lines outside of the spectrum have no measurement.
    y = np.where(measured > 0, np.log10(np.maximum(measured, 1e-3)), expected)
    variance = np.diag(fitted.line_scatter) / scale**2
    y = np.where(variance < (0.3 * np.maximum(measured, 1e-9)) ** 2, y, np.minimum(expected, 3.0))
    for _ in range(8):
        value = 10**y
        jacobian = np.log(10) * value
        hessian = inverse + jacobian[:, None] * noise * jacobian
        gradient = inverse @ (y - expected) - jacobian * (noise @ (measured - value))
        y = y - np.clip(np.linalg.solve(hessian, gradient), -0.5, 0.5)
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    drawn = y + root @ rng.normal(size=len(y))
    return np.clip(drawn, _MIN_LOG_LINE, 4.0)
