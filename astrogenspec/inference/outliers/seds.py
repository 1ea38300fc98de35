r"""Tail probability of photometry in any filters under the population of SEDs.

With the linear model of `astrogenspec.inputs.sed_features`, fluxes in m bands have a Gaussian
distribution, and the squared distance of a galaxy from its mean is

.. math:: D^2 = \delta^T (N + A A^T)^{-1} \delta
          = (\delta - A \hat c)^T N^{-1} (\delta - A \hat c) + \hat c^T \hat c ,

with the relative fluxes :math:`\delta`, the covariance N of their errors, the response A of the
filters, and the coefficients :math:`\hat c`: the misfit, and the distance of the coefficients from
the mean of the population.  The result is the probability that a :math:`\chi^2_m` variate exceeds
:math:`D^2`.  The distribution of real and simulated galaxies has wider tails than a Gaussian, so
that limits are quantiles of the training set.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincc

from ...inputs.photometry import PhotometryBatch
from ...inputs.sed_features import SEDComponents, SEDInference, infer_photometry

__all__ = ["sed_log_tail", "sed_log_tails"]


def sed_log_tail(components: SEDComponents, photometry: PhotometryBatch) -> np.ndarray:
    """Compute the logarithm of the tail probability of galaxies.

    Parameters
    ----------
    components : SEDComponents
        Components of the spectra of the population.
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.

    Returns
    -------
    ndarray, shape (n,)
        log10 of the probability, at least -300; NaN for a galaxy with fewer than two bands.
    """
    return sed_log_tails(infer_photometry(components, photometry))


def sed_log_tails(inferred: SEDInference) -> np.ndarray:
    """Compute the logarithm of the tail probability of galaxies from their coefficients.

    Parameters
    ----------
    inferred : SEDInference
        n galaxies.

    Returns
    -------
    ndarray, shape (n,)
        See `sed_log_tail`.
    """
    n_bands = inferred.n_bands.double().numpy()
    distance = (inferred.misfit + inferred.mean.square().sum(1)).double().numpy()
    tail = gammaincc(np.maximum(n_bands, 1) / 2, distance / 2)
    return np.where(n_bands < 2, np.nan, np.log10(np.maximum(tail, 1e-300)))
