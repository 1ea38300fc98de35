"""Names of the columns of feature vectors."""

from __future__ import annotations

__all__ = ["SED_SUMMARY", "FeatureLayout"]


class FeatureLayout:
    """Names of the columns of a feature vector.

    Parameters
    ----------
    **groups : tuple of str
        Names of the columns, by group, in the order of the columns.

    Examples
    --------
    >>> from astrogenspec.inputs.features import PHOTOMETRY_FEATURES
    >>> PHOTOMETRY_FEATURES.slice("log_snr")
    slice(9, 14, None)
    >>> PHOTOMETRY_FEATURES.index("magnitude_r")
    2
    """

    def __init__(self, **groups: tuple[str, ...]) -> None:
        self._groups = groups

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(name for group in self._groups.values() for name in group)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the index of a column.

        Parameters
        ----------
        name : str
            Name of the column.

        Returns
        -------
        int
        """
        return self.names.index(name)

    def slice(self, group: str) -> slice:
        """Return the slice of the columns of a group.

        Parameters
        ----------
        group : str
            Name of the group.

        Returns
        -------
        slice
        """
        start = self.index(self._groups[group][0])
        return slice(start, start + len(self._groups[group]))

    def columns(self, *groups: str) -> tuple[int, ...]:
        """Return the indices of the columns of one or more groups.

        Parameters
        ----------
        *groups : str
            Names of the groups.

        Returns
        -------
        tuple of int
        """
        return tuple(self.index(name) for group in groups for name in self._groups[group])


#: First columns of the features of photometry in any filters (`astrogenspec.inputs.sed_features`):
#: number of bands, whether they were measured on the image, magnitude of the galaxy relative to the
#: mean spectrum and its relative error, and misfit.
SED_SUMMARY = FeatureLayout(
    n_bands=("n_bands",),
    measured=("measured",),
    magnitude=("magnitude",),
    magnitude_error=("magnitude_error",),
    misfit=("misfit",),
)
