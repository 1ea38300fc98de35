r"""Division of the sky into training, validation and test cells.

A galaxy belongs to the part of the sky cell that contains it, and a cell to the part that a hash of
its number selects.  Neighbours, repeated observations and images of the same field therefore lie on
the same side (up to the edges of the cells), and every user has the same division whatever the
selection.

Cells have equal areas, :math:`4 \pi / (90 \cdot 180)` steradian or 2.5 square degrees: 90 intervals
of equal width in the sine of the declination, and 180 in right ascension.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

__all__ = ["SPLITS", "SPLIT_FRACTIONS", "sky_cell", "split_of"]

#: Parts of a data set.
SPLITS = ("train", "validation", "test")
#: Fraction of the sky in each part.
SPLIT_FRACTIONS = (0.70, 0.15, 0.15)
_N_DECLINATION, _N_RIGHT_ASCENSION = 90, 180


def sky_cell(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the number of the sky cell of positions.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Right ascension and declination (ICRS, degrees).

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    ValueError
        If a position is not on the sphere.

    Examples
    --------
    >>> from astrogenspec.datasets.sky_cells import sky_cell, split_of
    >>> sky_cell([10.0, 10.1], [0.5, 0.6])
    array([8105, 8105])
    >>> split_of([230.3, 237.3], [15.0, -1.0]).tolist()
    ['train', 'test']
    """
    ra, dec = np.asarray(ra, dtype=float), np.asarray(dec, dtype=float)
    bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"galaxy {k} is at ra {ra.flat[k]}, dec {dec.flat[k]}; positions in degrees are "
            "expected."
        )
    height = (np.sin(np.radians(dec)) + 1) / 2
    row = np.minimum(np.floor(height * _N_DECLINATION), _N_DECLINATION - 1).astype(np.int64)
    turn = np.mod(ra, 360.0) / 360.0
    column = np.minimum(np.floor(turn * _N_RIGHT_ASCENSION), _N_RIGHT_ASCENSION - 1)
    return row * _N_RIGHT_ASCENSION + column.astype(np.int64)


def split_of(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the part of the data set, one of `SPLITS`, of positions.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Right ascension and declination (ICRS, degrees).

    Returns
    -------
    ndarray of str, shape (n,)
    """
    return np.array([_split_of_cell(int(cell)) for cell in sky_cell(ra, dec)], dtype="U10")


@cache
def _split_of_cell(cell: int) -> str:
    digest = hashlib.sha256(f"astrogenspec sky cell {cell}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    edges = np.cumsum(SPLIT_FRACTIONS[:-1])
    return SPLITS[int(np.searchsorted(edges, fraction, side="right"))]
