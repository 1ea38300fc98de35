"""Imaging surveys: bands, filters, pixel scales and extinction coefficients."""

from __future__ import annotations

from .survey import BANDS, CUTOUT_SIZE, SDSS, Survey, get_survey

__all__ = ["BANDS", "CUTOUT_SIZE", "SDSS", "Survey", "get_survey"]
