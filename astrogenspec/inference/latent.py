"""What the image latent holds: encode, decode, reconstruct, sample, traverse, embed.

The latent of a galaxy is the mean of the Gaussian to which the encoder of the variational autoencoder
(`astrogenspec.inference.vae`) maps its image.  Decoded images are free of noise, and show the bands that an image lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from torch import Tensor

from ..base import Estimator, make_generator
from ..inputs.errors import check_count
from ..inputs.features import to_flux
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..quantities import QUANTITIES, internal_values
from .network import Contexts

__all__ = ["ImageEstimator"]

_BLOCK = 256
#: Draws from which the place of a galaxy is taken before one of its quantities is moved.
_DRAWS_FOR_MEDIAN = 500


class ImageEstimator(Estimator):
    """An estimator whose network has an image latent.

    In all methods ``**options`` are ``bands``, ``position``, ``pixel_scale``, ``ebv`` and ``on_error``, as for
    `PropertyEstimator.predict`; here ``ebv`` is 0 by default.  Images are Quantities in nmgy per pixel of 0.396 arcsec,
    bands u, g, r, i, z.
    """

    def encode(
        self, cutouts: Any, **options: Unpack[InputArguments]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode images.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
        **options
            How to read them; see the class.

        Returns
        -------
        mean, sigma : ndarray, shape (n, latent_size)
            Mean and standard deviation of the latent; NaN for a flagged galaxy.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an image cannot be used.
        """
        parts = [(mean, sigma) for _, mean, sigma in self._encoded(cutouts, None, options)]
        mean, sigma = (np.concatenate(column) for column in zip(*parts, strict=True))
        return mean, sigma

    def decode(self, latent: np.ndarray) -> u.Quantity:
        """Decode latents to images without noise and Galactic extinction.

        Parameters
        ----------
        latent : ndarray, shape (n, latent_size)

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, 5, 64, 64)

        Raises
        ------
        ValueError
            If the shape is another, or a number is not finite.
        """
        self.check_fitted()
        latent = np.asarray(latent, dtype=np.float32)
        size = self.network.vae.latent_size
        if latent.ndim != 2 or latent.shape[1] != size:
            raise ValueError(f"latent has shape {latent.shape}: it must be (n, {size}).")
        if not np.isfinite(latent).all():
            raise ValueError(
                "latent holds numbers that are not finite: leave flagged galaxies out."
            )
        blocks = [latent[k : k + _BLOCK] for k in range(0, len(latent), _BLOCK)] or [latent]
        return np.concatenate([self._decoded(torch.from_numpy(block)) for block in blocks]) * u.nmgy

    def reconstruct(self, cutouts: Any, **options: Unpack[InputArguments]) -> u.Quantity:
        """Encode images and decode them again, to see what the latent keeps.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
        **options
            How to read them; see the class.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, 5, 64, 64)
            With the Galactic extinction of the input; NaN for a flagged galaxy.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an image cannot be used.
        """
        parts = []
        for seen, mean, _ in self._encoded(cutouts, None, options):
            image = self._decoded(torch.from_numpy(np.nan_to_num(mean)))
            image *= 10 ** (-0.4 * seen.photometry.extinction[:, :, None, None].astype(np.float32))
            image[~seen.usable] = np.nan
            parts.append(image)
        return np.concatenate(parts) * u.nmgy

    def sample(self, n: int, *, seed: int | torch.Generator | None = None) -> u.Quantity:
        """Draw images of galaxies that do not exist, from the prior of the latent.

        Parameters
        ----------
        n : int
            Number of images.
        seed : int, `torch.Generator` or None
            Source of randomness.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, 5, 64, 64)
            Without noise and Galactic extinction.

        Raises
        ------
        ValueError
            If ``n`` is not positive.
        """
        self.check_fitted()
        shape = (check_count(n, "n"), self.network.vae.latent_size)
        generator = make_generator(seed)
        latent = torch.randn(shape, generator=generator, device=generator.device)
        return self.decode(latent.cpu().numpy())

    def traverse(
        self,
        cutout: Any,
        quantity: str,
        values: u.Quantity,
        *,
        photometry: Any = None,
        **options: Unpack[InputArguments],
    ) -> u.Quantity:
        """Decode what a galaxy would look like if one of its quantities were another.

        The latent is moved by what the quantity changes in the average galaxy, the other quantities being kept at
        the medians of the posterior; all else in the image stays.

        Parameters
        ----------
        cutout : see `~astrogenspec.coerce_cutouts`
            One galaxy.
        quantity : str
            ``"redshift"``, ``"stellar_mass"``, ``"sfr"``, ``"gas_metallicity"`` or ``"black_hole_mass"``.
        values : Quantity, shape (n_values,)
            Values of the quantity; bare numbers are in its own unit.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Photometry of the galaxy, for the medians.
        **options
            How to read them; see the class.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n_values, 5, 64, 64)
            Without noise and Galactic extinction.

        Raises
        ------
        ValueError
            For an unknown quantity, a value outside of its bounds, or more than one galaxy.
        TypeError, astropy.units.UnitsError
            If an input or the values cannot be used.
        """
        self.check_fitted()
        moved = _one_column(quantity, values)
        defaults: InputArguments = {} if photometry is not None else {"ebv": 0.0}
        settings = InputOptions(**(defaults | options))
        seen = next(iter(ObservationBatches(cutout, photometry, settings)))
        if len(seen) != 1 or not seen.usable[0] or seen.cutouts is None:
            raise ValueError(
                f"cutout holds {len(seen)} galaxies: traverse takes one, with an image."
            )
        with torch.inference_mode():
            inputs = seen.inputs().to(self.device)
            draws = self.network.posterior(inputs).sample(_DRAWS_FOR_MEDIAN, make_generator(0))
            theta = draws.median(dim=1).values
            target = torch.as_tensor(moved, dtype=theta.dtype, device=self.device)
            image = self.network.traverse(inputs, theta, quantity, target)[0]
            return to_flux(image).cpu().numpy() * u.nmgy

    def embed(
        self, cutouts: Any, photometry: Any = None, **options: Unpack[InputArguments]
    ) -> QTable:
        """Tabulate the latents of galaxies, for example for UMAP (`astrogenspec.plotting.latent_map`).

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
        photometry : see `~astrogenspec.coerce_photometry`, optional
            If given, the vector that summarises image and photometry together is tabulated too.
        **options
            How to read them; see the class.

        Returns
        -------
        `~astropy.table.QTable`, n rows
            ``name``; ``latent`` and ``latent_sigma``, shape (n, latent_size); with photometry ``context``, shape
            (n, members * context_size), from the heads that read images; ``flag``. NaN for a galaxy that cannot be used.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an input cannot be used.
        """
        names, flags, columns = [], [], {"latent": [], "latent_sigma": [], "context": []}
        for seen, mean, sigma in self._encoded(cutouts, photometry, options):
            names += seen.names
            flags += seen.flags
            columns["latent"].append(mean)
            columns["latent_sigma"].append(sigma)
            if photometry is not None:
                with torch.inference_mode():
                    contexts = self.network.contexts(seen.inputs().to(self.device))
                    context = _joined(contexts, self.network.config["members"]).cpu().numpy()
                context[~seen.usable] = np.nan
                columns["context"].append(context)
        table = QTable({"name": names})
        for name, parts in columns.items():
            if parts:
                table[name] = np.concatenate(parts)
        table["flag"] = flags
        return table

    def _encoded(
        self, cutouts: Any, photometry: Any, options: InputArguments
    ) -> Iterator[tuple[Observations, np.ndarray, np.ndarray]]:
        """Encode block by block: what was seen, mean and sigma of the latent."""
        self.check_fitted()
        if cutouts is None:
            raise ValueError("cutouts is None: give at least one image.")
        settings = InputOptions(**options, measure=False)
        for seen in ObservationBatches(cutouts, photometry, settings, batch_size=_BLOCK):
            with torch.inference_mode():
                mean, logvar = self.network.latent(seen.inputs().to(self.device))
                mean, sigma = mean.cpu().numpy(), torch.exp(0.5 * logvar).cpu().numpy()
            blank = ~seen.cutouts.bands_present.any(axis=1)
            mean[blank] = sigma[blank] = np.nan
            yield seen, mean, sigma

    def _decoded(self, latent: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return to_flux(self.network.vae.decode(latent.to(self.device))).cpu().numpy()


def _joined(contexts: Contexts, n_heads: int) -> Tensor:
    """Put the vectors of the first heads behind one another, shape (n, n_heads * context_size); NaN of those not asked."""
    _, n, size = contexts.vectors.shape
    joined = contexts.vectors.new_full((n, n_heads, size), torch.nan)
    for k, vectors, weight in zip(contexts.heads, contexts.vectors, contexts.weight, strict=True):
        if k < n_heads:
            read = weight > 0
            joined[read, k] = vectors[read]
    return joined.flatten(1)


def _one_column(quantity: str, values: u.Quantity) -> np.ndarray:
    """Check values of one quantity and give them in units of theta, shape (k,)."""
    moved = internal_values(quantity, values)
    info = QUANTITIES[quantity]
    if moved.ndim != 1 or not len(moved):
        raise ValueError(f"values has shape {moved.shape}: it must be (n_values,).")
    outside = ~((moved > info.lower) & (moved < info.upper))
    if outside.any():
        raise ValueError(
            f"values holds a {quantity} of {moved[outside][0]:g} {info.unit}".rstrip()
            + f": it must lie between {info.lower:g} and {info.upper:g}."
        )
    return moved
