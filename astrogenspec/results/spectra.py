"""Draws of galaxy spectra: the result of every generation of spectra.

Sixteen spectra of each galaxy, say, each with the redshift and the other properties of the same draw of a
`~astrogenspec.Posterior`, on one grid of vacuum wavelengths in the frame of the observer.  What is made of them are
`specutils.Spectrum` objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..quantities import FLUX_UNIT
from ..surveys import SDSS, Survey
from .base import GalaxyIndex
from .spectra_io import SpectrumWriter, read_spectra
from .spectral_grid import log_step, shifted_to_rest, smoothed, trusted_at_rest
from .spectrum_arrays import RESOLVING_POWER, SpectrumArrays

if TYPE_CHECKING:
    from astropy.uncertainty import Distribution
    from matplotlib.axes import Axes
    from specutils import Spectrum, SpectrumCollection, SpectrumList

__all__ = ["FLUX_UNIT", "RESOLVING_POWER", "SpectrumDraws", "SpectrumWriter"]


class SpectrumDraws(SpectrumArrays):
    """Hold draws of the spectra of many galaxies.

    Each draw of a galaxy belongs to a draw of its posterior, `posterior_draw`. The object does not
    change after it is made.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
        Spectral flux density, kept in single precision in 1e-17 erg/s/cm2/Angstrom. NaN marks
        draws or pixels that do not exist; a galaxy with nothing but NaN is unusable.
    wavelength : Quantity, shape (n_wavelength,)
        Rising vacuum wavelengths in the frame of the observer.
    redshift : array_like, shape (n_galaxies, n_draws)
        Redshift of every draw.
    weights : array_like, shape (n_galaxies, n_draws), optional
        Not negative; scaled to add up to 1 for each galaxy. Equal by default.
    names : sequence of str, optional
        Names of the galaxies; their numbers, counted from 0, by default.
    flags : sequence of str, optional
        Reason to distrust each galaxy; an empty string where nothing was found.
    photometric_residual : Quantity, shape (n_galaxies, n_draws, 5), optional
        Synthetic minus input magnitude in the bands ugriz; NaN for a band without input.
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), optional
        False where the model has no coverage; such pixels are masked in what is handed out.
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), optional
        Number of the draw of the posterior each spectrum belongs to; -1 where it is not known, as
        by default.
    meta : mapping, optional
        What made the draws (model, seed, ...). The entry ``resolving_power`` says what `degrade`
        starts from.
    flag_codes : array_like of int, shape (n_galaxies,), optional
        Codes of `astrogenspec.Flag`. By default `Flag.TEXT_ONLY` where ``flags`` has a text.

    Raises
    ------
    TypeError
        If something is of another kind, such as a flux without unit.
    ValueError
        If shapes differ, the wavelength does not rise, or a value is out of range.
    astropy.units.UnitConversionError
        If a unit does not fit.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import SpectrumDraws
    >>> wavelength = np.geomspace(3800, 9200, 500) * u.AA
    >>> flux = np.random.default_rng(1).normal(20, 2, (1, 16, 500)) * 1e-17 * u.erg / u.s / u.cm**2 / u.AA
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
        """The draw of the largest weight; of several such, the most typical one.

        A `specutils.Spectrum` with the redshift of that draw, the scatter of the draws as
        `~astropy.nddata.StdDevUncertainty` (None if there is only one), a mask of the pixels that
        are not `trusted`, and in its meta data ``name``, ``draw``,
        ``posterior_draw``, ``flag`` and ``photometric_residual``. Several galaxies make a `specutils.SpectrumList`. An unusable
        galaxy is NaN and masked. The most typical draw is that of the least mean distance from the median over the trusted
        pixels, in units of half the 68% range and at most 3 of them, when all draws are brought to one redshift.
        """
        from .specutils_views import best_spectra

        return best_spectra(self)

    @property
    def mean(self) -> Spectrum | SpectrumList:
        """The weighted mean of the draws, with their mean redshift; otherwise as `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=False)

    @property
    def median(self) -> Spectrum | SpectrumList:
        """The weighted median of the draws at each pixel, with their mean redshift; otherwise as `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=True)

    @property
    def draws(self) -> Spectrum | SpectrumList:
        """All draws as a `specutils.Spectrum` of shape (n_draws, n_wavelength), without uncertainty.

        It has the mean redshift; those of the draws, and their weights, are in its meta data.
        Several galaxies make a `specutils.SpectrumList`. Beware that not all functions of
        specutils keep the draws apart; `measure` does.
        """
        from .specutils_views import draw_spectra

        return draw_spectra(self)

    def percentile(self, q: float | Sequence[float]) -> Spectrum | SpectrumList:
        """Give weighted percentiles of the draws at each pixel.

        Parameters
        ----------
        q : float or sequence of float
            Between 0 and 100.

        Returns
        -------
        `specutils.Spectrum`, or `specutils.SpectrumList` if there are several galaxies
            Of shape (n_wavelength,), or (n_percentiles, n_wavelength) for a sequence; without
            uncertainty, with the mean redshift.

        Raises
        ------
        ValueError
            If a number is not between 0 and 100.
        """
        from .specutils_views import percentile_spectra

        return percentile_spectra(self, q)

    def rest_frame(self) -> SpectrumDraws:
        """Bring every draw to its own rest frame.

        Returns
        -------
        SpectrumDraws
            On a rest-frame grid of the same spacing that holds all draws, NaN where a draw does
            not reach; the flux density is multiplied by 1 + z, so that line fluxes stay what they
            were, and all redshifts are 0. A pixel is trusted if every draw that reaches it
            trusts it.

        Raises
        ------
        ValueError
            If the wavelength is not equally spaced in its logarithm.
        """
        grid = self._wavelength.value
        step = log_step(grid, "the rest frame")
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
            Resolving power wanted: wavelength over the full width at half maximum of a line.

        Returns
        -------
        SpectrumDraws
            On the same grid, convolved with a Gaussian in the logarithm of the wavelength that
            takes lines from the present `resolving_power` to the one wanted.

        Raises
        ------
        ValueError
            If the resolving power wanted is not positive or is higher than the present one, or
            the wavelength is not equally spaced in its logarithm.
        """
        current = self.resolving_power
        if not 0 < resolution <= current:
            raise ValueError(
                f"resolution is {resolution:g}, but the spectra have a resolving power of {current:g}; give a "
                f"positive number that is not larger, as spectra cannot be sharpened."
            )
        grid = self._wavelength.value
        step = log_step(grid, "degrading")
        flux = smoothed(self._flux.value, grid, step, current, float(resolution))
        return self._replaced(
            _flux=u.Quantity(flux, FLUX_UNIT, copy=False),
            _best=None,
            _meta=self._meta | {"resolving_power": float(resolution)},
        )

    def measure(
        self, function: Callable[[Spectrum], Any], *, progress: bool = False
    ) -> Distribution | dict[str, Distribution]:
        """Measure something on every draw.

        Parameters
        ----------
        function : callable
            Takes one draw as a `specutils.Spectrum` of one dimension, with its redshift and mask,
            without uncertainty; returns a number or Quantity, or several of them by name (mapping,
            or row of a table; their text is left out). Arrays, and so tables of several rows, must
            keep their shape.
        progress : bool
            Show a progress bar.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies, ...), or dict of them
            With n_draws samples. Sample *k* is draw *k* if all weights are equal; otherwise draws
            are repeated or left out as their weights demand, without randomness. NaN where a draw
            does not exist.

        Raises
        ------
        ValueError
            If no galaxy is usable, ``function`` raises ValueError for every draw, or returns
            results that do not fit one another.

        Warns
        -----
        AstroGenSpecWarning
            If ``function`` raises ValueError for some draws, whose results are NaN.
        """
        from .specutils_views import measured

        return measured(self, function, progress=progress)

    def photometry(
        self, survey: str | Survey = SDSS, bands: Sequence[str] | None = None
    ) -> u.Quantity:
        """Integrate every draw over the bands of a survey.

        Parameters
        ----------
        survey : str or Survey
            Whose filters.
        bands : sequence of str, optional
            Bands of the survey; all of them by default.

        Returns
        -------
        Quantity ['nmgy'], shape (n_galaxies, n_draws, n_bands)
            Nanomaggies on the AB system; NaN where the trusted pixels hold less than 99.5% of the
            band. See `astrogenspec.synthetic.synthetic_flux`.
        """
        from ..synthetic import synthetic_flux

        values = self._flux.value
        if not self._trusted.all():
            values = np.where(self._trusted[:, None], values, np.float32(np.nan))
        flux = u.Quantity(values, FLUX_UNIT, copy=False)
        return synthetic_flux(self._wavelength, flux, survey, bands)

    def to_collection(self) -> SpectrumCollection:
        """Hand the draws of one galaxy out as separate spectra.

        Returns
        -------
        `specutils.SpectrumCollection` of n_draws spectra
            Without uncertainties; the redshift and weight of each draw are in its meta data.

        Raises
        ------
        ValueError
            If there is not exactly one galaxy.
        """
        from .specutils_views import draws_collection

        return draws_collection(self)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to a FITS file.

        Parameters
        ----------
        path : path-like
            Ending in ``.fits`` or ``.fit``. `specutils.Spectrum.read` reads the best spectrum of
            the (first) galaxy from it, without redshift and mask.
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; nothing is left behind.
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
        """Read a file that was made by `write` or by `SpectrumWriter`.

        Parameters
        ----------
        path : path-like
            The file.
        galaxies : int, slice or array_like, optional
            Which galaxies; the others are not read. All by default.

        Returns
        -------
        SpectrumDraws

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        OSError
            If the file is damaged.
        ValueError
            If the file was made by something else.
        """
        return cls(**read_spectra(path, galaxies))

    def plot(self, galaxy: int | str = 0, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the spectra of one galaxy: best draw, median, ranges of 68% and 95%, and line labels.

        Parameters
        ----------
        galaxy : int or str
            Number or name.
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
