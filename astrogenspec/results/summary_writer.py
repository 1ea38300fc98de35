"""Files of summaries, collected block by block in little memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from astropy.utils.masked import Masked

from .posterior import Posterior
from .posterior_io import with_columns, write_posterior

__all__ = ["SummaryWriter"]


class SummaryWriter:
    """Collect the summaries of posteriors, and write the file that `Posterior.write` would.

    A galaxy takes about 0.5 kB, however many draws it has.

    Examples
    --------
    >>> from astrogenspec.results.summary_writer import SummaryWriter
    >>> writer = SummaryWriter()
    >>> for block in estimator.predict_iter(photometry=table):  # doctest: +SKIP
    ...     writer.append(block)
    >>> writer.write("properties.fits")  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._tables: list[QTable] = []
        self._photometry: list[QTable | None] = []
        self._named: list[np.ndarray] = []
        self._last: Posterior | None = None

    def append(self, posterior: Posterior) -> None:
        """Add galaxies.

        Parameters
        ----------
        posterior : Posterior
            Posterior of a block; all blocks have the same quantities and meta data.
        """
        self._tables.append(posterior.to_table())
        self._photometry.append(posterior.photometry)
        self._named.append(posterior.named)
        self._last = posterior[:0]

    @property
    def flag_codes(self) -> np.ndarray:
        """Flag codes of the galaxies, int64, shape (n_galaxies,)."""
        codes = [np.asarray(table["flags"]) for table in self._tables]
        return np.concatenate(codes) if codes else np.zeros(0, np.int64)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Table | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the summaries.

        Parameters
        ----------
        path, columns, overwrite
            As for `Posterior.write`.

        Raises
        ------
        ValueError
            If there are no galaxies, or as for `Posterior.write`.
        OSError
            If the file cannot be written; no partial file is left.
        """
        if self._last is None:
            raise ValueError("there are no galaxies: append at least one posterior.")
        photometry = [table for table in self._photometry if table is not None]
        write_posterior(
            path,
            with_columns(_joined(self._tables), columns),
            self._last.draws,
            photometry=_joined(photometry) if len(photometry) == len(self._tables) else None,
            named=np.concatenate(self._named),
            meta=self._last.meta,
            with_draws=False,
            overwrite=overwrite,
        )


def _joined(tables: Sequence[QTable]) -> QTable:
    """Join tables with the same columns; a column is masked if one of its parts is."""
    joined = QTable(meta=tables[0].meta)
    for name in tables[0].colnames:
        parts = [table[name] for table in tables]
        joined[name] = _joined_column(parts)
        for key in ("format", "description"):
            setattr(joined[name].info, key, getattr(parts[0].info, key))
    return joined


def _joined_column(parts: Sequence[Any]) -> Any:
    masks = [getattr(part, "mask", None) for part in parts]
    plain = [getattr(part, "unmasked", part) for part in parts]
    unit = getattr(plain[0], "unit", None)
    values = np.concatenate([np.asarray(getattr(part, "value", part)) for part in plain])
    if unit is not None:
        values = u.Quantity(values, unit, subok=True, copy=False)
    if all(mask is None for mask in masks):
        return values
    mask = np.concatenate(
        [
            np.zeros(len(part), bool) if mask is None else np.asarray(mask)
            for part, mask in zip(plain, masks, strict=True)
        ]
    )
    masked: Mapping[bool, Any] = {True: Masked, False: np.ma.array}
    return masked[unit is not None](values, mask=mask) if mask.any() else values
