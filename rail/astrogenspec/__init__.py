"""Package of astrogenspec in the namespace of RAIL, which imports the packages that it finds there.

The stages are defined in `astrogenspec.distributed.rail`.
"""

from rail.estimation.algos.astrogenspec import AstroGenSpecEstimator, AstroGenSpecInformer

__all__ = ["AstroGenSpecEstimator", "AstroGenSpecInformer"]
