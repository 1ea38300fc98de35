"""What was observed of each galaxy: images and photometry brought together.

A galaxy may have an image, photometry, or both.  Photometry that is missing is measured on the image.  With
``on_error="flag"`` a galaxy of which only one of the two can be used goes on with that one, flagged with the reason; a
galaxy of which nothing can be used keeps its place, so that it changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from .cutouts import CutoutBatch
from .inputs.catalogues import dust_values
from .photometry import PhotometryBatch, measure_photometry
from .preprocessing import ModelInputs, make_inputs
from .surveys import BANDS

__all__ = ["Observations", "observe"]


@dataclass(frozen=True, eq=False)
class Observations:
    """Images and photometry of the same galaxies.

    Attributes
    ----------
    cutouts : CutoutBatch or None
        Images; blank for a galaxy without a usable one. None if no galaxy was given an image.
    photometry : PhotometryBatch
        Fluxes; NaN for a galaxy without usable ones.
    names : tuple of str
        One for each galaxy.
    flags : tuple of str
        Why not to trust a galaxy; empty strings if nothing is wrong.
    usable : ndarray of bool, shape (n,)
        Whether there is anything to infer from.
    """

    cutouts: CutoutBatch | None
    photometry: PhotometryBatch
    names: tuple[str, ...]
    flags: tuple[str, ...]
    usable: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def modes(self) -> np.ndarray:
        """What each galaxy is inferred from, str, shape (n,): image, photometry or both; empty if there is nothing.

        Photometry measured on its image counts as the image.
        """
        blank = np.zeros(len(self), bool)
        image = blank if self.cutouts is None else self.cutouts.bands_present.any(axis=1)
        catalogue = self.photometry.bands_present.any(axis=1) & ~self.photometry.measured
        return np.select([image & catalogue, image, catalogue], ["both", "image", "photometry"], "")

    def inputs(self) -> ModelInputs:
        """Make the tensors for the networks."""
        return make_inputs(self.cutouts, self.photometry)

    def photometry_table(self) -> QTable:
        """Tabulate the photometry that the network saw, as observed, with its Galactic extinction and its structure."""
        batch = self.photometry
        table = QTable()
        for k, band in enumerate(BANDS):
            table[f"flux_{band}"] = batch.flux[:, k] * u.nmgy
            table[f"flux_err_{band}"] = batch.error[:, k] * u.nmgy
            table[f"extinction_{band}"] = batch.extinction[:, k] * u.mag
        if batch.structure is not None:
            for k, band in enumerate(BANDS):
                table[f"petro_flux_{band}"] = batch.structure.petro_flux[:, k] * u.nmgy
            table["r50"] = batch.structure.r50 * u.arcsec
            table["r90"] = batch.structure.r90 * u.arcsec
            table["axis_ratio"] = batch.structure.axis_ratio
        table["measured"] = np.asarray(batch.measured, dtype=bool)
        return table


def observe(
    cutouts: CutoutBatch | None,
    photometry: PhotometryBatch | None,
    *,
    ebv: float | np.ndarray | u.Quantity | None = None,
    on_error: str = "raise",
    measure: bool = True,
    start: int = 0,
) -> Observations:
    """Bring images and photometry of the same galaxies together; measure what is missing.

    Parameters
    ----------
    cutouts : CutoutBatch, optional
        Images.
    photometry : PhotometryBatch, optional
        Photometry; at least one of the two.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), if there is no photometry.
    on_error : {"raise", "flag"}
        What to do with a galaxy of which nothing can be used.
    measure : bool
        Whether to measure on the image the photometry that is missing.
    start : int
        Number of the first of these galaxies in the whole input.

    Returns
    -------
    Observations

    Raises
    ------
    ValueError
        If nothing can be used of a galaxy, names differ, or ``ebv`` is wrong.
    astropy.units.UnitConversionError
        If the unit of ``ebv`` is no magnitude.
    """
    if cutouts is None:
        n, names = len(photometry), photometry.names
        has_image = np.zeros(n, bool)
        image_problems = [""] * n
    else:
        n = len(cutouts)
        others = None if photometry is None else photometry.names
        names = _common_names(cutouts.names, others, start)
        has_image = cutouts.bands_present.any(axis=1) & _fine(cutouts.problems)
        image_problems = _prefixed("image not used: ", cutouts.problems)
        if not has_image.all():
            ivar = np.where(has_image[:, None, None, None], cutouts.ivar, np.float32(0))
            cutouts = replace(cutouts, ivar=ivar)
    assumed = photometry is None and ebv is None
    if photometry is None:
        photometry = _blank_photometry(n, ebv, start)
    flux_problems = _prefixed("photometry not used: ", photometry.problems)
    structure = photometry.structure
    size_problems = [""] * n
    if structure is not None:
        size_problems = _prefixed("structure not used: ", structure.problems)
    photometry = _without(photometry, ~_fine(photometry.problems))
    wanted = has_image & ~photometry.bands_present.any(axis=1)
    if measure and wanted.any():
        measured = measure_photometry(cutouts[wanted], None if assumed else 0.0)
        photometry = _filled(photometry, wanted, measured)
        _note_measured(flux_problems, np.flatnonzero(wanted), measured.problems)
    usable = has_image | photometry.bands_present.any(axis=1)
    problems = zip(image_problems, flux_problems, size_problems, strict=True)
    flags = [_sentence(parts) for parts in problems]
    for k in np.flatnonzero(~usable):
        flags[k] = flags[k] or "there is neither an image nor photometry"
        if on_error == "raise":
            raise ValueError(f"galaxy {start + k}: {flags[k]}.")
    return Observations(cutouts, photometry, names, tuple(flags), usable)


def _fine(problems: Sequence[str]) -> np.ndarray:
    return np.array([not problem for problem in problems], dtype=bool)


def _prefixed(prefix: str, problems: Sequence[str]) -> list[str]:
    return [prefix + problem.rstrip(".") if problem else "" for problem in problems]


def _note_measured(notes: list[str], rows: np.ndarray, problems: Sequence[str]) -> None:
    """Say how it went with photometry that was measured on the image."""
    for k, problem in zip(rows, problems, strict=True):
        if problem:
            notes[k] = f"photometry could not be measured on the image: {problem.rstrip('.')}"
        elif notes[k]:
            notes[k] += "; it was measured on the image instead, for no Galactic extinction"


def _blank_photometry(n: int, ebv: Any, start: int) -> PhotometryBatch:
    """Make a batch without fluxes that carries the Galactic extinction."""
    values = np.broadcast_to(dust_values("ebv", 0.0 if ebv is None else ebv), n)
    for k in np.flatnonzero(~(np.isfinite(values) & (values >= 0))):
        raise ValueError(
            f"galaxy {start + k}: ebv is {values[k]:g}, but it must be 0 mag or more, and finite."
        )
    missing = np.full((n, len(BANDS)), np.nan)
    return PhotometryBatch(missing, missing, np.array(values), np.zeros(n, bool))


def _without(photometry: PhotometryBatch, rows: np.ndarray) -> PhotometryBatch:
    """Blank some galaxies; extinction that is not finite becomes zero."""
    flux, error = (np.where(rows[:, None], np.nan, a) for a in (photometry.flux, photometry.error))
    structure = photometry.structure
    return replace(
        photometry,
        flux=flux,
        error=error,
        structure=None if structure is None else structure.without(rows),
        extinction=np.nan_to_num(photometry.extinction, posinf=0.0, neginf=0.0),
    )


def _filled(
    photometry: PhotometryBatch, rows: np.ndarray, other: PhotometryBatch
) -> PhotometryBatch:
    """Put the fluxes of another batch in some rows; the extinction stays."""
    flux, error, measured = (
        np.array(a) for a in (photometry.flux, photometry.error, photometry.measured)
    )
    flux[rows], error[rows], measured[rows] = other.flux, other.error, True
    return replace(photometry, flux=flux, error=error, measured=measured)


def _common_names(
    of_images: Sequence[str], of_photometry: Sequence[str] | None, start: int
) -> tuple[str, ...]:
    """Agree on the names of galaxies; those that only count the galaxies of a part say nothing."""
    names = []
    for k, image in enumerate(of_images):
        number = str(start + k)
        other = number if of_photometry is None else of_photometry[k]
        image = number if image == str(k) else image
        if number not in (image, other) and image != other:
            raise ValueError(
                f"galaxy {number} is named {image!r} in cutouts but {other!r} in photometry: "
                "give both in the same order."
            )
        names.append(other if image == number else image)
    return tuple(names)


def _sentence(parts: Sequence[str]) -> str:
    return "; ".join(part.rstrip(". ") for part in parts if part)
