"""Images and photometry in, a joint posterior of galaxy properties out."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from ..base import make_generator, wants_progress_bar
from ..calibration.recalibration import Recalibration
from ..inputs.errors import check_count
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..quantities import QUANTITIES, converted_labels
from ..reports.calibration import CalibrationReport, calibration_report, checked_page
from ..results.posterior import Posterior
from ..warnings import AstroGenSpecWarning, renamed_argument
from .finetuning.trainer import FineTuningData, FineTuningSettings, fine_tune
from .latent import ImageEstimator
from .network import PropertyNetwork
from .sampling import chain_prefix, check_rows, draw_block, known_values, log_densities

__all__ = ["PropertyEstimator"]


#: Memory of one draw while a posterior is put together: nine single-precision numbers, twice.
_BYTES_PER_DRAW = 2 * 4 * len(QUANTITIES)
#: Maximum number of pairs of galaxy and theta whose densities are evaluated at once.
_MAX_DENSITIES = 50_000


class PropertyEstimator(ImageEstimator):
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

    _bytes_per_draw = _BYTES_PER_DRAW

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
        batches = self._read(cutouts, photometry, options, batch_size)
        predict_batch = self._batch_predictor(batches, known, n_draws, seed, calibrated)
        return self._predict_all(batches, predict_batch, progress, n_draws=n_draws)

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
        settings = InputOptions(**options, measure=measure)
        batches = self._read(cutouts, photometry, settings, batch_size)
        predict_batch = self._batch_predictor(batches, known, n_draws, seed, calibrated)
        return self._predict_batches(batches, predict_batch, progress)

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
        batches = self._read(cutouts, photometry, settings)
        check_rows(values, batches.n_galaxies, "theta")
        n_each = 1 if values.ndim == 2 else values.shape[1]
        batches.batch_size = min(batches.batch_size, max(1, _MAX_DENSITIES // max(n_each, 1)))
        parts, n_read = [], 0
        for seen in batches:
            part = values[n_read : n_read + len(seen)]
            n_read += len(seen)
            parts.append(log_densities(self, seen, part.reshape(len(part), n_each, -1), q))
        check_rows(values, n_read, "theta")
        return np.concatenate(parts).reshape(values.shape[:-1])

    def fit(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        labels: Mapping[str, u.Quantity] | Table,
        known: Mapping[str, u.Quantity] | Table | None = None,
        simulations: Sequence[str | os.PathLike[str]] | None = None,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 3e-4,
        validation_fraction: float = 0.2,
        patience: int | None = 10,
        heads: int | None = None,
        images_alone: bool = False,
        seed: int | torch.Generator | None = None,
        progress: bool | None = None,
        report: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        members: int | None = None,
        rehearsal: Sequence[str | os.PathLike[str]] | None = None,
        **options: Unpack[InputArguments],
    ) -> Self:
        """Continue the training on galaxies whose properties are known.

        Some of the rows are held out; training stops when they no longer improve, and the best weights are kept. Images
        are turned and mirrored at random, photometry is varied within its errors, and some of what a galaxy has (image,
        photometry, bands, sizes) is hidden at random, so that the estimator keeps its skill with less. Quantities
        without label are learnt from what this estimator says of them, with less weight, so that they are not forgotten.
        The image encoder of trained weights stays as it is.

        Where the galaxies held out show that the new error bars are wrong, as a function of predicted value, magnitude and
        colours, a recalibration is learnt from them, as by `recalibrated`.

        Parameters
        ----------
        cutouts, photometry
            As for `predict`.
        labels : mapping or table of Quantity, each of shape (n,)
            Any of `~astrogenspec.QUANTITIES`; NaN or masked where unknown. Other columns of a table are ignored. Columns
            whose metadata state another IMF or metallicity scale are converted (see `astrogenspec.quantities`).
        known : mapping or table of Quantity, each of shape (n,), optional
            Quantities that are known but not to be learnt, as in `predict`: the redshifts of a sample, say, that was
            selected by redshift, and so says nothing of how common they are. NaN or masked where not.
        rehearsal : sequence of path
            Folders of simulated shards (``astrogenspec simulate --training``) to mix in, so that the skill with images
            and of quantities without labels stays.
        epochs : int
            Most passes over the galaxies.
        batch_size : int
            Galaxies in a step.
        learning_rate : float
            Largest learning rate.
        validation_fraction : float
            Fraction of the galaxies held out, between 0 and 1.
        patience : int, optional
            Passes without improvement after which training stops; None to use all epochs.
        members : int, optional
            Train so many heads, each for itself and with other galaxies held out, and mix their posteriors: a deep
            ensemble, which is better than each of them and takes as many times longer. As many as the estimator has, if
            missing. Weights whose heads for galaxies without images are others, as of the bundled ones, have so many of each
            kind. Those that read images learn from images, their own or lent ones of ``rehearsal``, and else stay as they are.
        images_alone : bool
            Train nothing but what reads the image: what is inferred without an image stays as it is, to the last bit. For a
            few galaxies with images, after a fit to many without.
        seed : int, `torch.Generator` or None
            Source of randomness: same seed, same weights.
        progress : bool, optional
            Show a progress bar; by default on a terminal.
        report : path-like, optional
            Write a page (``.html``) that says how far to trust the new weights, as `calibration_report` does, by the galaxies
            that their heads held out: each head judges those that it did not see.
        overwrite : bool
            Replace a page that exists.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``on_error``: as for `predict`. A flagged galaxy is left out.

        Returns
        -------
        PropertyEstimator
            A new one; its card tells of the training under ``"fits"``. This one stays as it is.

        Raises
        ------
        ValueError
            If fewer than 10 galaxies have a label, or an argument is out of range or does not fit the others.
        TypeError, astropy.units.UnitsError
            If an input or a label cannot be used.
        FileExistsError, FileNotFoundError, ImportError
            If the page exists and ``overwrite`` is False, has no folder, or matplotlib is not installed: before the training.

        Warns
        -----
        AstroGenSpecWarning
            If nothing improved on the galaxies held out; the weights are then the old ones. If the page cannot be written.
        """
        heads = renamed_argument("PropertyEstimator.fit", "heads", heads, "members", members)
        simulations = renamed_argument(
            "PropertyEstimator.fit", "simulations", simulations, "rehearsal", rehearsal
        )
        if report is not None:
            checked_page(report, overwrite)
        settings = FineTuningSettings(
            epochs,
            batch_size,
            learning_rate,
            validation_fraction,
            patience,
            wants_progress_bar(progress, 2, 1),
            heads,
            images_alone,
        )
        blocks = ObservationBatches(cutouts, photometry, InputOptions(**options))
        folders = [os.fspath(folder) for folder in simulations or ()]
        examples = FineTuningData(blocks, labels, known, folders)
        network, card, held_out = fine_tune(
            self.network, self.card, examples, settings, make_generator(seed), self.device
        )
        recalibration = held_out.recalibration()
        if recalibration is not None:
            card["recalibration"] = recalibration.to_dict()
        if report is not None:
            try:
                held_out.report().write(report, overwrite=overwrite)
            except OSError as error:
                warnings.warn(
                    f"the page could not be written to {os.fspath(report)!r} ({error}); the fit is done all the same.",
                    AstroGenSpecWarning,
                    stacklevel=2,
                )
        return type(self)(network, card=card, device=self.device)

    def calibration_report(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        truth: Mapping[str, u.Quantity] | Table,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        n_draws: int = 500,
        seed: int = 0,
        **options: Unpack[InputArguments],
    ) -> CalibrationReport:
        """Say how far the posteriors may be trusted, by galaxies whose properties are known.

        Parameters
        ----------
        cutouts, photometry
            As for `PropertyEstimator.predict`; galaxies which the weights were not fitted to.
        truth : mapping or table of Quantity, each of shape (n,)
            True values of any quantities, drawn or derived; NaN or masked where unknown. Other columns of a table are
            ignored.
        out : path-like, optional
            Write a page (``.html``) with verdicts in words, figures and tables, and the table of scores (``.ecsv``) beside.
        overwrite : bool
            Replace files that exist.
        n_draws : int
            Draws for each galaxy.
        seed : int
            Source of randomness.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``on_error``: as for `PropertyEstimator.predict`.

        Returns
        -------
        CalibrationReport
            ``print(report)`` gives the verdicts.

        Raises
        ------
        ValueError, TypeError, KeyError, astropy.units.UnitsError
            If an input or a true value cannot be used.
        FileExistsError
            If a file exists and ``overwrite`` is False.
        """
        if out is not None:
            checked_page(out, overwrite)
        truth = converted_labels(truth)
        raw, modes = self._draws_for_calibration(cutouts, photometry, options, n_draws, seed)
        recalibration = self._recalibration()
        posterior = raw if recalibration is None else recalibration.apply(raw, mode=modes)
        report = calibration_report(posterior, truth, mode=modes, raw=raw, seed=seed)
        if out is not None:
            report.write(out, overwrite=overwrite)
        return report

    def recalibrated(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        truth: Mapping[str, u.Quantity] | Table,
        n_draws: int = 500,
        seed: int = 0,
        **options: Unpack[InputArguments],
    ) -> Self:
        """Learn a recalibration from galaxies whose properties are known.

        The network stays as it is. Where this estimator has a correction of the same quantity and kind of input, the new
        one takes its place; its other corrections are kept.

        Parameters
        ----------
        cutouts, photometry
            As for `PropertyEstimator.predict`; galaxies which the weights were not fitted to.
        truth : mapping or table of Quantity, each of shape (n,)
            True values of any drawn quantities, at least 100 of one of them; NaN or masked where unknown.
        n_draws : int
            Draws for each galaxy.
        seed : int
            Source of randomness.
        **options
            As for `calibration_report`.

        Returns
        -------
        PropertyEstimator
            A new one, with the recalibration in its card.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an input or a true value cannot be used, or there are too few.

        Warns
        -----
        AstroGenSpecWarning
            If a quantity is known of fewer than 100 galaxies.
        """
        truth = converted_labels(truth)
        raw, modes = self._draws_for_calibration(cutouts, photometry, options, n_draws, seed)
        old, new = self._recalibration(), Recalibration.fit(raw, truth, mode=modes, seed=seed)
        card = copy.deepcopy(dict(self.card or {}))
        card["recalibration"] = (new if old is None else old | new).to_dict()
        return type(self)(self.network, card=card, device=self.device)

    def fit_report(self) -> QTable:
        """Tabulate what the last `fit` changed, on the galaxies that it held out.

        Returns
        -------
        `~astropy.table.QTable`
            One row a quantity with labels: ``quantity``, ``n`` galaxies, and before and after the fit the ``bias``
            (mean error of the median), robust ``scatter`` and coverage of 68% intervals; dex, and dz / (1 + z).

        Raises
        ------
        ValueError
            If the estimator was never fitted.
        """
        fits = (self.card or {}).get("fits")
        if not fits:
            raise ValueError("this estimator was not fitted to labelled galaxies: call fit first.")
        rows = []
        for name, scores in fits[-1]["held_out"].items():
            row = {"quantity": name, "n": scores["n"]}
            for key in ("bias", "scatter", "coverage_68"):
                row[f"{key}_before"], row[f"{key}_after"] = scores[key]
            rows.append(row)
        return QTable(rows)

    # ---- internal

    def _batch_predictor(
        self,
        batches: ObservationBatches,
        known: Mapping[str, u.Quantity] | None,
        n_draws: int,
        seed: int | torch.Generator | None,
        calibrated: bool,
    ) -> Callable[[Observations, slice], Posterior]:
        """Check the arguments; return the function that draws the posterior of a batch."""
        n_draws = check_count(n_draws, "n_draws")
        generator = make_generator(seed)
        fixed = None if known is None else known_values(known, batches.n_galaxies)
        recalibration = self._recalibration() if calibrated else None
        meta = self._metadata(seed) | {
            "known": list(known or ()),
            "calibrated": recalibration is not None,
            **self._population(),
        }

        def predict_batch(seen: Observations, rows: slice) -> Posterior:
            part = None if fixed is None else fixed[rows]
            return draw_block(self, seen, part, n_draws, generator, meta, recalibration)

        return predict_batch

    def _draws_for_calibration(
        self,
        cutouts: Any,
        photometry: Any,
        options: InputArguments,
        n_draws: int,
        seed: int,
    ) -> tuple[Posterior, np.ndarray]:
        """Return draws without recalibration and the mode of each galaxy."""
        batches = self._read(cutouts, photometry, InputOptions(**options))
        generator, n_draws = make_generator(seed), check_count(n_draws, "n_draws")
        meta = {"model": self._metadata(seed)["model"], "calibrated": False, **self._population()}
        modes = []

        def predict_batch(seen: Observations, _: slice) -> Posterior:
            # The mode of a galaxy without usable data does not matter: it has no draws.
            modes.append(np.where(seen.modes == "", "photometry", seen.modes))
            return draw_block(self, seen, None, n_draws, generator, meta)

        parts = list(self._predict_batches(batches, predict_batch))
        if not parts:
            raise ValueError("cutouts is empty: give at least one galaxy.")
        return Posterior.concatenate(parts), np.concatenate(modes)

    def _recalibration(self) -> Recalibration | None:
        stored = (self.card or {}).get("recalibration")
        return None if stored is None else Recalibration.from_dict(stored)

    def _population(self) -> dict[str, Any]:
        card = self.card or {}
        return {key: card[key] for key in ("population",) if key in card}
