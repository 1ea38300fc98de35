"""Samples that may be too small to learn a recalibration from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import astropy.units as u

from ..warnings import AstroGenSpecWarning

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["TooFewGalaxiesError", "unless_too_few"]

Learnt = TypeVar("Learnt")


class TooFewGalaxiesError(ValueError):
    """A sample has too few true values to learn a recalibration from."""


def unless_too_few(
    learn: Callable[..., Learnt],
    posterior: Posterior,
    truth: Mapping[str, u.Quantity],
    **options: Any,
) -> Learnt | None:
    """Learn a recalibration for a sample of any size, without a word on what there is too little of.

    Parameters
    ----------
    learn : callable
        `Recalibration.fit <astrogenspec.calibration.Recalibration.fit>` or `~astrogenspec.calibration.cross_fitted`.
    posterior, truth, **options
        What it takes.

    Returns
    -------
    Recalibration, Posterior or None
        None if there are too few galaxies.
    """
    with warnings.catch_warnings():
        # A quantity, or a kind of input, that few galaxies have stays as it is.
        warnings.simplefilter("ignore", AstroGenSpecWarning)
        try:
            return learn(posterior, truth, **options)
        except TooFewGalaxiesError:
            return None
