"""Sums over all galaxies of a survey: histograms, densities and maps, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..quantities import QUANTITIES
from .figures import view_package

__all__ = ["Axis", "Density", "SkySums", "SurveySums", "columns_of"]

#: Bins of the densities, of the histograms, and size of the sample.
DENSITY_BINS = (120, 90)
HISTOGRAM_BINS = 120
SAMPLE = 20_000
#: Pixels of the sky in memory; with more, four are joined to one.
MAX_PIXELS = 1_500_000


@dataclass(frozen=True)
class Axis:
    """A column of a view and its range.

    Attributes
    ----------
    key : str
        Name of the column, see `columns_of`.
    label : str
        Label of the axis.
    low, high : float
        Range; galaxies outside are counted.
    """

    key: str
    label: str
    low: float
    high: float

    def bins(self, values: np.ndarray, n: int) -> np.ndarray:
        """Return the bin of each value: -1 below the range or NaN, and n above it."""
        with np.errstate(invalid="ignore"):
            position = np.floor((values - self.low) / (self.high - self.low) * n)
        return np.where(np.isfinite(values), np.clip(position, -1, n), -1).astype(int)


def columns_of(block: Mapping[str, np.ndarray], quantities: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns of the views, in internal values (logarithms of line fluxes).

    Parameters
    ----------
    block : mapping of str to ndarray
        Columns of the result.
    quantities : sequence of str
        Quantities of the result.

    Returns
    -------
    dict of str to ndarray
        Medians by quantity; ``<quantity>_width``, half of the 68% interval; ``nii_halpha`` and
        ``oiii_hbeta``, logarithms of the ratios of the medians.
    """
    found = {}
    for name in quantities:
        low, middle, high = (block[f"{name}_{end}"] for end in ("p16", "median", "p84"))
        if QUANTITIES[name].logarithmic:
            with np.errstate(all="ignore"):
                low, middle, high = (np.log10(x) for x in (low, middle, high))
        found[name] = np.where(np.isfinite(middle), middle, np.nan)
        found[f"{name}_width"] = (high - low) / 2
    for key, top, bottom in (
        ("nii_halpha", "nii6584_flux", "halpha_flux"),
        ("oiii_hbeta", "oiii5007_flux", "hbeta_flux"),
    ):
        if {top, bottom} <= set(found):
            found[key] = found[top] - found[bottom]
    return found


@dataclass
class Density:
    """Number of galaxies in bins of two columns.

    Attributes
    ----------
    x, y : Axis
        Columns.
    counts : ndarray of int64, shape (2, ny, nx)
        Without and with flags.
    outside : int
        Galaxies outside of the ranges.
    missing : int
        Galaxies of which a column is not known.
    """

    x: Axis
    y: Axis
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, *DENSITY_BINS[::-1]), np.int64))
    outside: int = 0
    missing: int = 0

    def add(self, columns: Mapping[str, np.ndarray], flagged: np.ndarray) -> None:
        """Count more galaxies."""
        x, y = columns[self.x.key], columns[self.y.key]
        known = np.isfinite(x) & np.isfinite(y)
        nx, ny = DENSITY_BINS
        column, row = self.x.bins(x, nx), self.y.bins(y, ny)
        inside = known & (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        place = (flagged[inside].astype(int) * ny + row[inside]) * nx + column[inside]
        self.counts += np.bincount(place, minlength=2 * nx * ny).reshape(2, ny, nx)
        self.missing += int(np.count_nonzero(~known))
        self.outside += int(np.count_nonzero(known & ~inside))


@dataclass
class SkySums:
    """Sums in HEALPix pixels (nested scheme).

    Attributes
    ----------
    order : int
        Order of the pixels.
    keys : tuple of str
        Columns of which there is a mean in each pixel.
    pixels : ndarray of int64, sorted
        Pixels with galaxies.
    sums : ndarray, shape (n_pixels, 2 + 2 * n_keys)
        Number of galaxies, number with flags, and number and sum of each column.
    missing : int
        Galaxies without a position.
    """

    order: int
    keys: tuple[str, ...]
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    missing: int = 0

    def add(
        self,
        ra: np.ndarray,
        dec: np.ndarray,
        columns: Mapping[str, np.ndarray],
        flagged: np.ndarray,
    ) -> None:
        """Add more galaxies; positions in degrees."""
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
        self.missing += int(np.count_nonzero(~known))
        layers = [np.ones(len(ra)), flagged.astype(float)]
        for key in self.keys:
            finite = np.isfinite(columns[key])
            layers += [finite.astype(float), np.where(finite, columns[key], 0.0)]
        pixels = healpix(ra[known], dec[known], self.order)
        old = self.sums if len(self.pixels) else np.zeros((0, len(layers)))
        self._join(
            np.concatenate([self.pixels, pixels]),
            np.concatenate([old, np.stack(layers, axis=1)[known]]),
        )
        while len(self.pixels) > MAX_PIXELS:
            self.order -= 1
            self._join(self.pixels >> 2, self.sums)

    def _join(self, pixels: np.ndarray, sums: np.ndarray) -> None:
        self.pixels, place = np.unique(pixels, return_inverse=True)
        self.sums = np.stack(
            [np.bincount(place, layer, len(self.pixels)) for layer in sums.T], axis=1
        )

    def coarser(self, galaxies: float) -> SkySums:
        """Return pixels in which the typical number of galaxies is at least a number."""
        found = SkySums(self.order, self.keys, self.pixels, self.sums, self.missing)
        while found.order > 0 and len(found.pixels) and np.median(found.sums[:, 0]) < galaxies:
            found.order -= 1
            found._join(found.pixels >> 2, found.sums)
        return found


def healpix(ra: np.ndarray, dec: np.ndarray, order: int) -> np.ndarray:
    """Return the HEALPix pixels (nested) of positions in degrees.

    Parameters
    ----------
    ra, dec : ndarray
        Positions.
    order : int
        Order: 12 times 4 to the power of the order pixels cover the sky.

    Returns
    -------
    ndarray of int64
    """
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude

    nested = view_package("cdshealpix.nested")
    found = nested.lonlat_to_healpix(
        Longitude(np.asarray(ra, float), u.deg), Latitude(np.asarray(dec, float), u.deg), order
    )
    return np.asarray(found).astype(np.int64)


@dataclass
class SurveySums:
    """All sums of a survey, and a random sample of its galaxies.

    Attributes
    ----------
    quantities : list of str
        Quantities.
    histograms : dict of str to Axis
        Range of each quantity.
    widths : dict of str to Axis
        Range of the logarithm of the half width of the 68% interval.
    densities : dict of str to Density
        Densities by the name of the view.
    sky : SkySums or None
        Maps; None without positions.
    positions : tuple of str or None
        Columns of right ascension and declination.
    identifier : str or None
        Column of the identifiers.
    n, n_flagged, n_unusable : int
        Number of galaxies, of those with flags, and of those without a result.
    flag_codes : dict of int to int
        Number of galaxies with each flag.
    counts, width_counts : dict of str to ndarray, shape (2, n_bins)
        Histograms of galaxies without and with flags.
    sample : dict of str to ndarray
        Columns of at most `SAMPLE` galaxies, chosen at random.
    """

    quantities: list[str]
    histograms: dict[str, Axis]
    widths: dict[str, Axis]
    densities: dict[str, Density]
    sky: SkySums | None
    positions: tuple[str, str] | None
    identifier: str | None
    n: int = 0
    n_flagged: int = 0
    n_unusable: int = 0
    flag_codes: dict[int, int] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    width_counts: dict[str, np.ndarray] = field(default_factory=dict)
    sample: dict[str, np.ndarray] = field(default_factory=dict)
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def add(self, block: Mapping[str, np.ndarray]) -> None:
        """Add a block of rows."""
        columns = columns_of(block, self.quantities)
        codes = block.get("flags", np.zeros(len(columns[self.quantities[0]]), np.int64))
        flagged = codes != 0
        self.n += len(codes)
        self.n_flagged += int(np.count_nonzero(flagged))
        self.n_unusable += int(np.count_nonzero(np.isnan(columns[self.quantities[0]])))
        seen = int(np.bitwise_or.reduce(codes)) if len(codes) else 0
        for code in (1 << bit for bit in range(seen.bit_length()) if seen >> bit & 1):
            count = int(np.count_nonzero(codes & code))
            self.flag_codes[code] = self.flag_codes.get(code, 0) + count
        for name in self.quantities:
            self._count(self.counts, name, self.histograms[name], columns[name], flagged)
            with np.errstate(all="ignore"):
                width = np.log10(columns[f"{name}_width"])
            self._count(self.width_counts, name, self.widths[name], width, flagged)
        for density in self.densities.values():
            density.add(columns, flagged)
        if self.sky is not None and self.positions is not None:
            ra, dec = (np.asarray(block[name], float) for name in self.positions)
            self.sky.add(ra, dec, columns, flagged)
        self._add_sample(block, columns, codes)

    @staticmethod
    def _count(
        counts: dict[str, np.ndarray],
        name: str,
        axis: Axis,
        values: np.ndarray,
        flagged: np.ndarray,
    ) -> None:
        """Add to a histogram without and with flags; its end bins hold what lies outside."""
        n = HISTOGRAM_BINS
        bins = np.clip(axis.bins(values, n), 0, n - 1)
        known = np.isfinite(values)
        place = flagged[known] * n + bins[known]
        added = np.bincount(place, minlength=2 * n).reshape(2, n)
        counts[name] = counts.get(name, 0) + added

    def _add_sample(
        self, block: Mapping[str, np.ndarray], columns: dict[str, np.ndarray], codes: np.ndarray
    ) -> None:
        """Keep the galaxies with the smallest random numbers: each one is equally likely."""
        keys = np.concatenate([self._keys, self._random.random(len(codes))])
        new = dict(columns) | {"flags": codes}
        for name in (*(self.positions or ()), self.identifier):
            if name is not None:
                new[name] = block[name]
        chosen = np.argsort(keys, kind="stable")[:SAMPLE]
        old = self.sample or {name: values[:0] for name, values in new.items()}
        self.sample = {
            name: np.concatenate([old[name], values])[chosen] for name, values in new.items()
        }
        self._keys = keys[chosen]
