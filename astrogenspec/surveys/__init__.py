"""Imaging surveys: bands, filters, pixel scales and extinction coefficients."""

from __future__ import annotations

from .survey import BANDS, SDSS, STAMP_SIZE, Survey, get_survey

__all__ = ["BANDS", "SDSS", "STAMP_SIZE", "Survey", "get_survey"]
