"""Galaxy physics from broad-band images: calibrated posteriors of properties and line fluxes.

The names in ``__all__`` are imported when they are first used, so that ``import astrogenspec`` is
fast. Settings are items of `astrogenspec.conf`, as in other packages of the astropy ecosystem.
Weights that are used and training progress are logged to the logger ``astrogenspec`` at level
``INFO``; assumptions and other possible problems are reported as `AstroGenSpecWarning`.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

from ._moved import MOVED, MovedModules

_EXPORTS = {
    "base": ("NotFittedError",),
    "flags": ("Flag", "decode_flags"),
    "generation.estimator": ("SpectrumEstimator", "SpectrumOptions"),
    "generation.network": ("SamplerSettings",),
    "inference.estimator": ("PropertyEstimator",),
    "inputs.cutout_fits": ("read_cutout_fits", "write_cutout_fits"),
    "inputs.cutouts": ("CutoutBatch", "coerce_cutouts"),
    "inputs.photometry": ("PhotometryBatch", "coerce_photometry", "measure_photometry"),
    "inputs.sdss_frames": ("fetch_sdss_cutout",),
    "quantities": ("LINE_FLUX_UNIT", "QUANTITIES", "QuantityInfo"),
    "results.readers": ("register_readers",),
    "results.posterior": ("Posterior",),
    "results.quantity": ("QuantityPosterior",),
    "results.spectra": ("SpectrumDraws",),
    "results.spectra_io": ("SpectrumWriter",),
    "surveys": ("BANDS", "SDSS", "Survey", "get_survey"),
    "warnings": ("AstroGenSpecDeprecationWarning", "AstroGenSpecWarning"),
    "weights": ("WeightsError", "conf", "fetch_weights", "list_models", "load_card"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__version__ = "0.1.0.dev0"

__citation__ = f"""\
@software{{astrogenspec,
  author  = {{{{The astrogenspec developers}}}},
  title   = {{astrogenspec: galaxy physics from broad-band images}},
  version = {{{__version__}}},
  year    = {{2026}},
}}
"""

logging.getLogger(__name__).addHandler(logging.NullHandler())
# In front of the finder of files, which would load a second copy of the modules of a folder that
# has moved.
sys.meta_path.insert(0, MovedModules(__name__, MOVED))

__all__ = ["__citation__", "__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
