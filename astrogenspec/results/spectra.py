"""Draws of galaxy spectra, the result of `astrogenspec.SpectrumEstimator`.

Each of the (by default sixteen) spectra of a galaxy has the redshift and the other properties of
one draw of a `~astrogenspec.Posterior`.  All are on one grid of vacuum wavelengths in the observed
frame.  Summaries are returned as `specutils.Spectrum` objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..quantities import FLUX_UNIT
from ..surveys import SDSS, Filter, Survey
from .base import GalaxyIndex
from .spectra_io import SpectrumWriter, read_spectra
from .spectral_grid import log_step, shifted_to_rest, smoothed, trusted_at_rest
from .spectrum_arrays import RESOLVING_POWER, SpectrumArrays

if TYPE_CHECKING:
    from astropy.uncertainty import Distribution
    from matplotlib.axes import Axes
    from specutils import Spectrum, SpectrumCollection, SpectrumList

    from .exchange import SpecvizData

__all__ = ["FLUX_UNIT", "RESOLVING_POWER", "SpectrumDraws", "SpectrumWriter"]


class SpectrumDraws(SpectrumArrays):
    """Draws of the spectra of many galaxies.

    Each spectrum belongs to a draw of the posterior of its galaxy, `posterior_draw`. The object is
    immutable.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
        Spectral flux density, stored in single precision in 1e-17 erg/s/cm2/Angstrom. NaN marks
        missing draws or pixels; a galaxy without any draw is unusable.
    wavelength : Quantity, shape (n_wavelength,)
        Increasing vacuum wavelengths in the observed frame.
    redshift : array_like, shape (n_galaxies, n_draws)
        Redshifts of the draws.
    weights : array_like, shape (n_galaxies, n_draws), optional
        Non-negative weights of the draws, scaled to a sum of 1 for each galaxy. Equal by default.
    names : sequence of str, optional
        Names of the galaxies; "0", "1", ... by default.
    flags : sequence of str, optional
        Reason to distrust each galaxy; an empty string where nothing was found.
    photometric_residual : Quantity, shape (n_galaxies, n_draws, 5), optional
        Synthetic minus input magnitude in the bands ugriz; NaN for a band without input.
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), optional
        False where the model has no coverage; such pixels are masked in the spectra returned.
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), optional
        Number of the posterior draw behind each spectrum; -1, the default, where unknown.
    line_flux : mapping of str to Quantity, each of shape (n_galaxies, n_draws), optional
        Fluxes of the emission lines of the draws (1e-17 erg/s/cm2), by their names.
    meta : mapping, optional
        Provenance of the draws (model, seed, ...). The entry ``resolving_power`` overrides the
        default `resolving_power`.
    flag_codes : array_like of int, shape (n_galaxies,), optional
        Codes of `~astrogenspec.flags.Flag`. By default ``Flag.TEXT_ONLY`` where ``flags`` has a
        text.

    Raises
    ------
    TypeError
        If an argument has the wrong type, such as a flux without a unit.
    ValueError
        If shapes differ, the wavelength does not increase, or a value is out of range.
    astropy.units.UnitConversionError
        If a unit has the wrong dimensions.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import SpectrumDraws
    >>> wavelength = np.geomspace(3800, 9200, 500) * u.AA
    >>> unit = 1e-17 * u.erg / u.s / u.cm**2 / u.AA
    >>> flux = np.random.default_rng(1).normal(20, 2, (1, 16, 500)) * unit
    >>> spectra = SpectrumDraws(flux, wavelength, np.full((1, 16), 0.07), names=["NGC 1"])
    >>> spectra
    <SpectrumDraws: 1 galaxy, 16 draws of 500 pixels, 3800-9200 Angstrom>
    >>> spectra.mean.flux.unit
    Unit("1e-17 erg / (Angstrom s cm2)")
    >>> print(spectra.measure(lambda spectrum: spectrum.flux.mean()).pdf_mean().round(0))
    [20.] 1e-17 erg / (Angstrom s cm2)
    """

    def _html_columns(self) -> dict[str, list[str]]:
        from .specutils_views import html_columns

        return html_columns(self)

    @property
    def best(self) -> Spectrum | SpectrumList:
        """The draw of largest weight; among several, the most typical one.

        A `specutils.Spectrum` with the redshift of that draw, the scatter of the draws as
        `~astropy.nddata.StdDevUncertainty` (None if there is only one), a mask of the pixels that
        are not `trusted`, and the meta data ``name``, ``draw``, ``posterior_draw``, ``flags``,
        ``flag`` and ``photometric_residual``. For several galaxies, a `specutils.SpectrumList`. An
        unusable galaxy is NaN and masked.

        The most typical draw has the smallest mean distance from the median over the trusted
        pixels, after all draws are shifted to one redshift; distances are in units of half the 68%
        range, and at most 3.
        """
        from .specutils_views import best_spectra

        return best_spectra(self)

    @property
    def mean(self) -> Spectrum | SpectrumList:
        """The weighted mean of the draws, with their mean redshift; otherwise like `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=False)

    @property
    def median(self) -> Spectrum | SpectrumList:
        """Weighted median of the draws at each pixel, with their mean redshift; see `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=True)

    @property
    def draws(self) -> Spectrum | SpectrumList:
        """All draws as a `specutils.Spectrum`, shape (n_draws, n_wavelength), no uncertainty.

        Its redshift is the mean; redshifts and weights of the draws are in its meta data. For
        several galaxies, a `specutils.SpectrumList`. Not all functions of specutils treat the draws
        separately; `measure` does.
        """
        from .specutils_views import draw_spectra

        return draw_spectra(self)

    def percentile(self, q: float | Sequence[float]) -> Spectrum | SpectrumList:
        """Compute weighted percentiles of the draws at each pixel.

        Parameters
        ----------
        q : float or sequence of float
            Percentiles between 0 and 100.

        Returns
        -------
        `specutils.Spectrum`, or `specutils.SpectrumList` for several galaxies
            Shape (n_wavelength,), or (n_percentiles, n_wavelength) for a sequence; without
            uncertainty, with the mean redshift.

        Raises
        ------
        ValueError
            If a percentile is not between 0 and 100.
        """
        from .specutils_views import percentile_spectra

        return percentile_spectra(self, q)

    def rest_frame(self) -> SpectrumDraws:
        """Shift every draw to its own rest frame.

        Returns
        -------
        SpectrumDraws
            Spectra on a rest-frame grid of the same spacing that covers all draws, NaN outside the
            range of a draw. The flux density is multiplied by 1 + z, which preserves line fluxes,
            and all redshifts are 0. A pixel is trusted if it is trusted in every draw that covers
            it.

        Raises
        ------
        ValueError
            If the wavelength grid is not logarithmic.
        """
        grid = self._wavelength.value
        step = log_step(grid, "rest_frame")
        flux, rest = shifted_to_rest(self._flux.value, grid, self._redshift, step)
        trusted = trusted_at_rest(self._trusted, self._redshift, grid, rest)
        zeros = np.where(np.isfinite(self._redshift), 0.0, np.nan)
        return self._replaced(
            _flux=u.Quantity(flux, FLUX_UNIT, copy=False),
            _wavelength=u.Quantity(rest, u.AA),
            _redshift=zeros,
            _trusted=trusted,
            _best=None,
            _meta=self._meta | {"frame": "rest"},
        )

    def degrade(self, resolution: float) -> SpectrumDraws:
        """Lower the resolving power.

        Parameters
        ----------
        resolution : float
            New resolving power: wavelength over the full width at half maximum of a line.

        Returns
        -------
        SpectrumDraws
            Spectra on the same grid, convolved with the Gaussian in logarithmic wavelength that
            broadens lines from the present `resolving_power` to ``resolution``.

        Raises
        ------
        ValueError
            If ``resolution`` is not positive or exceeds the present resolving power, or the
            wavelength grid is not logarithmic.
        """
        current = self.resolving_power
        if not 0 < resolution <= current:
            raise ValueError(
                f"resolution is {resolution:g}, but must be positive and at most {current:g}, the "
                "resolving power of the spectra."
            )
        grid = self._wavelength.value
        step = log_step(grid, "degrade")
        flux = smoothed(self._flux.value, grid, step, current, float(resolution))
        return self._replaced(
            _flux=u.Quantity(flux, FLUX_UNIT, copy=False),
            _best=None,
            _meta=self._meta | {"resolving_power": float(resolution)},
        )

    def measure(
        self, function: Callable[[Spectrum], Any], *, progress: bool = False
    ) -> Distribution | dict[str, Distribution]:
        """Apply a function to every draw.

        Parameters
        ----------
        function : callable
            Function of one draw, a one-dimensional `specutils.Spectrum` with redshift and mask but
            without uncertainty. It returns a number, array or Quantity, or several of them by name
            (a mapping or a table row; text is ignored), of the same shape for every draw.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies, ...), or dict of them
            Results with n_draws samples. If all weights are equal, sample *k* is draw *k*;
            otherwise draws are resampled in proportion to their weights (deterministic systematic
            resampling). NaN where a draw is missing.

        Raises
        ------
        ValueError
            If no galaxy is usable, ``function`` raises ValueError for every draw, or its results
            have different names or shapes.

        Warns
        -----
        AstroGenSpecWarning
            If ``function`` raises ValueError for some draws; their results are NaN.
        """
        from .specutils_views import measured

        return measured(self, function, progress=progress)

    def photometry(
        self,
        survey: str | Survey = SDSS,
        bands: Sequence[str] | None = None,
        *,
        filters: Sequence[str | Filter] | None = None,
    ) -> u.Quantity:
        """Compute synthetic photometry of every draw.

        Parameters
        ----------
        survey : str or Survey
            Survey with the filter curves.
        bands : sequence of str, optional
            Bands of the survey; all by default.
        filters : sequence of str or Filter, optional
            Filters of any surveys, such as ``["decamDR1-g", "panstarrs-r"]``, in place of the bands
            of one survey.

        Returns
        -------
        Quantity ['nmgy'], shape (n_galaxies, n_draws, n_bands)
            Fluxes on the AB system; NaN where the trusted pixels cover less than 99.5% of the
            band. See `astrogenspec.synthetic.synthetic_flux`.

        Raises
        ------
        ValueError
            If a survey, band or filter is unknown, or ``bands`` and ``filters`` are both given.
        """
        from ..synthetic import synthetic_flux

        values = self._flux.value
        if not self._trusted.all():
            values = np.where(self._trusted[:, None], values, np.float32(np.nan))
        flux = u.Quantity(values, FLUX_UNIT, copy=False)
        return synthetic_flux(self._wavelength, flux, survey, bands, filters=filters)

    def to_specviz(self, galaxy: int | str = 0) -> SpecvizData:
        """Collect spectra, line list and redshift of one galaxy for jdaviz.

        Parameters
        ----------
        galaxy : int or str
            Number or name of the galaxy.

        Returns
        -------
        SpecvizData
            ``spectra`` (best draw, median, 16th and 84th percentile by their labels), ``lines``,
            ``redshift``, and ``load(app)``, which loads them into ``jdaviz.App`` or Specviz.

        Raises
        ------
        ValueError
            If the galaxy has no draws.
        """
        from .exchange import specviz_data

        return specviz_data(self, galaxy)

    def to_collection(self) -> SpectrumCollection:
        """Convert the draws of one galaxy to a collection of spectra.

        Returns
        -------
        `specutils.SpectrumCollection` of n_draws spectra
            Spectra without uncertainties; redshift and weight of each draw are in its meta data.

        Raises
        ------
        ValueError
            If there is not exactly one galaxy.
        """
        from .specutils_views import draws_collection

        return draws_collection(self)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the spectra to a FITS file.

        Parameters
        ----------
        path : path-like
            File to write, ending in ``.fits`` or ``.fit``. `specutils.Spectrum.read` reads the best
            spectrum of the first galaxy from it, without redshift and mask.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; no partial file is left.
        ValueError
            If the path has another ending.
        """
        with SpectrumWriter(path, overwrite=overwrite) as writer:
            writer.append(self)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        galaxies: GalaxyIndex | None = None,
    ) -> SpectrumDraws:
        """Read a file written by `write` or by `SpectrumWriter`.

        Parameters
        ----------
        path : path-like
            File to read.
        galaxies : int, slice or array_like, optional
            Galaxies to read; all by default.

        Returns
        -------
        SpectrumDraws

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        OSError
            If the file is damaged.
        ValueError
            If the file was not written by this package.
        """
        return cls(**read_spectra(path, galaxies))

    def plot(self, galaxy: int | str = 0, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the spectra of one galaxy: best draw, median, 68% and 95% ranges, line labels.

        Parameters
        ----------
        galaxy : int or str
            Number or name of the galaxy.
        ax : `~matplotlib.axes.Axes`, optional
            Axes to draw on.
        **kwargs
            Passed to `astrogenspec.plotting.spectra.spectrum`.

        Returns
        -------
        `~matplotlib.axes.Axes`
        """
        from ..plotting.spectra import spectrum

        return spectrum(self, galaxy, ax=ax, **kwargs)
