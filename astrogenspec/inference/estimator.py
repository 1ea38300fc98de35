"""Images and photometry in, a joint posterior of galaxy properties out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from tqdm import tqdm

from ..base import bar_wanted, make_generator
from ..blocks import InputArguments, InputOptions, ObservationBlocks, positive_int
from ..calibration.recalibration import Recalibration
from ..posterior import Posterior
from ..quantities import QUANTITIES
from .drawing import chain_prefix, check_rows, draw_block, known_values, log_densities
from .latent import ImageEstimator
from .learning import LearningEstimator
from .model import PropertyNetwork

__all__ = ["PropertyEstimator"]

#: Bytes that one draw takes while a posterior is put together: nine numbers of four bytes, twice.
_BYTES_PER_DRAW = 2 * 4 * len(QUANTITIES)
#: Pairs of galaxy and theta whose densities are evaluated at once.
_DENSITIES = 50_000


class PropertyEstimator(LearningEstimator, ImageEstimator):
    """Infer redshift, stellar mass, star-formation rate, metallicity, black-hole mass and line fluxes.

    Parameters
    ----------
    network : PropertyNetwork
        The network.
    card : dict, optional
        What is known of its weights; without a card the network counts as never trained.
    device : str or `torch.device`
        Where the network runs.

    Examples
    --------
    Photometry alone, with AB magnitudes as observed and the Galactic reddening:

    >>> import astropy.units as u
    >>> from astrogenspec import PropertyEstimator
    >>> estimator = PropertyEstimator.from_pretrained()  # doctest: +SKIP
    >>> galaxy = {"g": 17.6 * u.ABmag, "r": 16.8 * u.ABmag, "i": 16.4 * u.ABmag, "ebv": 0.03 * u.mag}
    >>> galaxy |= {f"{band}_err": 0.02 * u.mag for band in "gri"}
    >>> posterior = estimator.predict(photometry=galaxy, seed=1)  # doctest: +SKIP
    >>> posterior["stellar_mass"].median()  # doctest: +SKIP
    """

    #: Bytes which `predict` may need for its draws before it refuses; `predict_iter` has no limit.
    memory_limit = 4e9

    @classmethod
    def build_network(cls, config: dict[str, Any]) -> PropertyNetwork:
        """Build the untrained network from the ``config`` of another."""
        return PropertyNetwork.from_config(config)

    def predict(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        bands: str | Sequence[str] | None = None,
        position: SkyCoord | None = None,
        pixel_scale: u.Quantity | None = None,
        ebv: float | np.ndarray | u.Quantity | None = None,
        known: Mapping[str, u.Quantity] | None = None,
        n_draws: int = 1000,
        seed: int | torch.Generator | None = None,
        on_error: str = "raise",
        measure: bool = True,
        calibrated: bool = True,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> Posterior:
        """Infer the joint posterior of each galaxy.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, optional
            Images of one galaxy or of many.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Fluxes or magnitudes of the same galaxies, in the same order, as observed.
        bands : str or sequence of str, optional
            Names of the bands of image cubes, such as ``"gri"``.
        position : SkyCoord, optional
            Where the galaxies are in their images; in the middle by default.
        pixel_scale : Quantity ['angle'], optional
            Pixel scale of images without a WCS.
        ebv : float, array or Quantity ['mag'], optional
            Galactic E(B-V), one for all galaxies or one for each, if the photometry does not have it. 0, with a
            warning, by default.
        known : mapping of str to Quantity, each of shape (n,), optional
            Quantities that are known otherwise, such as ``{"redshift": z}``: the first one or more of
            `~astrogenspec.QUANTITIES`, without gaps; NaN for a galaxy of which it is unknown. The posterior of the
            others is conditioned on them.
        n_draws : int
            Draws for each galaxy.
        seed : int, `torch.Generator` or None
            Source of randomness. The draws of a galaxy depend on the seed, on its number and on ``n_draws``; not on
            ``batch_size``, nor on the galaxies around it.
        on_error : {"raise", "flag"}
            What to do if a galaxy cannot be used: raise an error with its number, or flag it with the reason. A
            flagged galaxy whose image is bad but whose photometry is fine is inferred from its photometry, and the
            other way round; one of which nothing can be used has NaN draws.
        measure : bool
            Whether to measure photometry that is missing on the image (slower, and more accurate).
        calibrated : bool
            Whether to apply the recalibration in the card, if there is one: draws are moved, their ranks within a galaxy
            stay. Galaxies of which something is ``known`` are left as the network draws them.
        batch_size : int, optional
            Galaxies that are read and encoded at a time; 256 by default.
        progress : bool, optional
            Show a progress bar; by default for long work on a terminal.

        Returns
        -------
        Posterior
            Draws in single precision. A galaxy outside of the range of training has a flag too; its draws are kept.

        Raises
        ------
        NotFittedError
            If the network was never trained.
        ValueError, TypeError, astropy.units.UnitsError
            If an input cannot be used; the sentence names it.
        MemoryError
            If the draws would need more than ``memory_limit`` bytes (72 bytes a draw).

        Warns
        -----
        AstroGenSpecWarning
            If something had to be assumed: noise, pixel scale, no Galactic extinction. If the weights are for galaxies without
            images, and cutouts are given.
        """
        options = InputOptions(bands, position, pixel_scale, ebv, on_error, measure)
        blocks = self._open(cutouts, photometry, options, batch_size)
        n_draws = positive_int(n_draws, "n_draws")
        self._check_memory(blocks.n_galaxies or 0, n_draws)
        parts, n_read = [], 0
        for part in self._posteriors(blocks, known, n_draws, seed, progress, calibrated):
            parts.append(part)
            n_read += len(part)
            self._check_memory(n_read, n_draws)
        if not parts:
            raise ValueError("cutouts is empty: give at least one galaxy.")
        return parts[0] if len(parts) == 1 else Posterior.concatenate(parts)

    def memory_needed(self, n_galaxies: int, n_draws: int) -> int:
        """Give the bytes that `predict` needs for the draws.

        Parameters
        ----------
        n_galaxies, n_draws : int

        Returns
        -------
        int
        """
        return n_galaxies * n_draws * _BYTES_PER_DRAW

    def predict_iter(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        known: Mapping[str, u.Quantity] | None = None,
        n_draws: int = 1000,
        seed: int | torch.Generator | None = None,
        measure: bool = True,
        calibrated: bool = True,
        batch_size: int | None = None,
        progress: bool | None = None,
        **options: Unpack[InputArguments],
    ) -> Iterator[Posterior]:
        """Infer block by block, so that memory does not grow with the number of galaxies.

        Parameters
        ----------
        cutouts, photometry, known, n_draws, seed, measure, calibrated
            As for `predict`. If ``cutouts`` is an iterator its galaxies are read as they are needed.
        batch_size : int, optional
            Galaxies of a block; 256 by default.
        progress : bool, optional
            Show a progress bar; by default for long work on a terminal.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``on_error``: as for `predict`.

        Returns
        -------
        iterator of Posterior
            Each of ``batch_size`` galaxies (the last of fewer), in order; joined by `Posterior.concatenate` they are
            what `predict` returns.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`. What concerns an image is raised when its block is reached.
        """
        blocks = self._open(
            cutouts, photometry, InputOptions(**options, measure=measure), batch_size
        )
        n_draws = positive_int(n_draws, "n_draws")
        return self._posteriors(blocks, known, n_draws, seed, progress, calibrated)

    def log_prob(
        self,
        theta: Mapping[str, u.Quantity],
        cutouts: Any = None,
        photometry: Any = None,
        *,
        measure: bool = True,
        **options: Unpack[InputArguments],
    ) -> np.ndarray:
        """Evaluate the logarithm of the posterior density.

        Parameters
        ----------
        theta : mapping of str to Quantity, each of shape (n,) or (n, k)
            All of `~astrogenspec.QUANTITIES`, or the first few of them without gaps: the density of these alone is
            then given. (The chain of flows is built in this order; the density of others would be an integral.)
        cutouts, photometry, measure
            As for `predict`.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``on_error``: as for `predict`.

        Returns
        -------
        log_prob : ndarray, shape (n,) or (n, k)
            Natural logarithm of the density with respect to redshift, dex, and log10 of the line fluxes; minus infinity
            outside of the bounds of a quantity, NaN where a value is NaN or a galaxy cannot be used.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`, and for quantities that are not the first of the chain.
        """
        values, q = chain_prefix(theta, "theta")
        if values.ndim not in (2, 3):
            raise ValueError(f"theta has shape {values.shape[:-1]}: it must be (n,) or (n, k).")
        settings = InputOptions(**options, measure=measure)
        blocks = self._open(cutouts, photometry, settings, None)
        check_rows(values, blocks.n_galaxies, "theta")
        n_each = 1 if values.ndim == 2 else values.shape[1]
        blocks.block_size = min(blocks.block_size, max(1, _DENSITIES // max(n_each, 1)))
        parts, start = [], 0
        for seen in blocks:
            part = values[start : start + len(seen)]
            start += len(seen)
            parts.append(log_densities(self, seen, part.reshape(len(part), n_each, -1), q))
        check_rows(values, start, "theta")
        return np.concatenate(parts).reshape(values.shape[:-1])

    # ---- inside

    def _open(
        self, cutouts: Any, photometry: Any, options: InputOptions, batch_size: int | None
    ) -> ObservationBlocks:
        self.check_fitted()
        size = 256 if batch_size is None else batch_size
        return ObservationBlocks(cutouts, photometry, options, block_size=size)

    def _check_memory(self, n_galaxies: int, n_draws: int) -> None:
        needed = self.memory_needed(n_galaxies, n_draws)
        if needed > self.memory_limit:
            raise MemoryError(
                f"{n_galaxies} galaxies with {n_draws} draws need {needed / 1e9:.1f} GB, more than the limit of "
                f"{self.memory_limit / 1e9:.1f} GB: use predict_iter, take fewer draws (n_draws), or raise "
                "estimator.memory_limit."
            )

    def _posteriors(
        self,
        blocks: ObservationBlocks,
        known: Mapping[str, u.Quantity] | None,
        n_draws: int,
        seed: int | torch.Generator | None,
        progress: bool | None,
        calibrated: bool,
    ) -> Iterator[Posterior]:
        """Check, then hand out a generator: what is wrong with an argument is said at once."""
        generator = make_generator(seed)
        fixed = None if known is None else known_values(known, blocks.n_galaxies)
        card = self.card or {}
        correction = card.get("recalibration") if calibrated else None
        recalibration = None if correction is None else Recalibration.from_dict(correction)
        meta = {"estimator": type(self).__name__, "model": card.get("name", "")}
        meta |= {"seed": seed if isinstance(seed, int) else None, "known": list(known or ())}
        meta |= {"calibrated": recalibration is not None}
        meta |= {key: card[key] for key in ("population",) if key in card}
        shown = bar_wanted(progress, blocks.n_galaxies, blocks.block_size)

        def posteriors() -> Iterator[Posterior]:
            start = 0
            delay = 1 if progress is None else 0
            with tqdm(
                total=blocks.n_galaxies, unit="galaxy", disable=not shown, delay=delay
            ) as bar:
                for seen in blocks:
                    rows = slice(start, start + len(seen))
                    part = None if fixed is None else fixed[rows]
                    yield draw_block(self, seen, part, n_draws, generator, meta, recalibration)
                    start = rows.stop
                    bar.update(len(seen))

        return posteriors()
