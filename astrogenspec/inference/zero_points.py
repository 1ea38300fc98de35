r"""Zero points of photometry, estimated from galaxies of known redshift.

A magnitude offset :math:`o_b` of each band b, observed minus true, is estimated by maximising

.. math:: \sum_i \ln \left[ (1 - \epsilon)\, p(z_i \mid f_i 10^{0.4 o})
          + \epsilon\, p_0(z_i) \right] - \sum_b \frac{o_b^2}{2 \sigma^2} ,

where :math:`p(z \mid f)` is the posterior density of the network for the fluxes :math:`f`,
:math:`p_0` the distribution of redshifts in the training set, with which a fraction
:math:`\epsilon` of wrong redshifts and unusual galaxies does no harm, and :math:`\sigma` the
standard deviation of a Gaussian prior of the offsets.  For galaxies like those of the training set,
the expectation of the sum is largest at the true offsets: with any others, the posteriors are those
of other galaxies, and the expected density of the true redshifts is smaller.

The maximum is found by steps :math:`H^{-1} g` of the gradient :math:`g`, where the information
:math:`H` is that of the prior plus the covariance of the gradients of single galaxies (Berndt et
al. 1974 [1]_); the errors of the offsets are the square roots of the diagonal of :math:`H^{-1}`.
Galaxies that differ from the training set bias the offsets like wrong zero points, so that offsets
estimate differences between observations and simulations, whatever their cause.

References
----------
.. [1] Berndt, E. K., Hall, B. H., Hall, R. E. & Hausman, J. A. 1974, Annals of Economic and Social
   Measurement, 3, 653.
"""

from __future__ import annotations

import math

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from torch import Tensor

from ..inputs.features import PhotometryReader, make_inputs
from ..inputs.photometry import PhotometryBatch
from .flows import ChainPosterior
from .network import PropertyNetwork

__all__ = ["MIN_GALAXIES", "estimate_offsets"]

#: Minimum number of galaxies.
MIN_GALAXIES = 20
#: Fraction of galaxies whose redshift is that of any galaxy of the training set.
_OUTLIERS = 0.02
#: Difference of the numerical derivatives, largest step, and convergence, mag.
_DIFFERENCE, _MAX_STEP, _TOLERANCE = 0.01, 0.05, 5e-4
_MAX_ITERATIONS = 40
_MAX_HALVINGS = 6
#: Galaxies that are evaluated at once.
_CHUNK = 8192


class _Likelihood:
    """Log densities of known redshifts as a function of the offsets of the bands.

    Parameters
    ----------
    network : PropertyNetwork
        Network.
    photometry : PhotometryBatch
        Photometry of n galaxies.
    redshift : ndarray, shape (n,)
        Known redshifts, inside of the support of the network.
    device : torch.device
        Device of the network.
    """

    def __init__(
        self,
        network: PropertyNetwork,
        photometry: PhotometryBatch,
        redshift: np.ndarray,
        device: torch.device,
    ) -> None:
        self._network, self._device = network, device
        self._reader = PhotometryReader(photometry, network.components)
        self._inputs = make_inputs(None, photometry, components=network.components).to(device)
        flux, error = photometry.dereddened()
        self._flux, self._error = torch.as_tensor(flux), torch.as_tensor(error)
        self._measured = torch.as_tensor(np.asarray(photometry.measured, dtype=bool))
        self._redshift = torch.as_tensor(redshift, dtype=torch.float32, device=device)[:, None]

    @torch.inference_mode()
    def __call__(self, offset: np.ndarray) -> np.ndarray:
        """Return the log density of each galaxy, shape (n,), for offsets of shape (m,)."""
        factor = torch.as_tensor(10 ** (0.4 * offset))
        parts = []
        for rows in torch.arange(len(self._flux)).split(_CHUNK):
            features = self._reader(
                self._flux[rows] * factor, self._error[rows] * factor, self._measured[rows]
            )
            inputs = self._inputs[rows.to(self._device)]
            inputs = type(inputs)(
                None,
                None,
                inputs.image_bands,
                inputs.image_noise,
                features.to(self._device),
                inputs.morphology,
            )
            parts.append(self._log_density(inputs, self._redshift[rows.to(self._device)]))
        return torch.cat(parts).double().cpu().numpy()

    def _log_density(self, inputs, redshift: Tensor) -> Tensor:
        """Return log densities of standardised redshifts, with that of outliers."""
        posterior = self._network.posterior(inputs)
        if isinstance(posterior, ChainPosterior):
            density = posterior.prefix_log_prob(redshift)
        else:
            heads = torch.stack([head.prefix_log_prob(redshift) for head in posterior.components])
            density = (heads + posterior.weight.log()).logsumexp(0)
        chain = self._network.chain
        theta = chain.middle.repeat(len(redshift), 1)
        theta[:, :1] = redshift
        standardised = chain.standardise(theta)[0][:, 0]
        population = -0.5 * standardised.square() - 0.5 * math.log(2 * math.pi)
        return torch.logaddexp(density + math.log1p(-_OUTLIERS), population + math.log(_OUTLIERS))

    def gradients(self, offset: np.ndarray) -> np.ndarray:
        """Return the derivatives of the log density of each galaxy, shape (n, m), per mag."""
        columns = []
        for k in range(len(offset)):
            step = np.zeros(len(offset))
            step[k] = _DIFFERENCE
            columns.append((self(offset + step) - self(offset - step)) / (2 * _DIFFERENCE))
        return np.stack(columns, axis=1)


def estimate_offsets(
    network: PropertyNetwork,
    photometry: PhotometryBatch,
    redshift: np.ndarray,
    *,
    prior: float,
    device: torch.device,
) -> QTable:
    """Estimate the offsets of the zero points of the bands.

    Parameters
    ----------
    network : PropertyNetwork
        Network.
    photometry : PhotometryBatch
        Photometry of n galaxies.
    redshift : ndarray, shape (n,)
        Known redshifts, inside of the support of the network; NaN where unknown.
    prior : float
        Standard deviation of the Gaussian prior of the offsets, mag.
    device : torch.device
        Device of the network.

    Returns
    -------
    QTable
        One row for each band: ``band``, ``filter``, ``offset``, ``error`` and number ``n`` of
        galaxies.

    Raises
    ------
    ValueError
        If there are fewer than `MIN_GALAXIES` galaxies.
    """
    good = np.isfinite(redshift) & photometry.bands_present.any(axis=1)
    if good.sum() < MIN_GALAXIES:
        raise ValueError(
            f"only {good.sum()} galaxies have photometry and a redshift; the estimate of zero "
            f"points needs at least {MIN_GALAXIES}."
        )
    photometry = photometry[good]
    likelihood = _Likelihood(network, photometry, redshift[good], device)
    offset, information = _maximum(likelihood, len(photometry.filters), prior)
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    return QTable(
        {
            "band": list(photometry.bands),
            "filter": [each.name for each in photometry.filters],
            "offset": offset * u.mag,
            "error": error * u.mag,
            "n": photometry.bands_present.sum(axis=0),
        },
        meta={"prior": prior, "n_galaxies": int(good.sum())},
    )


def _maximum(likelihood: _Likelihood, m: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets with the highest density, shape (m,), and the information there."""

    def objective(offset: np.ndarray) -> float:
        return float(likelihood(offset).sum() - 0.5 * np.square(offset / prior).sum())

    offset, value = np.zeros(m), objective(np.zeros(m))
    for _ in range(_MAX_ITERATIONS):
        each = likelihood.gradients(offset)
        gradient = each.sum(axis=0) - offset / prior**2
        deviation = each - each.mean(axis=0)
        information = deviation.T @ deviation + np.eye(m) / prior**2
        step = np.linalg.solve(information, gradient)
        step *= min(1.0, _MAX_STEP / np.abs(step).max(initial=1e-12))
        for _ in range(_MAX_HALVINGS):
            trial = objective(offset + step)
            if trial > value:
                break
            step /= 2
        else:
            break
        offset, value = offset + step, trial
        if np.abs(step).max() < _TOLERANCE:
            break
    return offset, information
