"""Old import paths of public modules that have moved.

An import hook makes the old name an alias of the module at its new path, so that existing scripts
and pickles keep working.  An alias is kept for at least one release after the move (see the
contributing guide).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MOVED", "MovedModules"]

#: New module by old module, relative to the package.
MOVED = {
    "calibration.verdicts": "reports.scores",
    "cli_tables": "cli.tables",
    "conventions": "quantities",
    "cutout_files": "inputs.cutout_fits",
    "cutouts": "inputs.cutouts",
    "draws": "results",
    "draws.information": "results.information",
    "draws.quantity": "results.quantity",
    "emission": "wavelengths",
    "fetch": "inputs.sdss_frames",
    "generation.cascade": "generation.network",
    "inference.model": "inference.network",
    "observations": "inputs.observations",
    "photometry": "inputs.photometry",
    "posterior": "results.posterior",
    "preprocessing": "inputs.features",
    "shards": "training.shards",
    "simulate.report": "reports.simulator",
    "spectra": "results.spectra",
}


class MovedModules(MetaPathFinder, Loader):
    """Import hook that finds moved modules under their old names.

    Parameters
    ----------
    package : str
        Name of the package.
    moved : dict of str to str
        New module by old module, relative to the package.
    """

    def __init__(self, package: str, moved: dict[str, str]) -> None:
        self._moved = {f"{package}.{old}": f"{package}.{new}" for old, new in moved.items()}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a module that has moved, or None."""
        return ModuleSpec(fullname, self) if fullname in self._moved else None

    def exec_module(self, module: ModuleType) -> None:
        """Register the module at its new path under the old name."""
        name = module.__name__
        sys.modules[name] = import_module(self._moved[name])
