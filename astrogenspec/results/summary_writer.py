"""Files of summaries, collected block by block in little memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from astropy.utils.masked import Masked

from ..atomic import atomic_write
from .posterior import Posterior
from .posterior_io import with_columns, write_posterior

__all__ = ["SummaryWriter"]


#: Name of a file with the summaries of a block.
_PART = "part-{:06d}.ecsv"
#: Prefix of columns of the photometry, and name of the column that tells which galaxies are named.
_PHOTOMETRY, _NAMED = "photometry.", "named."


class SummaryWriter:
    """Collect the summaries of posteriors, and write the file that `Posterior.write` would.

    A galaxy takes about 0.5 kB, however many draws it has.

    Parameters
    ----------
    folder : path-like, optional
        Folder to which the summaries of each block are written, so that an interrupted loop can be
        continued: ``start`` tells the first galaxy that is missing.

    Attributes
    ----------
    start : int
        Number of galaxies that were found in the folder.

    Examples
    --------
    >>> from astrogenspec.results.summary_writer import SummaryWriter
    >>> writer = SummaryWriter()
    >>> for block in estimator.predict_iter(photometry=table):  # doctest: +SKIP
    ...     writer.append(block)
    >>> writer.write("properties.fits")  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._tables: list[QTable] = []
        self._photometry: list[QTable | None] = []
        self._named: list[np.ndarray] = []
        self._last: Posterior | None = None
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._restore(self._folder)
        self.start = sum(map(len, self._tables))

    def _restore(self, folder: Path) -> None:
        """Read the blocks of the folder, except the last one, which is inferred again."""
        paths = [folder / _PART.format(k) for k in range(len(list(folder.glob("part-*"))))]
        for path in paths[:-1]:
            if not path.exists():
                break
            part = QTable.read(path, format="ascii.ecsv")
            for name in part.colnames:
                if part[name].dtype.kind in "SU":
                    # Empty texts are read as masked.
                    part[name] = np.ma.filled(part[name], "")
            named = np.asarray(part[_NAMED], dtype=bool)
            given = [name for name in part.colnames if name.startswith(_PHOTOMETRY)]
            photometry = QTable({n.removeprefix(_PHOTOMETRY): part[n] for n in given}, copy=False)
            part.remove_columns([*given, _NAMED])
            self._tables.append(part)
            self._photometry.append(photometry if given else None)
            self._named.append(named)

    def _store(self, folder: Path) -> None:
        """Write the last block to the folder."""
        table, photometry = self._tables[-1], self._photometry[-1]
        part = QTable({name: table[name] for name in table.colnames})
        if photometry is not None:
            for name in photometry.colnames:
                part[_PHOTOMETRY + name] = photometry[name]
        part[_NAMED] = self._named[-1]
        for name in part.colnames:
            # Numbers are written with all digits.
            part[name].info.format = None
        path = folder / _PART.format(len(self._tables) - 1)
        with atomic_write(path, overwrite=True) as temporary:
            part.write(temporary, format="ascii.ecsv")

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
        if self._folder is not None:
            self._store(self._folder)

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
    """Join tables with the same columns; a column is masked if one of its parts is.

    Meta data, formats and descriptions are those of the last one, which was not read from a file.
    """
    joined = QTable(meta=tables[-1].meta)
    for name in tables[-1].colnames:
        parts = [table[name] for table in tables]
        joined[name] = _joined_column(parts)
        for key in ("format", "description"):
            setattr(joined[name].info, key, getattr(parts[-1].info, key))
    return joined


def _joined_column(parts: Sequence[Any]) -> Any:
    masks = [getattr(part, "mask", None) for part in parts]
    plain = [getattr(part, "unmasked", part) for part in parts]
    unit = getattr(plain[-1], "unit", None)
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
