r"""Broad-band fluxes and fibre spectra from masses on the stellar grid and line luminosities.

The luminosity density of a part of a galaxy is the sum of the grid's spectra, weighted by mass
formed, times the transmission of the dust.  The observed flux density at :math:`\lambda (1 + z)` is

.. math:: f_\lambda = \frac{L_\lambda}{4 \pi d_L^2 (1 + z)} .

`SpectralSynthesis.broad_band` integrates the filters on the coarse grid (fast);
`SpectralSynthesis.seds` averages the light of whole galaxies, lines included, over the bins of
`~astrogenspec.wavelengths.SED_GRID`, from which the flux in any filter follows;
`SpectralSynthesis.spectra` makes the observed spectrum in the fibre on a vacuum grid of 1e-4 dex,
broadened by the velocity dispersion and the spectrograph.  Both use the same components, dust and
lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..nn.records import TensorRecord
from ..surveys import SDSS, Survey, get_filter
from ..wavelengths import (
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    LINES,
    PIXEL_VELOCITY,
    REST,
    SED_GRID,
    LogGrid,
    add_lines,
    line_index,
    narrow_line_velocity,
)
from .dust import stellar_transmission
from .histories import COMPONENTS
from .interpolation import interpolate
from .nebular import RED_LINES, NebularLines, red_lines
from .photometry import MAX_SHIFT, shifted_filters
from .population import Distances, Galaxies, Normal
from .priors import Priors
from .ssp import COARSE, FINE, TOTAL, StellarGrid

__all__ = ["OBSERVED", "PARTS", "BroadBand", "RestFrame", "SpectralSynthesis", "flux_factor"]

#: Parts of a galaxy with different light profiles; the nucleus is a point source.
PARTS = ("bulge", "old_disk", "young_disk", "nucleus")
#: Observed-frame grid of the fibre spectra, 2951-11294 A.
OBSERVED = LogGrid(FINE.start + 1300 * FINE.step, FINE.step, 5830)
_LSUN = 3.828e33  # erg/s
_MPC = 3.0857e24  # cm
_SPECTROGRAPH = 0.6  # dispersion of the spectrograph in excess of that of the library, pixels
_FFT = 8192
_NUCLEAR_SLOPE = -1.56  # f_lambda of the nuclear continuum, Vanden Berk et al. (2001)
_LN10 = float(np.log(10))
#: Nanomaggies per 1e-17 erg/s/cm2/A times A**2: the AB system, 3631 Jy for a maggy.
_NMGY = 1e-17 * 1e9 / (2.99792458e18 * 3.631e-20)
#: Wavelength (A) beyond which the slopes of galaxies scatter by more than stars and dust explain.
_RED = 6000.0
_NUCLEUS = PARTS.index("nucleus")


def flux_factor(redshift: Tensor, distances: Distances) -> Tensor:
    """Compute the factor from Lsun/A (rest frame) to 1e-17 erg/s/cm2/A (observed).

    Parameters
    ----------
    redshift : Tensor, shape (n,)
    distances : Distances
        Tabulated cosmology.

    Returns
    -------
    Tensor, shape (n, 1)
    """
    distance = interpolate(redshift, distances.redshift, distances.luminosity_distance).double()
    factor = _LSUN / (4 * np.pi * (distance * _MPC) ** 2 * (1 + redshift.double())) * 1e17
    return factor.float()[:, None]


@dataclass(frozen=True)
class RestFrame(TensorRecord):
    """Continuum and line fluxes through k apertures, in observed units.

    Attributes
    ----------
    continuum : Tensor, shape (n, k, 6400)
        At the rest-frame wavelengths of `astrogenspec.wavelengths.REST`, 1e-17 erg/s/cm2/A,
        broadened by velocities and spectrograph.
    narrow : Tensor, shape (n, k, 17)
        Fluxes of the narrow lines, 1e-17 erg/s/cm2.
    broad : Tensor, shape (n, k, 2)
        Fluxes of the broad lines Hbeta and Halpha, 1e-17 erg/s/cm2.
    """

    continuum: Tensor
    narrow: Tensor
    broad: Tensor


@dataclass(frozen=True)
class BroadBand(TensorRecord):
    """Observed fluxes of `PARTS` (last axis).

    Attributes
    ----------
    flux : Tensor, shape (n, n_bands + 1, 4)
        The survey's bands and 2MASS J, AB nanomaggies, without the survey's zero-point offsets.
    line_flux : Tensor, shape (n, 17, 4)
        Narrow lines, 1e-17 erg/s/cm2.
    halpha_continuum : Tensor, shape (n, 4)
        Continuum at Halpha; ``line_flux`` over it is the rest-frame equivalent width (A).
    """

    flux: Tensor
    line_flux: Tensor
    halpha_continuum: Tensor


@dataclass
class SpectralSynthesis:
    """Synthesis of the spectra of galaxies.

    Parameters
    ----------
    grid : StellarGrid
        Spectra of simple stellar populations.
    distances : Distances
        Tabulated cosmology.
    dust : Priors
        Group ``dust``.
    correction : Priors
        Group ``stellar_correction``: a smooth empirical factor on the stellar spectra.
    survey : Survey
        Bands.
    """

    grid: StellarGrid
    distances: Distances
    dust: Priors
    correction: Priors
    survey: Survey = SDSS

    def __post_init__(self):
        device = self.grid.coarse.device
        self._filters = shifted_filters(self.survey).to(device)
        self._projection = _sed_filters(self.survey).to(device)
        self._local = float(torch.log10(1 + self.distances.redshift[-1])) < 1e-4 * (MAX_SHIFT + 1)
        self._basis = {
            COARSE: (self._corrected(self.grid.coarse, COARSE), self.grid.nebular_coarse),
            FINE: (self._corrected(self.grid.fine, FINE), self.grid.nebular_fine),
            TOTAL: (self._corrected(self.grid.total, TOTAL), self.grid.nebular_total),
        }

    def _corrected(self, spectra: Tensor, grid: LogGrid) -> Tensor:
        """Spectra times the empirical corrections of old and young stars."""
        log_wavelength = np.log(grid.wavelength)

        def curve(prefix: str) -> Tensor:
            knots = {k: v for k, v in self.correction.items() if k.startswith(prefix)}
            order = sorted(knots, key=lambda name: float(name.removeprefix(prefix)))
            positions = np.log([float(name.removeprefix(prefix)) for name in order])
            values = [knots[name] for name in order]
            factor = np.exp(np.interp(log_wavelength, positions, values))
            return torch.tensor(factor, dtype=torch.float32).to(spectra)

        young = (self.grid.ages < 1e9).repeat(len(self.grid.log_metallicity))[:, None]
        return spectra * curve("old_") * torch.where(young, curve("young_"), 1.0)

    def _red_slope(self, galaxies: Galaxies, wavelength: Tensor) -> Tensor:
        """Factor of each galaxy on its light beyond `_RED`, shape (n, m)."""
        slope = self.correction.red_slope_scatter * galaxies["normal"][Normal.RED_SLOPE]
        return torch.exp(slope[:, None] * torch.log(wavelength / _RED))

    def _parts(
        self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines, grid: LogGrid
    ) -> tuple[Tensor, Tensor]:
        """Rest-frame continua of `PARTS` (n, 4, m), and that of old stars at Halpha (n, 1)."""
        basis, nebular = self._basis[grid]
        wavelength = torch.tensor(grid.wavelength, dtype=torch.float32).to(basis)
        stars, clouds = stellar_transmission(galaxies, wavelength, self.dust.bump)
        mass = dict(zip(COMPONENTS, weights, strict=True))
        bulge = (mass["bulge"] @ basis) * stars**self.dust.bulge_exponent
        old = (mass["old_disk"] @ basis) * stars
        newborn = mass["birth_clouds"] @ basis + lines.halpha_intrinsic[:, None] * nebular
        young = (mass["young_disk"] @ basis + newborn * clouds) * stars
        nucleus = lines.continuum_5100[:, None] * (wavelength / 5100.0) ** _NUCLEAR_SLOPE
        parts = torch.stack([bulge, old, young, nucleus], dim=1)
        red = int(np.searchsorted(grid.wavelength, _RED))
        parts[:, :_NUCLEUS, red:] *= self._red_slope(galaxies, wavelength[red:])[:, None]
        near = np.abs(grid.log_wavelength - np.log10(LINES["Halpha"])) < 0.015
        old_stars = parts[:, : PARTS.index("old_disk") + 1, torch.tensor(near)]
        at_halpha = old_stars.sum(1).mean(1, keepdim=True)
        return parts, at_halpha

    def _narrow_lines(self, galaxies: Galaxies, lines: NebularLines, at_halpha: Tensor) -> Tensor:
        """Narrow-line luminosities (Lsun) of each of `PARTS`, shape (n, 17, 4)."""
        old = lines.old_gas * at_halpha * galaxies["lier_ew"][:, None]
        return torch.stack([0.5 * old, 0.5 * old, lines.star_forming, lines.nuclear], dim=2)

    def broad_band(
        self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines
    ) -> BroadBand:
        """Compute broad-band and line fluxes of each part.

        Parameters
        ----------
        galaxies : Galaxies
            n galaxies.
        weights : list of Tensor, each of shape (n, 427)
            From `~astrogenspec.simulate.histories.Histories.weights`.
        lines : NebularLines
            Luminosities of the emission lines.

        Returns
        -------
        BroadBand
        """
        grid = COARSE if self._local else TOTAL
        spectrum, at_halpha = self._parts(galaxies, weights, lines, grid)
        near = np.abs(grid.log_wavelength - np.log10(LINES["Halpha"])) < 0.008
        continuum = spectrum[:, :, torch.tensor(near)].mean(2)
        pixel, width = _line_bins(list(LINES.values()), grid, spectrum)
        narrow = self._narrow_lines(galaxies, lines, at_halpha)
        for part in range(len(PARTS)):
            spectrum[:, part].index_add_(1, pixel, narrow[..., part] / width)
        for luminosity, name in ((lines.broad_halpha, "Halpha"), (lines.broad_hbeta, "Hbeta")):
            k = line_index(name)
            spectrum[:, _NUCLEUS, pixel[k]] += luminosity / width[k]
        z = galaxies["redshift"]
        if self._local:
            shift = torch.round(torch.log10(1 + z.double()) * 1e4).long()
            fluxes = torch.einsum("npl,nlb->nbp", spectrum, self._filters[shift])
        else:
            fluxes = torch.einsum("npl,lb->nbp", _observed(spectrum, z), self._projection)
        factor = flux_factor(z, self.distances)
        of_lines = factor * (1 + z)[:, None]
        return BroadBand(
            flux=fluxes * factor[:, None],
            line_flux=narrow * of_lines[:, None],
            halpha_continuum=continuum * of_lines,
        )

    def seds(self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines) -> Tensor:
        r"""Compute the observed spectral energy distributions of whole galaxies.

        Photons are conserved: the light of each rest-frame bin is shared among the observed bins
        that it overlaps, as :math:`\lambda^2 f_\lambda\, d\ln\lambda`.

        Returns
        -------
        Tensor, shape (n, 490)
            Mean flux density per unit of frequency in the bins of
            `~astrogenspec.wavelengths.SED_GRID`, AB nanomaggies: stars, dust, nucleus, nebular
            continuum and lines, on the AB system (without the zero-point offsets of a survey).
        """
        z = galaxies["redshift"]
        total = self._total(galaxies, weights, lines).sum(1, keepdim=True)
        return _observed(total, z)[:, 0] * flux_factor(z, self.distances)

    def part_seds(self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines) -> Tensor:
        """Compute the observed spectral energy distributions of each part of galaxies.

        Returns
        -------
        Tensor, shape (n, 4, 490)
            As `seds`, for each of `PARTS`.
        """
        z = galaxies["redshift"]
        factor = flux_factor(z, self.distances)[:, None]
        return _observed(self._total(galaxies, weights, lines), z) * factor

    def _total(self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines) -> Tensor:
        """Rest-frame light of `PARTS` with lines on `TOTAL`, shape (n, 4, 1440)."""
        parts, at_halpha = self._parts(galaxies, weights, lines, TOTAL)
        narrow = self._narrow_lines(galaxies, lines, at_halpha)
        narrow = torch.cat([narrow, red_lines(galaxies, narrow)], dim=1)
        wavelengths = [*LINES.values(), *(wavelength for wavelength, _, _ in RED_LINES.values())]
        pixel, width = _line_bins(wavelengths, TOTAL, parts)
        parts.index_add_(2, pixel, narrow.transpose(1, 2) / width)
        pixel, width = _line_bins([LINES[name] for name in BROAD_LINES], TOTAL, parts)
        broad = torch.stack([lines.broad_hbeta, lines.broad_halpha], dim=1)
        parts[:, _NUCLEUS].index_add_(1, pixel, broad / width)
        return parts

    def spectra(
        self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines, fibre: Tensor
    ) -> Tensor:
        """Compute the observed spectrum of the light that enters the fibre.

        Parameters
        ----------
        fibre : Tensor, shape (n, 4)
            Fraction of the light of each of `PARTS` that enters the fibre; ones give the total
            spectrum.

        Returns
        -------
        Tensor, shape (n, 5830)
            1e-17 erg/s/cm2/A on `OBSERVED`; NaN blueward of 2188 A in the rest frame for the deep
            population.
        """
        parts, at_halpha = self._parts(galaxies, weights, lines, FINE)
        z = galaxies["redshift"]
        observed = self._light(
            galaxies, parts, fibre, torch.log10(1 + z.double()) / FINE.step, OBSERVED
        )
        if not self._local:
            rest = torch.tensor(OBSERVED.log_wavelength).to(z.device) - torch.log10(1 + z)[:, None]
            observed = observed.masked_fill(rest < FINE.start, torch.nan)
        narrow, broad = self._line_fluxes(galaxies, lines, at_halpha, fibre)
        velocity = narrow_line_velocity(galaxies["velocity_dispersion"])
        observed = add_lines(observed, OBSERVED, LINE_NAMES, narrow, velocity, z)
        broad_line = torch.nonzero(lines.broad_halpha > 0)[:, 0]
        if len(broad_line):
            velocity = torch.full_like(z[broad_line], BROAD_VELOCITY)
            observed[broad_line] = add_lines(
                observed[broad_line],
                OBSERVED,
                BROAD_LINES,
                broad[broad_line],
                velocity,
                z[broad_line],
            )
        return observed

    def rest_frame(
        self, galaxies: Galaxies, weights: list[Tensor], lines: NebularLines, fibre: Tensor
    ) -> RestFrame:
        """Compute continuum and lines separately, as functions of rest-frame wavelength.

        Parameters
        ----------
        fibre : Tensor, shape (n, k, 4)
            Fraction of the light of each of `PARTS` in each of k apertures.
        """
        parts, at_halpha = self._parts(galaxies, weights, lines, FINE)
        no_shift = torch.zeros_like(galaxies["redshift"]).double()
        continuum, narrow, broad = [], [], []
        for fraction in fibre.unbind(1):
            continuum.append(self._light(galaxies, parts, fraction, no_shift, REST))
            fluxes = self._line_fluxes(galaxies, lines, at_halpha, fraction)
            narrow.append(fluxes[0])
            broad.append(fluxes[1])
        return RestFrame(*(torch.stack(values, dim=1) for values in (continuum, narrow, broad)))

    def _light(
        self, galaxies: Galaxies, parts: Tensor, fraction: Tensor, shift: Tensor, grid: LogGrid
    ) -> Tensor:
        """Observed continuum through an aperture, broadened and shifted by ``shift`` pixels."""
        rest = torch.einsum("npl,np->nl", parts, fraction)
        broadened = _shift_and_broaden(rest, shift, galaxies["velocity_dispersion"], grid)
        return broadened * flux_factor(galaxies["redshift"], self.distances)

    def _line_fluxes(
        self, galaxies: Galaxies, lines: NebularLines, at_halpha: Tensor, fraction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Observed fluxes through an aperture: narrow (n, 17) and broad (n, 2), 1e-17 erg/s/cm2."""
        z = galaxies["redshift"]
        factor = flux_factor(z, self.distances) * (1 + z)[:, None]
        luminosity = torch.einsum(
            "nlp,np->nl", self._narrow_lines(galaxies, lines, at_halpha), fraction
        )
        broad = (
            torch.stack([lines.broad_hbeta, lines.broad_halpha], 1) * fraction[:, _NUCLEUS, None]
        )
        return luminosity * factor, broad * factor


def _line_bins(wavelengths: list[float], grid: LogGrid, like: Tensor) -> tuple[Tensor, Tensor]:
    """Bins (k,) that contain lines of k rest-frame wavelengths, and their widths (A)."""
    position = torch.tensor(wavelengths, dtype=torch.float64, device=like.device)
    pixel = torch.round((torch.log10(position) - grid.start) / grid.step).long()
    return pixel, torch.tensor(grid.wavelength).to(like)[pixel] * grid.step * _LN10


def _observed(rest: Tensor, redshift: Tensor) -> Tensor:
    """Convert rest-frame spectra to nanomaggies per Lsun/A times the flux factor.

    Parameters
    ----------
    rest : Tensor, shape (n, k, 1440)
        L_lambda on `TOTAL`.
    redshift : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, k, 490)
        On `SED_GRID`.
    """
    z = redshift.double()[:, None]
    photons = rest.double() * torch.tensor(TOTAL.wavelength, device=rest.device) ** 2
    shift = torch.log10(1 + z).expand(rest.shape[:2]).flatten()[:, None]
    mean = _rebinned(photons.flatten(0, 1), shift).reshape(*rest.shape[:2], -1)
    return (mean * ((1 + z) ** 2 * _NMGY)[:, :, None]).float()


def _sed_filters(survey: Survey) -> Tensor:
    """Weights of the survey's bands and 2MASS J on `SED_GRID`, shape (490, n_bands + 1)."""
    curves = [survey.filters[band] for band in survey.bands] + [get_filter("twomass-J")]
    weights = [SED_GRID.average_weights(c.wavelength, c.response) for c in curves]
    return torch.tensor(np.stack(weights, axis=1), dtype=torch.float32)


def _rebinned(values: Tensor, shift: Tensor) -> Tensor:
    """Average values on `TOTAL` over the bins of `SED_GRID`.

    Parameters
    ----------
    values : Tensor, shape (n, 1440)
        Values per logarithm of the wavelength; zero outside the grid.
    shift : Tensor, shape (n, 1)
        log10(1 + z).

    Returns
    -------
    Tensor, shape (n, 490)
    """
    cumulative = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    edges = torch.tensor(np.log10(SED_GRID.edges), device=values.device)
    position = (edges - shift - (TOTAL.start - TOTAL.step / 2)) / TOTAL.step
    position = position.clamp(0, TOTAL.size)
    low = position.long().clamp(max=TOTAL.size - 1)
    below, above = cumulative.gather(1, low), cumulative.gather(1, low + 1)
    at_edges = below + (position - low) * (above - below)
    return at_edges.diff(dim=1) * (TOTAL.step / SED_GRID.step)


def _shift_and_broaden(rest: Tensor, shift: Tensor, dispersion: Tensor, grid: LogGrid) -> Tensor:
    """Shift spectra and convolve them with the line-of-sight velocities, in Fourier space.

    Parameters
    ----------
    rest : Tensor, shape (n, 7250)
        Spectra on `FINE`.
    shift : Tensor, shape (n,)
        Shift (pixels).
    dispersion : Tensor, shape (n,)
        Velocity dispersion (km/s).
    grid : LogGrid
        Pixels to return, with the step of `FINE`.
    """
    width = torch.sqrt((dispersion / PIXEL_VELOCITY) ** 2 + _SPECTROGRAPH**2)[:, None]
    frequency = torch.arange(_FFT // 2 + 1, device=rest.device) / _FFT
    padded = torch.cat([rest, rest[:, -1:].expand(-1, _FFT - rest.shape[1])], dim=1)
    amplitude = torch.exp(-2 * np.pi**2 * frequency**2 * width**2)
    phase = (-2 * np.pi * frequency * shift[:, None].float()).remainder(2 * np.pi)
    kernel = torch.polar(amplitude, phase)
    shifted = torch.fft.irfft(torch.fft.rfft(padded) * kernel, n=_FFT)
    first = round((grid.start - FINE.start) / FINE.step)
    return shifted[:, first : first + grid.size]
