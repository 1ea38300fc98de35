"""Flags: reasons to distrust a result, as bit codes and as text.

Every galaxy has an integer code, the bitwise OR of the `Flag` members that apply (0: no flag), and
a text for people to read.  Programs use the bits only.  The values of the bits never change,
because they are stored in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntFlag
from typing import Any

import numpy as np

__all__ = ["Flag", "FlagLog", "combine_texts", "decode_flags"]


class Flag(IntFlag):
    """Bits of a flag code.

    Use `decode_flags` to list the members in a code, and ``(codes & Flag.SATURATED) != 0`` to
    select galaxies.
    """

    #: The flag has a text but no code, such as one read from a file of an older version.
    TEXT_ONLY = 1 << 0

    # Inputs.
    #: The image could not be used.
    IMAGE_NOT_USED = 1 << 1
    #: The photometry could not be used.
    PHOTOMETRY_NOT_USED = 1 << 2
    #: Sizes, axis ratio or Petrosian fluxes could not be used.
    MORPHOLOGY_NOT_USED = 1 << 3
    #: Neither the image nor the photometry is usable; the draws are NaN.
    NO_DATA = 1 << 4
    #: Photometry could not be measured on the image.
    PHOTOMETRY_NOT_MEASURED = 1 << 5
    #: Catalogue photometry was unusable and was replaced by photometry measured on the image.
    PHOTOMETRY_REPLACED = 1 << 6
    #: The measurement of at least one band was ignored.
    BAND_NOT_USED = 1 << 7
    #: The file of the galaxy could not be read.
    FILE_NOT_READ = 1 << 8

    # Outliers of the training distribution.
    #: No source is detected at the centre of the image.
    BLANK_FIELD = 1 << 9
    #: The image shows a point source.
    POINT_SOURCE = 1 << 10
    #: The image has a cosmic ray, a trail or another artefact.
    ARTEFACT = 1 << 11
    #: The image may be saturated.
    SATURATED = 1 << 12
    #: Many pixels of the image are bad.
    MASKED = 1 << 13
    #: The bands of the image are not aligned with one another.
    MISREGISTERED = 1 << 14
    #: Other sources contribute a large fraction of the light in the image.
    NEIGHBOUR = 1 << 15
    #: The source is not centred in the image.
    OFF_CENTRE = 1 << 16
    #: The sky background of the image is not zero.
    BACKGROUND = 1 << 17
    #: The noise of the image differs from its stated uncertainty.
    NOISE = 1 << 18
    #: The size of the galaxy is outside the training range.
    SIZE = 1 << 19
    #: The colours of the image are outside the training distribution.
    IMAGE_COLOURS = 1 << 20
    #: The signal-to-noise ratio is below the training range.
    LOW_SIGNAL = 1 << 21
    #: The signal-to-noise ratio is above the training range.
    HIGH_SIGNAL = 1 << 22
    #: Magnitudes and colours are outside the training distribution.
    COLOURS = 1 << 23
    #: A magnitude or colour is outside the training range.
    INPUT_RANGE = 1 << 24
    #: The median of a quantity is outside the training range.
    POSTERIOR_RANGE = 1 << 25

    # Results.
    #: The galaxy has no finite draws.
    NO_DRAWS = 1 << 26
    #: The spectrum cannot be scaled because there is no photometry.
    NO_FLUX_SCALE = 1 << 27
    #: No finite spectrum was generated.
    NO_SPECTRUM = 1 << 28

    # Measurements on spectra.
    #: The spectrum does not cover the feature, or has too few usable pixels.
    NOT_COVERED = 1 << 29
    #: Masked or bad pixels affect the measurement.
    BAD_PIXELS = 1 << 30
    #: The fit failed or did not converge.
    FIT_FAILED = 1 << 31
    #: A line is not detected: its signal-to-noise ratio is below 3.
    WEAK_LINE = 1 << 32
    #: The redshift is unreliable: the cross-correlation peak is low.
    WEAK_CORRELATION = 1 << 33
    #: Another redshift fits nearly as well.
    AMBIGUOUS_REDSHIFT = 1 << 34
    #: A fitted parameter is at a limit of its range.
    AT_LIMIT = 1 << 35
    #: The result rests on an assumption stated in the text.
    ASSUMPTION = 1 << 36
    #: A width or velocity dispersion is below the resolution of the spectrum.
    UNRESOLVED = 1 << 37
    #: A broad component overlaps with the narrow line.
    BROAD_LINE = 1 << 38
    #: The continuum is not positive.
    NO_CONTINUUM = 1 << 39
    #: A line that the result depends on was not measured.
    LINE_NOT_MEASURED = 1 << 40
    #: The redshift that the measurement needs is missing.
    NO_REDSHIFT = 1 << 41

    # Change of the prior.
    #: With the new prior of a posterior, its draws are worth few draws.
    LOW_EFFECTIVE_SAMPLE = 1 << 42

    # Kind of object.
    #: The photometry is more probably that of a star or a quasar than that of a galaxy.
    STAR_OR_QUASAR = 1 << 43


class FlagLog:
    """Collect the flags of a number of galaxies.

    Parameters
    ----------
    n : int
        Number of galaxies.

    Examples
    --------
    >>> from astrogenspec.flags import Flag, FlagLog
    >>> log = FlagLog(3)
    >>> log.add([False, True, True], Flag.SATURATED, "the image may be saturated")
    >>> log.add(2, Flag.OFF_CENTRE, "the source is 4 pixels off centre")
    >>> log.codes
    array([    0,  4096, 69632])
    >>> log.texts[2]
    'the image may be saturated; the source is 4 pixels off centre'
    """

    def __init__(self, n: int) -> None:
        self._codes = np.zeros(n, dtype=np.int64)
        #: Reasons by row; most galaxies have none.
        self._texts: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, rows: Any, flag: Flag | int, text: str | Callable[[int], str]) -> None:
        """Flag some galaxies.

        Parameters
        ----------
        rows : int, array_like of int, or array_like of bool, shape (n,)
            Galaxies to flag.
        flag : Flag
            Bits to set.
        text : str or callable
            Reason, without a full stop, or a function of the row that returns it.
        """
        rows = np.atleast_1d(np.asarray(rows))
        for row in np.flatnonzero(rows) if rows.dtype == bool else rows:
            self._codes[row] |= int(flag)
            words = text(int(row)) if callable(text) else text
            found = self._texts.setdefault(int(row) % len(self), []) if words else []
            if words and words not in found:
                found.append(words)

    def extend(self, codes: Sequence[int] | np.ndarray, texts: Sequence[str]) -> None:
        """Add flags that were collected elsewhere.

        Parameters
        ----------
        codes : sequence of int, shape (n,)
            Flag codes.
        texts : sequence of str, shape (n,)
            Reasons; empty strings for galaxies without flags.
        """
        for row, (code, text) in enumerate(zip(codes, texts, strict=True)):
            if code or text:
                self.add(row, int(code), text)

    @property
    def codes(self) -> np.ndarray:
        """Flag codes, int64, shape (n,)."""
        return self._codes.copy()

    @property
    def texts(self) -> tuple[str, ...]:
        """Reasons joined by semicolons; empty strings for galaxies without flags."""
        texts = [""] * len(self)
        for row, found in self._texts.items():
            texts[row] = "; ".join(found)
        return tuple(texts)


def combine_texts(*parts: Sequence[str]) -> tuple[str, ...]:
    """Join several lists of texts, galaxy by galaxy.

    Parameters
    ----------
    *parts : sequence of str, shape (n,)
        Empty strings are skipped.

    Returns
    -------
    tuple of str
    """
    return tuple("; ".join(filter(None, texts)) for texts in zip(*parts, strict=True))


def decode_flags(codes: int | Iterable[int] | np.ndarray) -> list[str] | list[list[str]]:
    """Return the names of the flags in codes.

    Parameters
    ----------
    codes : int or array_like of int
        Column ``flags`` of a table, ``flag_codes`` of a result, or one code.

    Returns
    -------
    list of str, or list of list of str
        Lower-case names of the `Flag` members for one code; a list of such lists for several codes.

    Raises
    ------
    TypeError
        If a code is not an integer.
    ValueError
        If a code has unknown bits.

    Examples
    --------
    >>> from astrogenspec import decode_flags
    >>> decode_flags(4096 + 65536)
    ['saturated', 'off_centre']
    >>> decode_flags([0, 4096])
    [[], ['saturated']]
    """
    array = np.ma.filled(np.ma.asarray(codes), 0)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"codes has dtype {array.dtype}; give integers, such as the column flags of a table."
        )
    return [_names(int(code)) for code in array.ravel()] if array.ndim else _names(int(array))


def _names(code: int) -> list[str]:
    known = sum(int(member) for member in Flag)
    if code & ~known or code < 0:
        raise ValueError(
            f"code {code} has bits unknown to this version of astrogenspec; upgrade it."
        )
    return [str(member.name).lower() for member in Flag if code & member]
