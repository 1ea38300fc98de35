r"""Broad-band fluxes and fibre spectra from masses on the stellar grid and line luminosities.

The luminosity density of a part of a galaxy is the sum of the grid's spectra, weighted by mass
formed, times the transmission of the dust.  The observed flux density at :math:`\lambda (1 + z)` is

.. math:: f_\lambda = \frac{L_\lambda}{4 \pi d_L^2 (1 + z)} .

`SpectralSynthesis.broad_band` integrates the filters on the coarse grid (fast);
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
from ..surveys import SDSS, Survey
from ..wavelengths import (
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    LINES,
    PIXEL_VELOCITY,
    REST,
    LogGrid,
    add_lines,
    line_index,
    narrow_line_velocity,
)
from .dust import stellar_transmission
from .histories import COMPONENTS
from .interpolation import interpolate
from .nebular import NebularLines
from .photometry import shifted_filters
from .population import Distances, Galaxies, Normal
from .priors import Priors
from .ssp import COARSE, FINE, StellarGrid

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
        self._coarse = self._corrected(self.grid.coarse, COARSE)
        self._fine = self._corrected(self.grid.fine, FINE)
        self._rest = torch.tensor(list(LINES.values()), dtype=torch.float64, device=device)

    def _corrected(self, spectra: Tensor, grid: LogGrid) -> Tensor:
        """Spectra times the empirical corrections of old and young stars."""
        log_wavelength = np.log(grid.wavelength)

        def curve(prefix: str) -> Tensor:
            knots = {k: v for k, v in self.correction.items() if k.startswith(prefix)}
            positions = np.log([float(name.removeprefix(prefix)) for name in knots])
            values = list(knots.values())
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
        fine = grid is FINE
        basis = self._fine if fine else self._coarse
        nebular = self.grid.nebular_fine if fine else self.grid.nebular_coarse
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
        spectrum, at_halpha = self._parts(galaxies, weights, lines, COARSE)
        near = np.abs(COARSE.log_wavelength - np.log10(LINES["Halpha"])) < 0.008
        continuum = spectrum[:, :, torch.tensor(near)].mean(2)
        pixel = torch.round((torch.log10(self._rest) - COARSE.start) / COARSE.step).long()
        width = torch.tensor(COARSE.wavelength).to(spectrum)[pixel] * COARSE.step * _LN10
        narrow = self._narrow_lines(galaxies, lines, at_halpha)
        for part in range(len(PARTS)):
            spectrum[:, part].index_add_(1, pixel, narrow[..., part] / width)
        for luminosity, name in ((lines.broad_halpha, "Halpha"), (lines.broad_hbeta, "Hbeta")):
            k = line_index(name)
            spectrum[:, _NUCLEUS, pixel[k]] += luminosity / width[k]
        z = galaxies["redshift"]
        shift = torch.round(torch.log10(1 + z.double()) * 1e4).long()
        fluxes = torch.einsum("npl,nlb->nbp", spectrum, self._filters[shift])
        factor = flux_factor(z, self.distances)
        of_lines = factor * (1 + z)[:, None]
        return BroadBand(
            flux=fluxes * factor[:, None],
            line_flux=narrow * of_lines[:, None],
            halpha_continuum=continuum * of_lines,
        )

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
            1e-17 erg/s/cm2/A on `OBSERVED`.
        """
        parts, at_halpha = self._parts(galaxies, weights, lines, FINE)
        z = galaxies["redshift"]
        observed = self._light(
            galaxies, parts, fibre, torch.log10(1 + z.double()) / FINE.step, OBSERVED
        )
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
