"""Make the modules of ``recipes/`` importable by the benchmarks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
