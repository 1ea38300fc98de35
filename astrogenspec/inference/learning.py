"""What galaxies whose properties are known are for: train an estimator further, judge it, recalibrate it."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable, Table

from ..base import Estimator, bar_wanted, make_generator
from ..blocks import InputArguments, InputOptions, ObservationBlocks, positive_int
from ..calibration.recalibration import Recalibration
from ..calibration.report import CalibrationReport, calibration_report, checked_page
from ..conventions import converted_labels
from ..posterior import Posterior
from ..warnings import AstroGenSpecWarning
from .drawing import draw_block
from .finetune import Examples, fine_tune
from .member import FitSettings

__all__ = ["LearningEstimator"]


class LearningEstimator(Estimator):
    """Methods of `PropertyEstimator` that need true values."""

    def fit(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        *,
        labels: Mapping[str, u.Quantity] | Table,
        known: Mapping[str, u.Quantity] | Table | None = None,
        rehearsal: Sequence[str | os.PathLike[str]] = (),
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 3e-4,
        validation_fraction: float = 0.2,
        patience: int | None = 10,
        members: int | None = None,
        images_alone: bool = False,
        seed: int | torch.Generator | None = None,
        progress: bool | None = None,
        report: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
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
            whose metadata state another IMF or metallicity scale are converted (see `astrogenspec.conventions`).
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
        if report is not None:
            checked_page(report, overwrite)
        settings = FitSettings(
            epochs,
            batch_size,
            learning_rate,
            validation_fraction,
            patience,
            bar_wanted(progress, 2, 1),
            members,
            images_alone,
        )
        blocks = ObservationBlocks(cutouts, photometry, InputOptions(**options))
        folders = [os.fspath(folder) for folder in rehearsal]
        examples = Examples(blocks, labels, known, folders)
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
        raw, posterior, modes = _drawn(self, cutouts, photometry, options, n_draws, seed)
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
        raw, _, modes = _drawn(self, cutouts, photometry, options, n_draws, seed)
        new = Recalibration.fit(raw, truth, mode=modes, seed=seed)
        card = copy.deepcopy(dict(self.card))
        if "recalibration" in card:
            new = Recalibration.from_dict(card["recalibration"]) | new
        card["recalibration"] = new.to_dict()
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


def _drawn(
    estimator: Estimator,
    cutouts: Any,
    photometry: Any,
    options: InputArguments,
    n_draws: int,
    seed: int,
) -> tuple[Posterior, Posterior, np.ndarray]:
    """Draw without recalibration and with it, and say what each galaxy was inferred from."""
    estimator.check_fitted()
    blocks = ObservationBlocks(cutouts, photometry, InputOptions(**options))
    generator, n_draws = make_generator(seed), positive_int(n_draws, "n_draws")
    meta = {"model": estimator.card.get("name", ""), "calibrated": False}
    meta |= {key: estimator.card[key] for key in ("population",) if key in estimator.card}
    parts, modes = [], []
    for seen in blocks:
        # A galaxy of which nothing can be used has no draws, and counts nowhere.
        found = seen.modes
        modes.append(np.where(found == "", "photometry", found))
        parts.append(draw_block(estimator, seen, None, n_draws, generator, meta))
    if not parts:
        raise ValueError("cutouts is empty: give at least one galaxy.")
    raw, kinds = Posterior.concatenate(parts), np.concatenate(modes)
    if "recalibration" not in estimator.card:
        return raw, raw, kinds
    recalibration = Recalibration.from_dict(estimator.card["recalibration"])
    return raw, recalibration.apply(raw, mode=kinds), kinds
