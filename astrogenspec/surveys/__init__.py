"""Imaging surveys and filters, described by files: one YAML file for each survey."""

from __future__ import annotations

from .catalogue_format import CatalogueFormat
from .filters import Filter, galactic_extinction, get_filter, register_filter
from .registry import BANDS, CUTOUT_SIZE, SDSS, get_survey, register_survey, survey_names
from .survey import Survey

__all__ = [
    "BANDS",
    "CUTOUT_SIZE",
    "SDSS",
    "CatalogueFormat",
    "Filter",
    "Survey",
    "galactic_extinction",
    "get_filter",
    "get_survey",
    "register_filter",
    "register_survey",
    "survey_names",
]
