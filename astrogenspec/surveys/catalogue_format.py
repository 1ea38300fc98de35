"""Column names, units and fill values of the catalogues of a survey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

__all__ = ["FILL_MEANINGS", "CatalogueFormat"]

#: What a fill value can mean: no measurement, or a flux below the detection limit.
FILL_MEANINGS = ("missing", "non-detection")
#: What the columns of values and of errors can hold.
_KINDS = ("flux", "magnitude", "asinh")
_ERROR_KINDS = ("error", "ivar")
_SYSTEMS = ("AB", "Vega")


@dataclass(frozen=True)
class CatalogueFormat:
    """One naming scheme of the photometry in the catalogues of a survey.

    Patterns are names of columns with ``{band}`` for the name of a band, or ``{BAND}`` and
    ``{band_lower}`` for it in upper and lower case.  Names are compared without regard to case.

    Attributes
    ----------
    name : str
        Name of the format, such as ``"tractor"``.
    value : str
        Pattern of the columns of fluxes or magnitudes.
    error : str or None
        Pattern of the columns of their uncertainties; None if the catalogue has none.
    kind : {"flux", "magnitude", "asinh"}
        What ``value`` holds; asinh magnitudes use `Survey.asinh_softening`.
    error_kind : {"error", "ivar"}
        Whether ``error`` holds standard deviations, in the unit of the values, or inverse
        variances.
    unit : str
        Unit of fluxes without unit, such as ``"nmgy"``, ``"nJy"`` or ``"uJy"``; not used for
        magnitudes.
    zero_point : float or None
        AB magnitude of a flux of 1, for fluxes in data numbers; it replaces ``unit``.
    system : {"AB", "Vega"}
        Magnitude system.
    vega_to_ab : dict of str to float
        AB minus Vega magnitude of each band, if ``system`` is ``"Vega"``.
    fill_values : dict of float to str
        Values that are no measurements: ``"missing"`` (not observed, or the fit failed) or
        ``"non-detection"`` (observed, but fainter than the limit).
    band_names : dict of str to str
        Names of bands in the columns, where they differ from the names of the survey.
    dereddened : bool
        Whether the values are already corrected for Galactic extinction.
    extinction : str or None
        Pattern of the columns of the Galactic extinction, mag.
    transmission : str or None
        Pattern of the columns of the fraction of light that Galactic dust transmits.
    ebv : str or None
        Column of E(B-V) of Schlegel, Finkbeiner & Davis (1998), mag.
    names : tuple of str
        Columns of identifiers, in order of preference.
    identifying : tuple of str
        Names of columns, with shell-style wildcards, that only this survey uses: one of them in a
        table is enough to recognise the survey.
    shared : tuple of str
        Names of columns, with wildcards, that several surveys use and that SDSS does not have: the
        survey of a table with one of them has to be named.
    total : bool
        Whether the fluxes are total fluxes; False for fixed apertures, whose colours are better
        than their sums.
    note : str
        What a user should know, in one sentence.

    Examples
    --------
    >>> from astrogenspec.surveys import CatalogueFormat
    >>> tractor = CatalogueFormat(
    ...     "tractor", "flux_{band}", "flux_ivar_{band}", error_kind="ivar", unit="nmgy"
    ... )
    >>> tractor.columns(["FLUX_G", "FLUX_IVAR_G", "FLUX_R"], ("g", "r", "z"))
    {'g': ('FLUX_G', 'FLUX_IVAR_G')}
    """

    name: str
    value: str
    error: str | None = None
    kind: str = "flux"
    error_kind: str = "error"
    unit: str = "nmgy"
    zero_point: float | None = None
    system: str = "AB"
    vega_to_ab: Mapping[str, float] = field(default_factory=dict)
    fill_values: Mapping[float, str] = field(default_factory=dict)
    band_names: Mapping[str, str] = field(default_factory=dict)
    dereddened: bool = False
    extinction: str | None = None
    transmission: str | None = None
    ebv: str | None = None
    names: tuple[str, ...] = ()
    identifying: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    total: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        for key, allowed in (
            ("kind", _KINDS),
            ("error_kind", _ERROR_KINDS),
            ("system", _SYSTEMS),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"{key} of the catalogue format {self.name} is {getattr(self, key)!r}, but it "
                    f"must be one of {', '.join(allowed)}."
                )
        for key in ("value", "error", "extinction", "transmission"):
            pattern = getattr(self, key)
            if pattern is not None and "{" not in pattern:
                raise ValueError(
                    f"{key} of the catalogue format {self.name} is {pattern!r}, but it must "
                    "contain {band}, {BAND} or {band_lower}."
                )
        for value, meaning in self.fill_values.items():
            if meaning not in FILL_MEANINGS:
                raise ValueError(
                    f"the fill value {value:g} of the catalogue format {self.name} means "
                    f"{meaning!r}, but it must be one of {', '.join(FILL_MEANINGS)}."
                )

    def column(self, pattern: str, band: str) -> str:
        """Return the name of the column of a band.

        Parameters
        ----------
        pattern : str
            Pattern, such as `value` or `error`.
        band : str
            Band of the survey.

        Returns
        -------
        str
        """
        label = self.band_names.get(band, band)
        replacements = (
            ("{band_lower}", label.lower()),
            ("{BAND}", label.upper()),
            ("{band}", label),
        )
        for mark, text in replacements:
            pattern = pattern.replace(mark, text)
        return pattern

    def columns(
        self, names: Iterable[str], bands: Iterable[str]
    ) -> dict[str, tuple[str, str | None]]:
        """Find the columns of the photometry in a table.

        Parameters
        ----------
        names : iterable of str
            Names of the columns of the table.
        bands : iterable of str
            Bands of the survey.

        Returns
        -------
        dict of str to tuple
            Names of the columns of the value and of its error in the table, by band, for bands with
            all columns that the format has.
        """
        present = {name.lower(): name for name in names}
        found = {}
        for band in bands:
            value = present.get(self.column(self.value, band).lower())
            error = None
            if self.error is not None:
                error = present.get(self.column(self.error, band).lower())
            if value is not None and (error is not None or self.error is None):
                found[band] = (value, error)
        return found

    def find(self, pattern: str | None, names: Iterable[str], band: str = "") -> str | None:
        """Find one column in a table.

        Parameters
        ----------
        pattern : str or None
            Pattern, such as `extinction`, or the name of a column, such as `ebv`.
        names : iterable of str
            Names of the columns of the table.
        band : str
            Band of the survey, for a pattern.

        Returns
        -------
        str or None
            Name in the table; None if there is no such column.
        """
        if pattern is None:
            return None
        wanted = self.column(pattern, band).lower()
        return next((name for name in names if name.lower() == wanted), None)

    def matches(self, names: Iterable[str], bands: Iterable[str]) -> bool:
        """Return whether a table has the columns of at least one band.

        Parameters
        ----------
        names : iterable of str
            Names of the columns of the table.
        bands : iterable of str
            Bands of the survey.

        Returns
        -------
        bool
        """
        return bool(self.columns(names, bands))

    def identifies(self, names: Iterable[str]) -> bool:
        """Return whether a table has a column that only this survey uses.

        Parameters
        ----------
        names : iterable of str
            Names of the columns of the table.

        Returns
        -------
        bool
        """
        return _any_match(names, self.identifying)

    def shares(self, names: Iterable[str]) -> bool:
        """Return whether a table has a column of this survey that others use as well, but not SDSS.

        Parameters
        ----------
        names : iterable of str
            Names of the columns of the table.

        Returns
        -------
        bool
        """
        return _any_match(names, self.shared)


def _any_match(names: Iterable[str], patterns: Iterable[str]) -> bool:
    lower = [pattern.lower() for pattern in patterns]
    return any(fnmatchcase(name.lower(), pattern) for name in names for pattern in lower)
