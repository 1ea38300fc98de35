"""The warning class of the package."""

from __future__ import annotations

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["AstroGenSpecWarning"]


class AstroGenSpecWarning(AstropyUserWarning):
    """Warn of a default or an approximation that changes the numbers."""
