"""Inference for surveys: tables, files and catalogues of any size, resumable and in parallel.

`predict_table` infers one table and can be passed to the engines of dask and LSDB. `run_survey`
infers files partition by partition; on the command line it is ``astrogenspec survey``.
"""

from __future__ import annotations

from .manifest import ManifestError
from .regions import export_region
from .runs import SurveyReport, run_survey
from .tables import predict_table

__all__ = ["ManifestError", "SurveyReport", "export_region", "predict_table", "run_survey"]
