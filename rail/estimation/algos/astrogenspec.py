"""Stages of astrogenspec for RAIL, which finds algorithms in this namespace."""

from astrogenspec.distributed.rail import AstroGenSpecEstimator, AstroGenSpecInformer

__all__ = ["AstroGenSpecEstimator", "AstroGenSpecInformer"]
