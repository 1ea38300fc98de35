"""Images of simulated galaxies in the bands of a survey.

The image of a galaxy is the convolution of its light with the point-spread function and the square
pixel, a product in Fourier space.  Smooth components (bulges, disks without features) have analytic
or tabulated transforms; disks with features are painted on a finer grid and transformed.  The
product is transformed back on the grid of the survey's pixels, because the seeing removes
frequencies beyond their Nyquist frequency; a point-spread function narrower than two pixels, as
those of space telescopes, is limited to it.  Large galaxies get a wider field, so that their
periodic images do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from ..nn.precision import single_precision
from ..surveys import CUTOUT_SIZE, SDSS, Survey, get_survey
from .morphology import paint_disks
from .neighbours import contamination, draw_neighbours, magnitude_shift, render_neighbours
from .priors import Priors, load_priors
from .profiles import (
    EXPONENTIAL_HALF_LIGHT,
    FourierField,
    exponential_transform,
    sersic_transform,
    young_disk_transform,
)
from .psf import draw_point_spread
from .structure import Structure

__all__ = ["ImageRenderer", "RenderedImages", "add_noise"]

#: Side of the field of the largest galaxies (arcsec), at least twice and at most four times the
#: cutout.
_WIDE = 50.0
#: Number of galaxies per batch on fields wider than twice the cutout, which do not fit the cache.
_WIDE_BATCH = 8
#: Longest wavelength (A) at which the sky of an observatory is that of `_DARK_SKY`.
_OPTICAL = 10500.0
#: Typical sky brightness (AB mag per square arcsecond) in u, g, r, i, z and y at the Rubin
#: Observatory, and pivot wavelengths (A); used where a survey states neither electrons nor sky.
_DARK_SKY = (22.65, 22.07, 21.10, 19.99, 19.04, 18.28)
_DARK_SKY_WAVELENGTH = (3716.0, 4787.0, 6208.0, 7549.0, 8674.0, 9746.0)
#: Scatter of the sky brightness in bands without a prior (mag; assumed).
_SKY_SCATTER = 0.15
_COMPANION_SERSIC = 2.0
#: Disks with a smaller half-light radius along the minor axis (arcsec) need cells finer than the
#: pixels.
_THIN = 0.7


@dataclass(frozen=True, eq=False)
class RenderedImages:
    """Noise-free images of n galaxies.

    Attributes
    ----------
    flux : Tensor, shape (n, b, size, size)
        Nanomaggies per pixel, neighbours included.
    psf_fwhm : Tensor, shape (n, b)
        Seeing, full width at half maximum (arcsec).
    fibre_fraction : Tensor, shape (n, 3)
        Fraction of the light of [bulge, old disk, young disk] that enters the spectrograph's fibre;
        NaN if the survey has none.
    neighbour_flux : Tensor, shape (n, b)
        Flux of other sources that photometry would attribute to the galaxy (nmgy).
    """

    flux: Tensor
    psf_fwhm: Tensor
    fibre_fraction: Tensor
    neighbour_flux: Tensor

    def __len__(self) -> int:
        return len(self.flux)


class ImageRenderer:
    """Render images of galaxies from their structure and the fluxes of their components.

    Parameters
    ----------
    survey : Survey or str
        Bands, pixels and seeing of any survey, or its name.
    size : int
        Even number of pixels on a side of the images.
    device : torch.device or str
        Device of the images.
    priors : Priors, optional
        ``load_priors("structure")`` by default.
    batch_size : int
        Number of galaxies per batch; it changes the order of the random numbers.

    Examples
    --------
    >>> import torch
    >>> from astrogenspec.simulate.images import ImageRenderer
    >>> from astrogenspec.simulate.structure import Structure
    >>> galaxies = Structure.smooth(torch.tensor([2.0]), torch.tensor([1.0]))
    >>> images = ImageRenderer().render(galaxies, torch.ones(1, 5, 3), torch.Generator())
    >>> images.flux.shape
    torch.Size([1, 5, 64, 64])
    """

    def __init__(
        self,
        survey: Survey | str = SDSS,
        size: int = CUTOUT_SIZE,
        device: torch.device | str = "cpu",
        *,
        priors: Priors | None = None,
        batch_size: int = 32,
    ):
        if size % 2 or size < 16:
            raise ValueError(f"size is {size}; an even number of at least 16 is expected.")
        survey = get_survey(survey)
        widths = [width.to_value(u.arcsec) for width in survey.psf_fwhm.values()]
        if survey.pixel_scale is None or not np.isfinite(widths).all():
            raise ValueError(
                f"the survey {survey.name} has no pixel scale, or no seeing in some band; add "
                "pixel_scale and psf_fwhm to its file."
            )
        self.survey = survey
        self.size = size
        self.device = torch.device(device)
        self.priors = load_priors("structure") if priors is None else priors
        self.batch_size = batch_size
        self.pixel_scale = float(survey.pixel_scale.to_value(u.arcsec))
        self._reference = survey.bands.index(survey.reference_band or survey.bands[0])

    @single_precision()
    def render(
        self,
        structure: Structure,
        component_flux: Tensor,
        generator: torch.Generator,
        *,
        neighbours: bool = True,
        agn_flux: Tensor | None = None,
    ) -> RenderedImages:
        """Render noise-free images.

        Parameters
        ----------
        structure : Structure
            n galaxies.
        component_flux : Tensor, shape (n, b, 3)
            Fluxes of [bulge, old disk, young disk] in each band (nmgy).
        generator : torch.Generator
            Source of all randomness.
        neighbours : bool
            Add unrelated sources, and the companions of the structure.
        agn_flux : Tensor, shape (n, b), optional
            Flux of a point source in the centre (nmgy).

        Returns
        -------
        RenderedImages

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        n, bands = len(structure), len(self.survey.bands)
        if tuple(component_flux.shape) != (n, bands, 3):
            raise ValueError(
                f"component_flux has shape {tuple(component_flux.shape)}; {(n, bands, 3)} is "
                "expected."
            )
        if agn_flux is not None and tuple(agn_flux.shape) != (n, bands):
            raise ValueError(
                f"agn_flux has shape {tuple(agn_flux.shape)}; {(n, bands)} is expected."
            )
        flux = component_flux.to(self.device, torch.float32)
        agn = torch.zeros_like(flux[..., 0]) if agn_flux is None else agn_flux.to(flux)
        structure = structure.to(self.device)
        out = RenderedImages(
            torch.empty(n, bands, self.size, self.size, device=self.device),
            torch.empty(n, bands, device=self.device),
            torch.empty(n, 3, device=self.device),
            torch.empty(n, bands, device=self.device),
        )
        for field, group in self._groups(structure):
            wide = field.pixels > 2 * self.size
            for rows in group.split(min(self.batch_size, _WIDE_BATCH) if wide else self.batch_size):
                part = self._render_batch(
                    structure[rows], flux[rows], agn[rows], field, generator, neighbours
                )
                for f in fields(RenderedImages):
                    getattr(out, f.name)[rows] = getattr(part, f.name)
        return out

    @cached_property
    def _fields(self) -> dict[str, FourierField]:
        """Fields for galaxies of different sizes."""
        narrow, wide = self.size + 16, 2 * self.size
        widest = self._widest
        small = 3 * narrow // 5 // 2 * 2
        layout = {
            "compact": (narrow, 2, 2 * small),
            "thin": (narrow, 2, 2 * narrow),
            "ordinary": (narrow, 1, narrow),
            "large": (wide, 1, wide),
            "huge": (widest, 1, widest),
        }
        return {
            name: FourierField(
                pixels, self.pixel_scale, fineness=fineness, painted=painted, device=self.device
            )
            for name, (pixels, fineness, painted) in layout.items()
        }

    @property
    def _widest(self) -> int:
        """Pixels on a side of the field of the largest galaxies."""
        cutouts = math.ceil(_WIDE / (self.size * self.pixel_scale))
        return min(max(cutouts, 2), 4) * self.size

    @cached_property
    def _fibre_weights(self) -> dict[FourierField, Tensor]:
        diameter = self.survey.fibre_diameter
        radius = 0.0 if diameter is None else float(diameter.to_value(u.arcsec)) / 2
        seeing = self.priors.fibre_seeing
        return {f: f.aperture_weights(radius, seeing) for f in self._fields.values()}

    def _groups(self, structure: Structure) -> list[tuple[FourierField, Tensor]]:
        """Fields with their galaxies; those with and without features are separate."""
        reach = (self.size + 16) * self.pixel_scale / 2
        disk, features = structure.radius_disk, structure.has_features
        large = (disk > reach / 4) | (structure.radius_bulge > reach / 5)
        half = self.size * self.pixel_scale
        huge = (disk > half / 4) | (structure.radius_bulge > half / 5)
        huge &= self._widest > 2 * self.size
        large &= ~huge
        thin = (disk * structure.axis_ratio_disk < _THIN) | (structure.dust_lane > 0)
        compact = disk < reach / 6
        narrow = features & ~large & ~huge
        groups = {
            "compact": [narrow & thin & compact],
            "thin": [narrow & thin & ~compact],
            "ordinary": [narrow & ~thin, ~features & ~large & ~huge],
            "large": [features & large, ~features & large],
            "huge": [features & huge, ~features & huge],
        }
        chosen = [
            (self._fields[name], torch.nonzero(mask)[:, 0])
            for name, masks in groups.items()
            for mask in masks
        ]
        return [(field, rows) for field, rows in chosen if len(rows)]

    def _render_batch(
        self,
        structure: Structure,
        flux: Tensor,
        agn: Tensor,
        field: FourierField,
        generator: torch.Generator,
        neighbours: bool,
    ) -> RenderedImages:
        """Render galaxies on one field, either all with features or all without."""
        n = len(structure)
        psf = draw_point_spread(n, self.survey, self.priors, generator, self.device)
        seeing = psf.fwhm[:, self._reference]
        jitter = torch.rand(2, n, generator=generator, device=generator.device) - 0.5
        centre = ((field.pixels - 1) / 2 + jitter.to(self.device)) * field.pixel_scale
        light = self._light(structure, field, generator)
        inside = self._inside_fibre(light, field)
        blur = psf.transform(field.wave_y, field.wave_x)
        spectrum = _convolve(light, flux, field.shifts(*centre), blur)
        if agn.any():
            points = torch.ones_like(light[:, :1].real)
            spectrum = spectrum + _convolve(points, agn[..., None], field.shifts(*centre), blur)
        blended = torch.zeros_like(agn)
        if neighbours:
            total = flux.sum(2) + agn
            blended = self._add_companions(spectrum, structure, total, centre, field, blur, seeing)
        images = field.image(spectrum, self.size)
        if neighbours:
            width = self.size * self.pixel_scale
            others = draw_neighbours(n, width, self.priors, generator, self.device, self.survey)
            images = images + render_neighbours(others, psf, self.size, self.pixel_scale)
            distance = torch.hypot(others.x, others.y)
            blended = blended + contamination(others.flux, distance, seeing)
        return RenderedImages(images, psf.fwhm, inside.clamp(0, 1), blended)

    def _inside_fibre(self, light: Tensor, field: FourierField) -> Tensor:
        """Fraction of the light (n, 3, ny, nx) that enters the fibre, shape (n, 3)."""
        if self.survey.fibre_diameter is None:
            return torch.full(light.shape[:2], torch.nan, device=self.device)
        return light.flatten(2).real @ self._fibre_weights[field].flatten()

    def _light(self, s: Structure, field: FourierField, generator: torch.Generator) -> Tensor:
        """Return transforms (n, 3, ny, nx) of [bulge, old disk, young disk], each of unit flux."""
        waves = field.elliptical_waves(s.position_angle, s.axis_ratio_bulge, s.radius_bulge)
        bulge = sersic_transform(waves, s.sersic_bulge)
        if s.has_features.any():
            disks = paint_disks(s, self.priors, generator, cells=field.painted, step=field.step)
            old, young = (field.transform(disk) for disk in disks)
            return torch.stack([bulge.to(old.dtype), old, young], 1)
        scale = s.radius_disk / EXPONENTIAL_HALF_LIGHT
        waves = field.elliptical_waves(s.position_angle, s.axis_ratio_disk, scale)
        return torch.stack([bulge, exponential_transform(waves), young_disk_transform(waves)], 1)

    def _add_companions(
        self,
        spectrum: Tensor,
        structure: Structure,
        total: Tensor,
        centre: Tensor,
        field: FourierField,
        blur: Tensor,
        seeing: Tensor,
    ) -> Tensor:
        """Add companions to the transforms, in place; return their blended flux (n, b)."""
        reach = 0.5 * field.pixels * field.pixel_scale
        blended = torch.zeros_like(total)
        present = (structure.companion_ratio > 0) & (structure.companion_distance < reach)
        some = torch.nonzero(present)[:, 0]
        if not len(some):
            return blended
        s = structure[some]
        flux = total[some] * s.companion_ratio[:, None]
        flux = flux * 10 ** (-0.4 * magnitude_shift(s.companion_colour, self.survey))
        distance, angle = s.companion_distance, s.companion_angle
        blended[some] = contamination(flux[:, None], distance[:, None], seeing[some])
        waves = field.elliptical_waves(
            s.companion_position_angle, s.companion_axis_ratio, s.companion_size
        )
        light = sersic_transform(waves, torch.full_like(distance, _COMPANION_SERSIC))
        offset = torch.stack([distance * torch.sin(angle), distance * torch.cos(angle)])
        shifts = field.shifts(*(centre[:, some] + offset))
        spectrum[some] += _convolve(light[:, None], flux[..., None], shifts, blur[some])
        return blended


def _convolve(light: Tensor, flux: Tensor, shifts: tuple[Tensor, Tensor], blur: Tensor) -> Tensor:
    """Return the sum of components (n, c, ny, nx) times fluxes (n, b, c), blurred and shifted."""
    shift = (shifts[0][:, :, None] * shifts[1][:, None, :])[:, None]
    if not light.is_complex():
        return (flux @ light.flatten(2)).unflatten(2, light.shape[2:]) * blur * shift
    pairs = torch.view_as_real(light * shift).flatten(2)
    return torch.view_as_complex((flux @ pairs).unflatten(2, (*light.shape[2:], 2))) * blur


def add_noise(
    flux: Tensor, survey: Survey | str, generator: torch.Generator, *, priors: Priors | None = None
) -> tuple[Tensor, Tensor]:
    """Add photon noise of galaxy and sky, detector noise, and a residual background to images.

    The variance in DN^2 is (flux + sky) / (calibration * gain) + dark variance, as in the data
    model of SDSS frames.  For surveys without gain and calibration, it is that of a sky pixel
    (``pixel_sigma``, which follows from the depth) and of the flux over the number of electrons per
    nanomaggy; where that is unknown, it follows from the noise of a pixel and the sky brightness,
    or that of a dark site, in the optical, and is left out beyond.  Sky brightness and calibration
    vary from image to image, and the sky subtraction leaves a small constant.  Photon noise is
    approximated by a Gaussian: the sky alone has tens of electrons in every pixel.

    Parameters
    ----------
    flux : Tensor, shape (n, b, ny, nx)
        Nanomaggies per pixel.
    survey : Survey or str
        Noise of each band of any survey, or its name.
    generator : torch.Generator
        Source of randomness.
    priors : Priors, optional
        ``load_priors("structure")`` by default.

    Returns
    -------
    noisy, ivar : Tensor, shape (n, b, ny, nx)
        Observed flux (nmgy per pixel) and its true inverse variance.

    Raises
    ------
    ValueError
        If the number of bands is wrong, or the noise of a band is unknown.
    """
    priors = load_priors("structure") if priors is None else priors
    survey = get_survey(survey)
    device, n, bands = flux.device, flux.shape[0], survey.bands
    if flux.ndim != 4 or flux.shape[1] != len(bands):
        raise ValueError(
            f"flux has shape {tuple(flux.shape)}; (n, {len(bands)}, ny, nx) is expected for the "
            f"bands {', '.join(bands)} of the survey {survey.name}."
        )

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device).to(device)

    scatter = [priors.get(f"sky_scatter_{b}", _SKY_SCATTER) for b in bands]
    sky_shift = torch.tensor(scatter, dtype=torch.float32, device=device) * normal(n, len(bands))
    factor = torch.exp(priors.calibration_scatter * normal(n, len(bands)))
    per_flux, floor = _variances(survey, sky_shift, factor)
    variance = flux.clamp(min=0) * per_flux[..., None, None] + floor[..., None, None]
    noisy = flux + normal(*flux.shape) * torch.sqrt(variance)
    background = priors.background_scatter * torch.sqrt(floor) * normal(n, len(bands))
    return noisy + background[..., None, None], 1 / variance


def _variances(survey: Survey, sky_shift: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Variance per nanomaggy of a source, and that of a sky pixel (nmgy^2), shape (n, b).

    Parameters
    ----------
    survey : Survey
        b bands.
    sky_shift : Tensor, shape (n, b)
        Sky brightness relative to the typical one (mag).
    factor : Tensor, shape (n, b)
        Calibration relative to the typical one.
    """

    def column(values) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=sky_shift.device)

    unit = u.mag(u.AB / u.arcsec**2)
    if survey.pixel_scale is None:
        raise ValueError(
            f"the survey {survey.name} has no pixel scale; add pixel_scale to its file."
        )
    area = survey.pixel_scale.to_value(u.arcsec) ** 2
    brightness = column(q.to_value(unit) for q in survey.sky_brightness.values())
    per_dn, gain, dark = (
        column(values.values())
        for values in (survey.nmgy_per_dn, survey.gain, survey.dark_variance)
    )
    if (per_dn * gain * dark * brightness).isfinite().all():
        sky = 10 ** (0.4 * (22.5 - (brightness + sky_shift))) * area
        calibration = per_dn * factor
        per_flux = calibration / gain
        return per_flux, per_flux * sky + calibration**2 * dark
    sigma = column(survey.pixel_sigma.values())
    if not sigma.isfinite().all():
        band = survey.bands[int((~sigma.isfinite()).nonzero()[0])]
        raise ValueError(
            f"the noise of the band {band} of the survey {survey.name} is unknown; add its depth "
            "and psf_fwhm, or pixel_sigma, to the file of the survey."
        )
    pivot = np.array([q.to_value(u.AA) for q in survey.pivot_wavelength.values()])
    dark_sky = np.interp(np.log(pivot), np.log(_DARK_SKY_WAVELENGTH), _DARK_SKY)
    dark_sky = column(np.where(pivot < _OPTICAL, dark_sky, np.inf))
    sky = 10 ** (0.4 * (22.5 - torch.where(brightness.isfinite(), brightness, dark_sky))) * area
    electrons = column(survey.electrons_per_nmgy.values())
    per_flux = torch.where(electrons.isfinite(), 1 / electrons, sigma**2 / sky)
    per_flux = torch.where(per_flux.isfinite(), per_flux, 0.0)
    return per_flux * factor, (sigma * 10 ** (-0.2 * sky_shift)) ** 2
