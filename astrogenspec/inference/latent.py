"""Methods of the image latent: encode, decode, reconstruct, predict, sample, traverse, embed.

The latent vector of a galaxy is the mean of the Gaussian to which the encoder of the variational
autoencoder (`astrogenspec.inference.vae`) maps its image. Decoded images are noise-free and have
all bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from torch import Tensor

from ..base import Estimator, make_generator
from ..inputs.cutouts import Cutouts
from ..inputs.errors import check_count
from ..inputs.features import PIXEL_SIGMA, to_flux
from ..inputs.filter_sets import sdss_filters
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..inputs.photometry import ANY_FILTER_MODEL, Photometry
from ..inputs.sed_features import SEDComponents, SEDInference, infer_photometry
from ..inputs.survey_names import SurveyLike, resolve_surveys
from ..inputs.virtual_images import virtual_images
from ..quantities import QuantityInfo, internal_values
from .network import Contexts

__all__ = ["ImageEstimator"]

_DECODE_BATCH = 256
#: Error of a pixel of the decoded image: of the sky, in units of its noise in SDSS, and relative
#: error, without that common to all bands (60 simulated galaxies).
_DECODED_SKY = 0.25
_DECODED_ERROR = (0.25, 0.03, 0.03, 0.03, 0.08)
#: Number of draws for the posterior medians from which `ImageEstimator.traverse` starts.
_DRAWS_FOR_MEDIAN = 500


class ImageEstimator(Estimator):
    """Estimator whose network has a latent representation of images.

    In all methods ``**options`` are ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``
    and ``on_error``, as for `PropertyEstimator.predict`; here ``ebv`` is 0 by default. Images are
    Quantities in nmgy per pixel of 0.396 arcsec, in the bands u, g, r, i, z.
    """

    def encode(
        self, cutouts: Cutouts, **options: Unpack[InputArguments]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode images.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
            Images of one or more galaxies.
        **options
            Input options; see the class.

        Returns
        -------
        mean, sigma : ndarray, shape (n, latent_size)
            Mean and standard deviation of the latent; NaN for a flagged galaxy.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an image is invalid.
        """
        parts = [(mean, sigma) for _, mean, sigma in self._encoded(cutouts, None, options)]
        mean, sigma = (np.concatenate(column) for column in zip(*parts, strict=True))
        return mean, sigma

    def decode(self, latent: np.ndarray) -> u.Quantity:
        """Decode latent vectors to images without noise and Galactic extinction.

        Parameters
        ----------
        latent : ndarray, shape (n, latent_size)
            Latent vectors.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, 5, 64, 64)

        Raises
        ------
        ValueError
            If the shape is wrong, or a value is not finite.
        """
        self.check_fitted()
        self._check_images()
        latent = np.asarray(latent)
        if latent.dtype.kind not in "iuf":
            raise TypeError(f"latent has the type {latent.dtype}: it must hold real numbers.")
        latent = latent.astype(np.float32)
        size = self.network.vae.latent_size
        if latent.ndim != 2 or latent.shape[1] != size:
            raise ValueError(f"latent has shape {latent.shape}: it must be (n, {size}).")
        if not np.isfinite(latent).all():
            raise ValueError("latent contains values that are not finite: omit flagged galaxies.")
        starts = range(0, len(latent), _DECODE_BATCH)
        batches = [latent[k : k + _DECODE_BATCH] for k in starts] or [latent]
        return np.concatenate([self._decode(torch.from_numpy(batch)) for batch in batches]) * u.nmgy

    def reconstruct(self, cutouts: Cutouts, **options: Unpack[InputArguments]) -> u.Quantity:
        """Encode and decode images, which shows what the latent retains.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
            Images of one or more galaxies.
        **options
            Input options; see the class.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, 5, 64, 64)
            With the Galactic extinction of the input; NaN for a flagged galaxy.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an image is invalid.
        """
        parts = []
        for seen, mean, _ in self._encoded(cutouts, None, options):
            image = self._decode(torch.from_numpy(np.nan_to_num(mean)))
            sdss = seen.photometry.with_filters(sdss_filters())
            extinction = np.asarray(sdss.extinction)[:, :, None, None]
            image *= 10 ** (-0.4 * extinction.astype(np.float32))
            image[~seen.usable] = np.nan
            parts.append(image)
        return np.concatenate(parts) * u.nmgy

    def predict_images(
        self,
        cutouts: Cutouts,
        target: SurveyLike = "lsst",
        *,
        photometry: Photometry | None = None,
        **options: Unpack[InputArguments],
    ) -> u.Quantity:
        """Predict the images of galaxies in the filters of another survey.

        The decoded image, without noise, has the seeing and the pixels of SDSS; the spectrum of
        every pixel is inferred from it, with that of the galaxy as the prior
        (`astrogenspec.inputs.virtual_images`).

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
            Images of one or more galaxies.
        target : str, Survey, or a sequence of these
            Survey whose images are predicted, in all of its bands.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Photometry of the galaxies in any filters, from which their spectrum follows; that of
            the decoded image by default. Filters of the target beyond those of the image are
            reliable only with photometry near them.
        **options
            Input options; see the class.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n, m, 64, 64)
            In the m bands of the target, with the Galactic extinction of the input; NaN for a
            flagged galaxy.

        Raises
        ------
        ValueError
            If the weights read photometry of SDSS only, or an image or survey cannot be used.
        TypeError, astropy.units.UnitsError
            If an input cannot be read.
        """
        self.check_fitted()
        components = self.network.components
        if components is None:
            raise ValueError(
                f"these weights know the filters of SDSS only; use {ANY_FILTER_MODEL!r}, which "
                "know any filters."
            )
        filters = [
            each.filters[band] for each in resolve_surveys(target) or () for band in each.bands
        ]
        components.responses_of(filters)
        parts = []
        for seen, mean, _ in self._encoded(cutouts, photometry, options):
            decoded = torch.from_numpy(self._decode(torch.from_numpy(np.nan_to_num(mean))))
            galaxies = _spectra_of(components, seen, decoded)
            error = _DECODED_SKY * torch.tensor(PIXEL_SIGMA), torch.tensor(_DECODED_ERROR)
            image = virtual_images(decoded, error, sdss_filters(), filters, galaxies, components)
            extinction = np.asarray(seen.photometry.with_filters(filters).extinction)
            factor = 10 ** (-0.4 * extinction[:, :, None, None].astype(np.float32))
            result = image.numpy() * factor
            result[~seen.usable | np.isnan(mean).any(axis=1)] = np.nan
            parts.append(result)
        return np.concatenate(parts) * u.nmgy

    def sample(self, n: int, *, seed: int | torch.Generator | None = None) -> u.Quantity:
        """Draw images of artificial galaxies from the prior of the latent.

        Parameters
        ----------
        n : int
            Number of images.
        seed : int, `torch.Generator` or None
            Seed of the random numbers.

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
        latent = torch.randn(
            shape, generator=generator, device=generator.device, dtype=torch.float32
        )
        return self.decode(latent.cpu().numpy())

    def traverse(
        self,
        cutout: Cutouts,
        quantity: str,
        values: u.Quantity,
        *,
        photometry: Photometry | None = None,
        **options: Unpack[InputArguments],
    ) -> u.Quantity:
        """Decode the image of a galaxy for other values of one quantity.

        The latent vector is shifted by the mean effect of the quantity, with the other quantities
        at the medians of the posterior; everything else in the image is unchanged.

        Parameters
        ----------
        cutout : see `~astrogenspec.coerce_cutouts`
            Image of one galaxy.
        quantity : str
            ``"redshift"``, ``"stellar_mass"``, ``"sfr"``, ``"gas_metallicity"`` or
            ``"black_hole_mass"``.
        values : Quantity, shape (n_values,)
            Values of the quantity; plain numbers are in its default unit.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Photometry of the galaxy, for the posterior medians.
        **options
            Input options; see the class.

        Returns
        -------
        images : Quantity ['nmgy'], shape (n_values, 5, 64, 64)
            Without noise and Galactic extinction.

        Raises
        ------
        ValueError
            If the quantity is unknown, a value is outside its bounds, or more than one galaxy is
            given.
        TypeError, astropy.units.UnitsError
            If an input or the values are invalid.
        """
        self.check_fitted()
        self._check_images()
        target_values = _checked_values(quantity, values, self.network.quantities)
        defaults: InputArguments = {} if photometry is not None else {"ebv": 0.0}
        settings = InputOptions(**(defaults | options), size=self._cutout_size)
        seen = next(iter(ObservationBatches(cutout, photometry, settings)), None)
        if seen is None:
            raise ValueError("cutout is empty: traverse needs one galaxy with a valid image.")
        if len(seen) != 1 or not seen.usable[0] or seen.cutouts is None:
            raise ValueError(
                f"cutout holds {len(seen)} galaxies: traverse needs one galaxy with a valid image."
            )
        with torch.inference_mode():
            inputs = seen.inputs(self.network.components).to(self.device)
            draws = self.network.posterior(inputs).sample(_DRAWS_FOR_MEDIAN, make_generator(0))
            theta = draws.median(dim=1).values
            target = torch.as_tensor(target_values, dtype=theta.dtype, device=self.device)
            image = self.network.traverse(inputs, theta, quantity, target)[0]
            return to_flux(image).cpu().numpy() * u.nmgy

    def embed(
        self,
        cutouts: Cutouts,
        photometry: Photometry | None = None,
        **options: Unpack[InputArguments],
    ) -> QTable:
        """Tabulate the latent vectors of galaxies.

        The table can be mapped with UMAP, for example (`astrogenspec.plotting.latent_map`).

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`
            Images of one or more galaxies.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Photometry of the galaxies; adds the context vectors to the table.
        **options
            Input options; see the class.

        Returns
        -------
        `~astropy.table.QTable`, n rows
            ``name``; ``latent`` and ``latent_sigma``, shape (n, latent_size); with photometry
            ``context``, shape (n, n_heads * context_size), of the heads that read images; ``flags``
            (codes of `astrogenspec.Flag`) and ``flag`` (text). NaN for a galaxy without a valid
            image.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an input is invalid.
        """
        names: list[str] = []
        flags: list[str] = []
        codes: list[np.ndarray] = []
        columns: dict[str, list[np.ndarray]] = {"latent": [], "latent_sigma": [], "context": []}
        for seen, mean, sigma in self._encoded(cutouts, photometry, options):
            names += seen.names
            flags += seen.flags
            codes.append(seen.flag_codes)
            columns["latent"].append(mean)
            columns["latent_sigma"].append(sigma)
            if photometry is not None:
                with torch.inference_mode():
                    inputs = seen.inputs(self.network.components).to(self.device)
                    contexts = self.network.contexts(inputs)
                    n_heads = self.network.config["members"]
                    context = _concatenate_heads(contexts, n_heads).cpu().numpy()
                context[~seen.usable] = np.nan
                columns["context"].append(context)
        table = QTable({"name": names})
        for name, parts in columns.items():
            if parts:
                table[name] = np.concatenate(parts)
        table["flags"] = np.concatenate(codes)
        table["flag"] = flags
        return table

    @property
    def _cutout_size(self) -> int:
        return self.network.cutout_size

    def _check_images(self) -> None:
        """Raise an error if the weights were trained without images."""
        card = self.card or {}
        if card.get("inputs") == ["photometry"]:
            raise ValueError(
                f"the weights {card.get('name', '')!r} were trained on photometry without images "
                "and cannot use any; give photometry alone, or use other weights."
            )

    def _read(
        self,
        cutouts: Cutouts | None,
        photometry: Photometry | None,
        options: InputOptions,
        batch_size: int | None = None,
    ) -> ObservationBatches:
        if cutouts is not None and self.card is not None:
            self._check_images()
        return super()._read(cutouts, photometry, options, batch_size)

    def _encoded(
        self, cutouts: Cutouts, photometry: Photometry | None, options: InputArguments
    ) -> Iterator[tuple[Observations, np.ndarray, np.ndarray]]:
        """Yield the observations of each batch with mean and sigma of the latent vectors."""
        if cutouts is None:
            self.check_fitted()
            raise ValueError("cutouts is None: give at least one image.")
        empty = True
        for seen in self._read(cutouts, photometry, InputOptions(**options, measure=False)):
            with torch.inference_mode():
                inputs = seen.inputs(self.network.components).to(self.device)
                mean, logvar = self.network.latent(inputs)
                mean, sigma = mean.cpu().numpy(), torch.exp(0.5 * logvar).cpu().numpy()
            blank = np.ones(len(seen), dtype=bool)
            if seen.cutouts is not None:
                blank[:] = ~seen.cutouts.bands_present.any(axis=1)
            mean[blank] = sigma[blank] = np.nan
            empty = False
            yield seen, mean, sigma
        if empty:
            raise ValueError("cutouts is empty: give at least one galaxy.")

    def _decode(self, latent: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return to_flux(self.network.vae.decode(latent.to(self.device))).cpu().numpy()


def _spectra_of(components: SEDComponents, seen: Observations, decoded: Tensor) -> SEDInference:
    """Infer the spectra of galaxies from their photometry, else from their decoded images."""
    total = decoded.sum((2, 3)).double()
    own = np.asarray(seen.photometry.bands_present).any(axis=1) & ~seen.photometry.measured
    found = components.infer(
        total,
        torch.tensor(_DECODED_ERROR) * total.abs(),
        components.responses_of(sdss_filters()),
        torch.zeros(len(_DECODED_ERROR)),
    )
    if not own.any():
        return found
    given = infer_photometry(components, seen.photometry)
    rows = torch.from_numpy(own)
    columns = [
        torch.where(rows.reshape(-1, *[1] * (a.dim() - 1)), a, b)
        for a, b in ((getattr(given, f.name), getattr(found, f.name)) for f in fields(given))
    ]
    return SEDInference(*columns)


def _concatenate_heads(contexts: Contexts, n_heads: int) -> Tensor:
    """Return the contexts of the first heads, shape (n, n_heads * context_size); NaN if unused."""
    _, n, size = contexts.vectors.shape
    joined = contexts.vectors.new_full((n, n_heads, size), torch.nan)
    for k, vectors, weight in zip(contexts.heads, contexts.vectors, contexts.weight, strict=True):
        if k < n_heads:
            used = weight > 0
            joined[used, k] = vectors[used]
    return joined.flatten(1)


def _checked_values(
    quantity: str, values: u.Quantity, infos: Mapping[str, QuantityInfo]
) -> np.ndarray:
    """Return values of one quantity in internal units, shape (n_values,)."""
    checked = internal_values(quantity, values)
    info = infos[quantity]
    if checked.ndim != 1 or not len(checked):
        raise ValueError(f"values has shape {checked.shape}: it must be (n_values,).")
    outside = ~((checked > info.lower) & (checked < info.upper))
    if outside.any():
        raise ValueError(
            f"values contains a {quantity} of {checked[outside][0]:g} {info.unit}".rstrip()
            + f": it must lie between {info.lower:g} and {info.upper:g} for these weights."
        )
    return checked
