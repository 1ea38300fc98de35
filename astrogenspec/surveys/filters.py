r"""Filters: transmission curves, and the numbers that follow from them.

With the response :math:`R(\lambda)` per photon, the pivot wavelength is

.. math:: \lambda_p = \left(\int R\,\lambda\,\mathrm{d}\lambda \Big/
          \int R\,\lambda^{-1}\,\mathrm{d}\lambda\right)^{1/2} ,

and the coefficient of Galactic extinction, for a small reddening E(B-V) of Schlegel, Finkbeiner &
Davis (1998),

.. math:: \frac{A}{E(B-V)} = \int k\,S\,R\,\lambda\,\mathrm{d}\lambda \Big/
          \int S\,R\,\lambda\,\mathrm{d}\lambda ,

where :math:`k(\lambda)` is the law of Fitzpatrick (1999) [1]_ for :math:`R_V = 3.1` with the
normalisation of Schlafly & Finkbeiner (2011) [2]_, :math:`k(1\,\mu\mathrm{m}) = 0.78 \times 1.32`
(the reddening of Schlegel, Finkbeiner & Davis is 14% too large), and :math:`S(\lambda)` is a black
body of 7000 K in place of their star of that temperature.  The result agrees with their table 6 to
2%.

References
----------
.. [1] Fitzpatrick, E. L. 1999, PASP, 111, 63, table 3 and section 4.
.. [2] Schlafly, E. F. & Finkbeiner, D. P. 2011, ApJ, 737, 103.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from ..atomic import atomic_write

__all__ = ["Filter", "galactic_extinction", "get_filter", "register_filter"]

#: Limits of the pivot wavelength, Angstrom: the Lyman limit and 1 mm.
_PIVOT_LIMITS = (912.0, 1e7)
#: Maximum response at the ends of a curve, relative to its maximum.
_MAX_END = 0.05
#: Extinction at 1 micron per E(B-V): that of Schlegel, Finkbeiner & Davis (1998) times the
#: normalisation N of Schlafly & Finkbeiner (2011, appendix).
_AT_1_MICRON = 0.78 * 1.32
#: Temperature (K) of the source of the extinction coefficients.
_TEMPERATURE = 7000.0
#: h c / k in Angstrom K.
_SECOND_RADIATION = 1.438776877e8
#: Columns of files of curves.
_COLUMNS = ("wavelength", "response")
#: Curves of the package that ``speclite`` lacks.
_FOLDER = Path(__file__).parent / "curves"
_NAME = re.compile(r"[A-Za-z0-9_.+]+(?:-[A-Za-z0-9_.+]+)*\Z")


@dataclass(frozen=True, eq=False)
class Filter:
    """Transmission curve of a broad-band filter.

    Filters are equal if their names, bands and curves are.

    Parameters
    ----------
    name : str
        Unique name, such as ``"decamDR1-g"``.
    band : str
        Name of the band in its survey, such as ``"g"``.
    wavelength : ndarray or Quantity, shape (n_wavelength,)
        Increasing wavelengths in vacuum; Angstrom if there is no unit.
    response : ndarray, shape (n_wavelength,)
        Response per photon, at any scale; not negative, and below 5% of its maximum at both ends.

    Attributes
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        Angstrom; read-only.
    response : ndarray, shape (n_wavelength,)
        Response per photon; read-only.

    Raises
    ------
    TypeError
        If the name or band is not a str.
    ValueError
        If the curve cannot be used.
    astropy.units.UnitConversionError
        If the unit is not a length.

    Examples
    --------
    >>> from astrogenspec.surveys import get_filter
    >>> get_filter("decamDR1-g")
    <Filter decamDR1-g: pivot 4809 Angstrom>
    """

    name: str
    band: str
    wavelength: np.ndarray
    response: np.ndarray

    def __post_init__(self) -> None:
        for key in ("name", "band"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value:
                raise TypeError(f"{key} is {value!r}, but it must be a str that is not empty.")
        if not _NAME.match(self.name):
            raise ValueError(
                f"name is {self.name!r}, but a filter has a name of letters, digits, '_', '.', '+' "
                "and '-', such as 'decamDR1-g'."
            )
        wavelength, response = _checked_curve(self.name, self.wavelength, self.response)
        object.__setattr__(self, "wavelength", wavelength)
        object.__setattr__(self, "response", response)
        low, high = _PIVOT_LIMITS
        pivot = self.pivot.value
        if not low <= pivot <= high:
            raise ValueError(
                f"the filter {self.name} has the pivot wavelength {pivot:.4g} Angstrom, but it "
                f"must be between {low:g} Angstrom and 1 mm; give its wavelengths with their unit."
            )

    def __repr__(self) -> str:
        return f"<Filter {self.name}: pivot {self.pivot.value:.0f} Angstrom>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or (
            (self.name, self.band) == (other.name, other.band)
            and np.array_equal(self.wavelength, other.wavelength)
            and np.array_equal(self.response, other.response)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.band))

    @cached_property
    def _dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Curve on a fine grid, for integrals of other functions; it may have few points."""
        low, high = self.wavelength[[0, -1]]
        grid = np.union1d(self.wavelength, np.linspace(low, high, 2000))
        return grid, np.interp(grid, self.wavelength, self.response)

    @cached_property
    def pivot(self) -> u.Quantity:
        """Pivot wavelength, Angstrom."""
        x, y = self._dense
        return np.sqrt(np.trapezoid(y * x, x) / np.trapezoid(y / x, x)) * u.AA

    @cached_property
    def width(self) -> u.Quantity:
        """Equivalent width, Angstrom: integral of the response divided by its maximum."""
        return np.trapezoid(self.response, self.wavelength) / self.response.max() * u.AA

    @cached_property
    def extinction_coefficient(self) -> float:
        """Galactic extinction in magnitudes per E(B-V) of Schlegel, Finkbeiner & Davis (1998)."""
        grid, response = self._dense
        exponent = np.clip(_SECOND_RADIATION / (grid * _TEMPERATURE), None, 500)
        weight = response * grid**-4 / np.expm1(exponent)
        extinction = galactic_extinction(grid)
        return float(np.trapezoid(weight * extinction, grid) / np.trapezoid(weight, grid))

    @classmethod
    def read(cls, path: str | Path, *, name: str | None = None, band: str | None = None) -> Filter:
        """Read a curve from a file.

        Parameters
        ----------
        path : str or Path
            ECSV file with columns ``wavelength`` (with a unit) and ``response`` (per photon).
        name, band : str, optional
            Name and band; by default the items ``group_name`` and ``band_name`` of the header, or
            the name of the file.

        Returns
        -------
        Filter

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not such a file, or the curve cannot be used.
        """
        path = Path(path)
        table = _read_table(path)
        wavelength = u.Quantity(table["wavelength"].data, table["wavelength"].unit)
        group, header_band = table.meta.get("group_name"), table.meta.get("band_name")
        band = band or str(header_band or path.stem.rpartition("-")[2])
        name = name or (f"{group}-{band}" if group else path.stem)
        return cls(name, band, wavelength, np.asarray(table["response"].data, dtype=float))

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the curve as a file that `Filter.read` and ``speclite`` read.

        Parameters
        ----------
        path : str or Path
            ECSV file to write.
        overwrite : bool
            Whether to replace an existing file.

        Raises
        ------
        OSError
            If the file exists, or cannot be written.
        """
        from astropy.table import QTable

        group = self.name.rpartition("-")[0] or self.name
        columns = {"wavelength": self.wavelength * u.AA, "response": self.response}
        table = QTable(columns, meta={"group_name": group, "band_name": self.band})
        with atomic_write(Path(path), overwrite=overwrite) as temporary:
            table.write(temporary, format="ascii.ecsv", overwrite=True)


#: Filters by name: those that were registered, and those of ``speclite`` that were used.
_FILTERS: dict[str, Filter] = {}


def get_filter(name: Any) -> Filter:
    """Return a filter by its name.

    Parameters
    ----------
    name : str, Filter or speclite.filters.FilterResponse
        Name of a filter of the ``speclite`` package, of Roman or VISTA (``"roman-F158"``,
        ``"kids-J"``), or of a registered survey; a `Filter` is returned as it is, and a
        ``FilterResponse`` is converted.

    Returns
    -------
    Filter

    Raises
    ------
    TypeError
        If the argument is none of these.
    ValueError
        If no filter has that name.

    Examples
    --------
    >>> from astrogenspec.surveys import get_filter
    >>> print(get_filter("sdss2010-r").pivot.round(0))
    6177.0 Angstrom
    """
    if isinstance(name, Filter):
        return name
    if not isinstance(name, str):
        return _from_speclite(name)
    if name not in _FILTERS:
        _FILTERS[name] = _load(name)
    return _FILTERS[name]


def is_known_filter(name: str) -> bool:
    """Tell whether `get_filter` knows a name.

    Parameters
    ----------
    name : str
        Name of a filter.

    Returns
    -------
    bool
    """
    return name in _FILTERS or name in _known_names(name.rpartition("-")[0])


def filter_groups() -> list[str]:
    """Return the names of the cameras of the known filters.

    Returns
    -------
    list of str
        First parts of the names, such as ``"decamDR1"``, sorted.
    """
    return sorted({name.rpartition("-")[0] for name in _known_names("")} - {""})


def register_filter(new: Filter) -> None:
    """Make a filter known to `get_filter` by its name.

    Parameters
    ----------
    new : Filter
        It replaces a registered filter of the same name.

    Raises
    ------
    TypeError
        If it is not a `Filter`.
    """
    if not isinstance(new, Filter):
        raise TypeError(f"new is of type {type(new).__name__}, but it must be a Filter.")
    _FILTERS[new.name] = new


def galactic_extinction(wavelength: np.ndarray) -> np.ndarray:
    r"""Compute the Galactic extinction per unit of reddening.

    Parameters
    ----------
    wavelength : ndarray
        Angstrom, at least 912.

    Returns
    -------
    ndarray
        Magnitudes per E(B-V) of Schlegel, Finkbeiner & Davis (1998).

    Notes
    -----
    The cubic spline of Fitzpatrick (1999) between his anchors in the optical and infrared, and the
    parametrisation of Fitzpatrick & Massa (1990, ApJS, 72, 163) below 2700 Angstrom, both for
    :math:`R_V = 3.1`, normalised at 1 micron as by Schlafly & Finkbeiner (2011).
    """
    from scipy.interpolate import CubicSpline

    x = 1e4 / np.asarray(wavelength, dtype=float)
    # Fitzpatrick (1999), table 3: 1/micron and A/E(B-V) for R_V = 3.1.
    anchors = np.array([0.0, 0.377, 0.820, 1.667, 1.828, 2.141, 2.433])
    values = np.array([0.0, 0.265, 0.829, 2.688, 3.055, 3.806, 4.315])
    blue = 1e4 / np.array([2700.0, 2600.0])
    anchors, values = np.append(anchors, blue), np.append(values, _ultraviolet(blue))
    spline = CubicSpline(anchors, values, bc_type="natural")
    law = np.where(x < blue[0], spline(np.minimum(x, blue[0])), _ultraviolet(x))
    return _AT_1_MICRON / spline(1.0) * law


def _ultraviolet(x: np.ndarray) -> np.ndarray:
    """A/E(B-V) of Fitzpatrick (1999) in the ultraviolet for R_V = 3.1; x in 1/micron."""
    ratio = 3.1
    c2 = -0.824 + 4.717 / ratio
    c1 = 2.030 - 3.007 * c2
    drude = x**2 / ((x**2 - 4.596**2) ** 2 + (0.99 * x) ** 2)
    far = np.maximum(x - 5.9, 0)
    rise = 0.5392 * far**2 + 0.05644 * far**3
    return ratio + c1 + c2 * x + 3.23 * drude + 0.41 * rise


def _checked_curve(name: str, wavelength: Any, response: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve as read-only arrays, after the checks."""
    if isinstance(wavelength, u.Quantity):
        wavelength = wavelength.to_value(u.AA)
    try:
        x, y = np.array(wavelength, dtype=float), np.array(response, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"the curve of the filter {name} does not consist of numbers; give arrays."
        ) from None
    problem = _curve_problem(x, y)
    if problem:
        raise ValueError(f"the curve of the filter {name} {problem}")
    x.flags.writeable = y.flags.writeable = False
    return x, y


def _curve_problem(x: np.ndarray, y: np.ndarray) -> str:
    """Return why a curve cannot be used, or an empty text."""
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        return (
            f"has arrays of shapes {x.shape} and {y.shape}; give two arrays of the same length, at "
            "least 3."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return "has values that are not finite; remove these points."
    if x[0] <= 0 or (np.diff(x) <= 0).any():
        return "has wavelengths that do not increase or are not positive; sort them."
    if (y < 0).any():
        return f"has the negative response {y.min():.3g}; set such values to 0."
    if not y.max() > 0:
        return "is zero everywhere; give its response."
    for end, value in (("first", y[0]), ("last", y[-1])):
        if value > _MAX_END * y.max():
            at = x[0] if end == "first" else x[-1]
            return (
                f"does not cover the band: its {end} point, at {at:g} Angstrom, has {value:.3g} of "
                f"the maximum {y.max():.3g}; extend it to where the response vanishes."
            )
    return ""


def _load(name: str) -> Filter:
    """Read a filter of this package or of ``speclite``."""
    if name in _own_names():
        return Filter.read(_FOLDER / f"{name}.ecsv")
    from speclite import filters

    try:
        found = filters.load_filter(name)
    except (ValueError, OSError):
        found = None
    if found is None:
        group = name.rpartition("-")[0]
        known = _known_names(group if group in filter_groups() else "")
        raise ValueError(
            f"the filter {name!r} is unknown; known filters are, for example, "
            f"{', '.join(_closest(name, known))} (those of the package speclite), or register one "
            "of your own with register_filter."
        )
    return _from_speclite(found, name)


@cache
def _own_names() -> frozenset[str]:
    """Return the names of the curves of this package."""
    return frozenset(path.stem for path in _FOLDER.glob("*.ecsv"))


def _known_names(group: str) -> list[str]:
    """List the filters of both packages and those registered, all or of one group."""
    from speclite import filters

    folder = Path(filters.__file__).parent / "data" / "filters"
    names = {path.stem for path in folder.glob("*.ecsv")} | _own_names() | set(_FILTERS)
    return sorted(name for name in names if name.startswith(f"{group}-" if group else ""))


def _closest(name: str, known: list[str]) -> list[str]:
    if len(known) <= 8:
        return known
    return difflib.get_close_matches(name, known, n=5, cutoff=0.3) or known[:5]


def _from_speclite(curve: Any, name: str | None = None) -> Filter:
    """Convert a ``FilterResponse``."""
    try:
        wavelength, response = curve.wavelength, curve.response
        meta = curve.meta
        band = str(meta["band_name"])
    except (AttributeError, TypeError, KeyError):
        raise TypeError(
            f"a filter is of type {type(curve).__name__}, but it must be a name such as "
            "'decamDR1-g', a Filter, or a FilterResponse of speclite."
        ) from None
    return Filter(name or f"{meta['group_name']}-{band}", band, wavelength, response)


def _read_table(path: Path) -> Any:
    """Read the table of a curve."""
    from astropy.table import Table

    if not path.is_file():
        raise FileNotFoundError(f"the file of a filter {str(path)!r} does not exist.")
    try:
        table = Table.read(path, format="ascii.ecsv")
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{str(path)!r} is not an ECSV file with the columns wavelength and response: {first}"
        ) from error
    absent = [key for key in _COLUMNS if key not in table.colnames]
    if absent:
        raise ValueError(
            f"{str(path)!r} has no column {absent[0]}; it needs wavelength and response."
        )
    unit = table["wavelength"].unit
    if unit is None or not unit.is_equivalent(u.AA):
        raise ValueError(
            f"the column wavelength of {str(path)!r} has the unit {unit}, but it must have a unit "
            "of length, such as Angstrom; write it in the header."
        )
    if getattr(table["response"], "mask", None) is not None:
        raise ValueError(f"{str(path)!r} has missing values; remove these points.")
    return table
