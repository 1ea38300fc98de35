"""Estimator of galaxy properties from images and photometry, with their joint posterior.

It can be fine-tuned and recalibrated.
"""

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
from numpy.typing import ArrayLike

from ..base import make_generator, make_streams, wants_progress_bar
from ..calibration.guarantees import CoverageGuarantee, guarantee_of
from ..calibration.recalibration import Recalibration
from ..inputs.cutouts import Cutouts
from ..inputs.errors import check_bool, check_count
from ..inputs.ids import ObjectIds
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..inputs.photometry import (
    ANY_FILTER_MODEL,
    Photometry,
    PhotometryBatch,
    coerce_photometry,
)
from ..inputs.sed_features import SEDComponents
from ..inputs.survey_names import SurveyLike, resolve_surveys
from ..inputs.virtual_photometry import virtual_photometry
from ..quantities import QUANTITIES, converted_labels
from ..reports.calibration import CalibrationReport, calibration_report, checked_page
from ..results.posterior import Posterior
from ..warnings import AstroGenSpecWarning, renamed_argument
from .card import check_property_card
from .finetuning.dataset import sample_weights
from .finetuning.trainer import FineTuningData, FineTuningSettings, fine_tune
from .finetuning.validation import scores_table
from .latent import ImageEstimator
from .network import PosteriorNetwork
from .networks import build_network
from .sampling import (
    DRAWS_FOR_MAP,
    chain_prefix,
    draw_block,
    known_values,
    log_densities,
    skip_draws,
)
from .zero_points import estimate_offsets

__all__ = ["PropertyEstimator"]


#: Memory of one draw while a posterior is put together: nine single-precision numbers, twice.
_BYTES_PER_DRAW = 2 * 4 * len(QUANTITIES)
#: Maximum number of pairs of galaxy and theta whose densities are evaluated at once.
_MAX_DENSITIES = 50_000


class PropertyEstimator(ImageEstimator):
    """Infer redshift, masses, star-formation rate, metallicity and line fluxes.

    The masses are those of the stars and of the black hole.

    Parameters
    ----------
    network : PosteriorNetwork
        The network.
    card : dict, optional
        Metadata of the weights; without a card the network is untrained.
    device : str or `torch.device`
        Device of the network.

    Examples
    --------
    From photometry only: observed AB magnitudes and the Galactic reddening:

    >>> import astropy.units as u
    >>> from astrogenspec import PropertyEstimator
    >>> estimator = PropertyEstimator.from_pretrained()  # doctest: +SKIP
    >>> galaxy = {"g": 17.6 * u.ABmag, "r": 16.8 * u.ABmag, "i": 16.4 * u.ABmag}
    >>> galaxy |= {f"{band}_err": 0.02 * u.mag for band in "gri"} | {"ebv": 0.03 * u.mag}
    >>> posterior = estimator.predict(photometry=galaxy, seed=1)  # doctest: +SKIP
    >>> posterior["stellar_mass"].median()  # doctest: +SKIP
    """

    _bytes_per_draw = _BYTES_PER_DRAW

    @classmethod
    def build_network(cls, config: dict[str, Any]) -> PosteriorNetwork:
        """Build an untrained network from the ``config`` of another."""
        return build_network(config)

    @classmethod
    def _check_card(cls, card: Any) -> None:
        super()._check_card(card)
        check_property_card(card)

    def predict(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        bands: str | Sequence[str] | None = None,
        position: SkyCoord | None = None,
        pixel_scale: u.Quantity | None = None,
        ebv: float | np.ndarray | u.Quantity | None = None,
        survey: SurveyLike | None = None,
        known: Mapping[str, u.Quantity] | None = None,
        n_draws: int = 1000,
        seed: int | torch.Generator | None = None,
        ids: ObjectIds | None = None,
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
            Images of one or more galaxies. For images in counts without a zero point in the header,
            give ``coerce_cutouts(images, zero_point=...)``.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Observed fluxes or magnitudes of the same galaxies, in the same order: names given on
            both sides must agree.
        bands : str or sequence of str, optional
            Names of the bands of image cubes, such as ``"gri"``.
        position : SkyCoord, optional
            Positions of the galaxies in their images; the image centre by default.
        pixel_scale : Quantity ['angle'], optional
            Pixel scale of images without a WCS.
        ebv : float, array or Quantity ['mag'], optional
            Galactic E(B-V), one value or one per galaxy, if the photometry does not include it. 0,
            with a warning, by default.
        survey : str, Survey, or a sequence of these, optional
            Survey or surveys of the photometry, such as ``"legacy-dr10"`` or ``["lsst",
            "euclid"]``, see `~astrogenspec.coerce_photometry`; SDSS by default.
        known : mapping of str to Quantity, each of shape (n,), optional
            Known quantities, such as ``{"redshift": z}``: the first one or more of
            `~astrogenspec.QUANTITIES`, without gaps; NaN or masked where unknown. The posterior of
            the remaining quantities is conditioned on them.
        n_draws : int
            Number of draws per galaxy.
        seed : int, `torch.Generator` or None
            Seed of the random numbers. The draws of a galaxy depend on the seed, its index (or its
            entry of ``ids``) and ``n_draws``, but not on ``batch_size`` or on other galaxies.
        ids : sequence of int or of str, shape (n,), optional
            Identifiers of the galaxies, which key the random numbers instead of their indices: a
            galaxy has the same draws in any order, subset or division of a catalogue.
        on_error : {"raise", "flag"}
            What to do with invalid data: raise an error that names the galaxy, or flag the galaxy.
            A flagged galaxy is inferred from its photometry if only the image is invalid, and from
            its image if only the photometry is; without valid data its draws are NaN.
        measure : bool
            Measure missing photometry on the image (slower and more accurate).
        calibrated : bool
            Apply the recalibration in the card, if any. It changes the draws but not their order
            within a galaxy, and is not applied to galaxies with ``known`` quantities.
        batch_size : int, optional
            Number of galaxies per batch; 256 by default.
        progress : bool, optional
            Show a progress bar; by default for long runs on a terminal.

        Returns
        -------
        Posterior
            Draws in single precision. Galaxies outside the training distribution are flagged; their
            draws are kept.

        Raises
        ------
        NotFittedError
            If the network is not trained.
        ValueError, TypeError, astropy.units.UnitsError
            If an input is invalid.
        MemoryError
            If the draws would take more than ``memory_limit`` bytes (72 bytes per draw).

        Warns
        -----
        AstroGenSpecWarning
            If a default is assumed (noise, pixel scale, no Galactic extinction).
        """
        options = InputOptions(bands, position, pixel_scale, ebv, on_error, measure, survey=survey)
        batches = self._read(cutouts, photometry, options, batch_size)
        predict_batch = self._batch_predictor(batches, known, n_draws, calibrated, seed, ids)
        return self._predict_all(batches, predict_batch, progress, n_draws=n_draws)

    def predict_iter(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        known: Mapping[str, u.Quantity] | None = None,
        n_draws: int = 1000,
        seed: int | torch.Generator | None = None,
        ids: ObjectIds | None = None,
        measure: bool = True,
        calibrated: bool = True,
        batch_size: int | None = None,
        progress: bool | None = None,
        first: int = 0,
        **options: Unpack[InputArguments],
    ) -> Iterator[Posterior]:
        """Infer the posterior batch by batch.

        The memory needed does not grow with the number of galaxies.

        Parameters
        ----------
        cutouts, photometry, known, n_draws, seed, ids, measure, calibrated
            As for `predict`. An iterator of cutouts is read as needed.
        batch_size : int, optional
            Number of galaxies per batch; 256 by default.
        progress : bool, optional
            Show a progress bar; by default for long runs on a terminal.
        first : int
            Index of the first galaxy to infer, to continue a loop that was interrupted: earlier
            galaxies are read, but not inferred, and later ones have the same draws. Not possible
            with ``known``.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``, ``on_error``: as for
            `predict`.

        Returns
        -------
        iterator of Posterior
            Batches in the order of the input; `Posterior.concatenate` joins them to the result of
            `predict`.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`; errors about an image are raised when its batch is read.
        """
        if first and known is not None:
            raise ValueError("first cannot be combined with known; leave one of them out.")
        settings = InputOptions(**options, measure=measure)
        batches = self._read(cutouts, photometry, settings, batch_size)
        generator = make_generator(seed) if ids is None else None
        predict_batch = self._batch_predictor(
            batches, known, n_draws, calibrated, seed, ids, generator
        )

        def skip(seen: Observations) -> None:
            if generator is not None:
                skip_draws(self, seen, n_draws, generator)

        return self._predict_batches(batches, predict_batch, progress, first=first, skip=skip)

    def log_prob(
        self,
        theta: Mapping[str, u.Quantity],
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        measure: bool = True,
        calibrated: bool = True,
        **options: Unpack[InputArguments],
    ) -> np.ndarray:
        """Evaluate the logarithm of the posterior density.

        Parameters
        ----------
        theta : mapping of str to Quantity, each of shape (n,) or (n, k)
            All of `~astrogenspec.QUANTITIES`, or the first few without gaps, whose marginal density
            is then returned. (The chain of flows has this order; the marginal density of other
            subsets would be an integral.)
        cutouts, photometry, measure
            As for `predict`.
        calibrated : bool
            Evaluate the density of the recalibrated draws, as `predict` returns them by default,
            rather than that of the network. The recalibration of each galaxy is computed from 8000
            draws, to about 0.01 in probability.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``, ``on_error``: as for
            `predict`.

        Returns
        -------
        log_prob : ndarray, shape (n,) or (n, k)
            Natural logarithm of the density per unit redshift, dex, and log10 of line flux; minus
            infinity outside the bounds of a quantity, NaN where a value is NaN or masked, or a
            galaxy has no valid data.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`, and if the quantities are not the first of the chain.
        """
        values, q = chain_prefix(theta, "theta")
        self.network.chain.check_prefix(q, "theta")
        if values.ndim not in (2, 3):
            raise ValueError(f"theta has shape {values.shape[:-1]}: it must be (n,) or (n, k).")
        settings = InputOptions(**options, measure=measure)
        batches = self._read(cutouts, photometry, settings)
        batches.require(len(values), "theta")
        recalibration = self._recalibration() if check_bool(calibrated, "calibrated") else None
        if recalibration is not None:
            moved = {name for _, name in recalibration.corrected}
            recalibration = recalibration if moved & set(list(QUANTITIES)[:q]) else None
        n_each = 1 if values.ndim == 2 else values.shape[1]
        at_once = max(n_each, 1 if recalibration is None else DRAWS_FOR_MAP)
        batches.batch_size = min(batches.batch_size, max(1, _MAX_DENSITIES // at_once))
        parts, n_read = [], 0
        for seen in batches:
            part = values[n_read : n_read + len(seen)]
            n_read += len(seen)
            part = part.reshape(len(part), n_each, values.shape[-1])
            parts.append(log_densities(self, seen, part, q, recalibration))
        if not parts:
            raise ValueError("cutouts is empty: give at least one galaxy.")
        return np.concatenate(parts).reshape(values.shape[:-1])

    def predict_photometry(
        self,
        photometry: Photometry,
        target: SurveyLike = "sdss",
        *,
        survey: SurveyLike | None = None,
        ebv: float | np.ndarray | u.Quantity | None = None,
        on_error: str = "raise",
    ) -> PhotometryBatch:
        """Predict the fluxes of galaxies in the filters of another survey.

        They follow from the spectral energy distribution that the photometry implies, with the
        population of the training as the prior (`astrogenspec.inputs.virtual_photometry`). Such
        fluxes in the bands of SDSS are photometry for `SpectrumEstimator.predict`.

        Parameters
        ----------
        photometry : see `~astrogenspec.coerce_photometry`
            Photometry of n galaxies in any filters.
        target : str, Survey, or a sequence of these
            Survey whose fluxes are predicted.
        survey, ebv, on_error
            As for `predict`.

        Returns
        -------
        PhotometryBatch
            Fluxes as they would be observed, with the same Galactic E(B-V) and names; their errors
            are those of the prediction, and are correlated.

        Raises
        ------
        ValueError
            If the weights read photometry of SDSS only, or the photometry or a survey cannot be
            used.
        TypeError, astropy.units.UnitsError
            If the photometry cannot be read.

        Examples
        --------
        >>> import astropy.units as u
        >>> from astrogenspec import PropertyEstimator                       # doctest: +SKIP
        >>> name = "astrogenspec-properties-simulated"
        >>> estimator = PropertyEstimator.from_pretrained(name)              # doctest: +SKIP
        >>> estimator.predict_photometry(table, "lsst", survey="des").bands  # doctest: +SKIP
        ('u', 'g', 'r', 'i', 'z', 'y')
        """
        self.check_fitted()
        if self._components is None:
            raise ValueError(
                f"these weights read photometry of SDSS only; use {ANY_FILTER_MODEL!r}, which read "
                "any filters."
            )
        batch = coerce_photometry(
            photometry, survey=survey, ebv=ebv, on_error=on_error, screening=False
        )
        surveys = resolve_surveys(target) or ()
        filters = [each.filters[band] for each in surveys for band in each.bands]
        return virtual_photometry(batch, filters, self._components)

    def fit(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        labels: Mapping[str, u.Quantity] | Table,
        known: Mapping[str, u.Quantity] | Table | None = None,
        simulations: Sequence[str | os.PathLike[str]] | None = None,
        sample_weight: ArrayLike | None = None,
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
        """Fine-tune the network on labelled galaxies.

        A part of the galaxies is used for validation; training stops when the validation loss no
        longer improves, and the best weights are kept. Images are rotated and mirrored at random,
        photometry is varied within its errors, and inputs (image, photometry, bands, morphology)
        are hidden at random, so that the network can still do without them. Unlabelled quantities
        are supervised by samples from the posterior before the fit, with a lower weight, which
        limits catastrophic forgetting. The image encoder of trained weights does not change.

        If the validation galaxies show miscalibrated uncertainties, as a function of predicted
        value, magnitude and colours, a recalibration is fitted to them, as by `recalibrated`;
        intervals with guaranteed coverage are computed too.

        Parameters
        ----------
        cutouts, photometry
            As for `predict`.
        labels : mapping or table of Quantity, each of shape (n,)
            Any of `~astrogenspec.QUANTITIES`; NaN or masked where unknown. Other columns of a table
            are ignored, except ``name`` (or ``objID``), by which rows are matched to the
            galaxies. Columns whose metadata state another IMF or metallicity scale are converted
            (see `astrogenspec.quantities`).
        known : mapping or table of Quantity, each of shape (n,), optional
            Known quantities on which the posterior is conditioned but that are not labels, as in
            `predict`: for example the redshifts of a sample selected by redshift, whose
            distribution is not representative. NaN or masked where unknown; a value outside the
            bounds of its quantity is an error.
        simulations : sequence of path, optional
            Folders of simulated shards (``astrogenspec simulate --training``) to train on as well,
            which preserves the accuracy with images and for unlabelled quantities.
        sample_weight : array_like, shape (n,), optional
            Relative weight of each row of ``labels``; equal by default. With importance weights,
            the ratio of the density of galaxies in the survey to that in the labelled sample, the
            posterior is that of the survey. Rows of weight zero are omitted.
        epochs : int
            Maximum number of epochs.
        batch_size : int
            Number of labelled galaxies per batch.
        learning_rate : float
            Maximum learning rate.
        validation_fraction : float
            Fraction of the galaxies used for validation, between 0 and 1.
        patience : int, optional
            Number of epochs without improvement after which training stops; None to use all epochs.
        heads : int, optional
            Number of heads to train, each with a different validation set; their posteriors are
            averaged (deep ensemble), which is more accurate and takes proportionally longer. By
            default as many as the estimator has. Weights with separate heads for galaxies without
            images, such as the bundled ones, get as many of each. Heads that read images are
            trained on galaxies with images, their own or imputed ones of ``simulations``, and are
            otherwise unchanged.
        images_alone : bool
            Train only the weights that read the image; predictions without an image remain
            bit-identical. For a small sample with images, after a fit to a large one without.
        seed : int, `torch.Generator` or None
            Seed of the random numbers; the same seed gives the same weights.
        progress : bool, optional
            Show a progress bar; by default on a terminal.
        report : path-like, optional
            Write a calibration report (``.html``) of the new weights, see `calibration_report`.
            Each head is evaluated on its own validation galaxies.
        overwrite : bool
            Replace an existing report.
        members, rehearsal
            Deprecated names of ``heads`` and ``simulations``.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``, ``on_error``: as for
            `predict`. Flagged galaxies are omitted.

        Returns
        -------
        PropertyEstimator
            A new estimator; its card describes the training under ``"fits"``. This estimator does
            not change.

        Raises
        ------
        ValueError
            If fewer than 10 galaxies have a label, or an argument is invalid.
        TypeError, astropy.units.UnitsError
            If an input or a label is invalid.
        FileExistsError, FileNotFoundError, ImportError
            If the report exists and ``overwrite`` is False, its folder does not exist, or
            matplotlib is not installed; raised before the training.

        Warns
        -----
        AstroGenSpecWarning
            If the validation loss did not improve and the weights are unchanged, or if the report
            cannot be written.
        """
        heads = renamed_argument("PropertyEstimator.fit", "heads", heads, "members", members)
        simulations = renamed_argument(
            "PropertyEstimator.fit", "simulations", simulations, "rehearsal", rehearsal
        )
        if not self.network.can_be_fine_tuned:
            raise ValueError(
                "these weights cannot be fine-tuned: their joint flow is trained only on galaxies "
                "of which all quantities are known; train them with `astrogenspec train`."
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
        if cutouts is not None:
            self._check_images()
        reading = InputOptions(
            **options, screening=self._components is None, size=self._cutout_size
        )
        blocks = ObservationBatches(cutouts, photometry, reading)
        blocks.require_filters(self._components)
        folders = [os.fspath(folder) for folder in simulations or ()]
        weights = None if sample_weight is None else sample_weights(sample_weight, labels)
        examples = FineTuningData(blocks, labels, known, folders, weights)
        network, card, held_out = fine_tune(
            self.network, self.card, examples, settings, make_generator(seed), self.device
        )
        recalibration = held_out.recalibration()
        if recalibration is not None:
            card["recalibration"] = recalibration.to_dict()
        guarantee = held_out.guarantee()
        if guarantee is not None:
            card["guarantee"] = guarantee.to_dict()
        if report is not None:
            try:
                held_out.report().write(report, overwrite=overwrite)
            except OSError as error:
                warnings.warn(
                    f"the report could not be written to {os.fspath(report)!r} ({error}); the "
                    "fit is complete.",
                    AstroGenSpecWarning,
                    stacklevel=2,
                )
        return type(self)(network, card=card, device=self.device)

    def calibration_report(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        truth: Mapping[str, u.Quantity] | Table,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        n_draws: int = 500,
        seed: int = 0,
        **options: Unpack[InputArguments],
    ) -> CalibrationReport:
        """Evaluate the calibration of the posteriors on labelled galaxies.

        Parameters
        ----------
        cutouts, photometry
            As for `predict`, of galaxies that were not used for training.
        truth : mapping or table of Quantity, each of shape (n,)
            True values of any quantities, drawn or derived; NaN or masked where unknown. Other
            columns of a table are ignored, except ``name`` (or ``objID``), by which rows are
            matched to the galaxies.
        out : path-like, optional
            Write a page (``.html``) with verdicts, figures and tables, and the table of scores
            (``.ecsv``).
        overwrite : bool
            Replace existing files.
        n_draws : int
            Number of draws per galaxy.
        seed : int
            Seed of the random numbers.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``, ``on_error``: as for
            `predict`.

        Returns
        -------
        CalibrationReport
            ``print(report)`` shows the verdicts.

        Raises
        ------
        ValueError, TypeError, KeyError, astropy.units.UnitsError
            If an input or a true value is invalid.
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
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        *,
        truth: Mapping[str, u.Quantity] | Table,
        n_draws: int = 500,
        seed: int = 0,
        **options: Unpack[InputArguments],
    ) -> Self:
        """Return a new estimator, recalibrated on labelled galaxies.

        The network does not change. A new correction replaces that of the same quantity and input
        mode; other corrections are kept. Quantities with at least 300 true values also get
        intervals with guaranteed coverage (`~astrogenspec.calibration.CoverageGuarantee`):
        ``predict(...)[name].interval(0.9, guaranteed=True)``.

        Parameters
        ----------
        cutouts, photometry
            As for `predict`, of galaxies that were not used for training.
        truth : mapping or table of Quantity, each of shape (n,)
            True values of any drawn quantities, at least 100 of one of them; NaN or masked where
            unknown.
        n_draws : int
            Number of draws per galaxy.
        seed : int
            Seed of the random numbers.
        **options
            As for `calibration_report`.

        Returns
        -------
        PropertyEstimator
            A new estimator, with the recalibration in its card.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If an input or a true value is invalid, or no quantity has enough true values.

        Warns
        -----
        AstroGenSpecWarning
            If a quantity has fewer than 100 true values.
        """
        truth = converted_labels(truth)
        raw, modes = self._draws_for_calibration(cutouts, photometry, options, n_draws, seed)
        old, new = self._recalibration(), Recalibration.fit(raw, truth, mode=modes, seed=seed)
        card = copy.deepcopy(dict(self.card or {}))
        card["recalibration"] = (new if old is None else old | new).to_dict()
        guarantee, known = guarantee_of(raw, truth, modes, seed), self._guarantee()
        if guarantee is not None:
            card["guarantee"] = (guarantee if known is None else known | guarantee).to_dict()
        return type(self)(self.network, card=card, device=self.device)

    def estimate_zero_points(
        self,
        photometry: Photometry,
        redshift: u.Quantity | np.ndarray,
        *,
        prior: float | u.Quantity = 0.05,
        **options: Unpack[InputArguments],
    ) -> QTable:
        """Estimate offsets of the zero points from galaxies of known redshift.

        The offsets make the known redshifts as probable as possible, see
        `astrogenspec.inference.zero_points`. They include differences between the galaxies of the
        training and real ones, and are uncertain for bands that say little of the redshift.

        Parameters
        ----------
        photometry : see `~astrogenspec.coerce_photometry`
            Photometry of n galaxies.
        redshift : Quantity or ndarray, shape (n,)
            Redshifts; NaN or masked where unknown.
        prior : float or Quantity ['mag']
            Standard deviation of the Gaussian prior of the offsets, mag.
        **options
            ``ebv``, ``survey``, ``on_error``: as for `predict`.

        Returns
        -------
        `~astropy.table.QTable`
            One row per band: ``band``, ``filter``, ``offset`` (magnitude observed minus true) and
            its standard ``error``, and number ``n`` of galaxies. Subtract the offsets from
            magnitudes, or use ``coerce_photometry(...).with_zero_points(table["offset"])``.

        Raises
        ------
        NotFittedError
            If the network is not trained.
        ValueError
            If a redshift is outside the bounds of the network, fewer than 20 galaxies have one, or
            ``prior`` is not positive.
        TypeError, astropy.units.UnitsError
            If an input is invalid.
        """
        width = prior.to_value(u.mag) if isinstance(prior, u.Quantity) else prior
        if not (np.isscalar(width) or np.ndim(width) == 0) or not 0 < float(width) < np.inf:
            raise ValueError(f"prior is {prior!r}, but it must be a positive number of magnitudes.")
        batches = self._read(None, photometry, InputOptions(**options))
        known = known_values({"redshift": redshift}, self.network.quantities)[:, 0]
        batches.require(len(known), "redshift")
        seen = PhotometryBatch.concatenate([each.photometry for each in batches])
        return estimate_offsets(self.network, seen, known, prior=float(width), device=self.device)

    def fit_report(self) -> QTable:
        """Tabulate the errors on the validation galaxies before and after the last `fit`.

        Returns
        -------
        `~astropy.table.QTable`
            One row per labelled quantity: ``quantity``, number ``n`` of galaxies, and before and
            after the fit the ``bias`` (mean error of the median), robust ``scatter`` and coverage
            of 68% intervals; errors are in dex, and dz / (1 + z) for the redshift.

        Raises
        ------
        ValueError
            If the estimator has not been fitted.
        """
        fits = (self.card or {}).get("fits")
        if not fits or "held_out" not in fits[-1]:
            raise ValueError("this estimator was not fitted to labelled galaxies: call fit first.")
        return scores_table(fits[-1]["held_out"])

    # ---- internal

    @property
    def _components(self) -> SEDComponents | None:
        return self.network.components

    def _batch_predictor(
        self,
        batches: ObservationBatches,
        known: Mapping[str, u.Quantity] | None,
        n_draws: int,
        calibrated: bool,
        seed: int | torch.Generator | None,
        ids: ObjectIds | None,
        generator: torch.Generator | None = None,
    ) -> Callable[[Observations, slice], Posterior]:
        """Check the arguments; return the function that draws the posterior of a batch."""
        n_draws = check_count(n_draws, "n_draws")
        if ids is None and generator is None:
            generator = make_generator(seed)
        streams = None if ids is None else make_streams(seed, ids, batches)
        fixed = None if known is None else known_values(known, self.network.quantities)
        if fixed is not None:
            self.network.chain.check_prefix(fixed.shape[1], "known")
            batches.require(len(fixed), "known")
        calibrated = check_bool(calibrated, "calibrated")
        recalibration = self._recalibration() if calibrated else None
        guarantee = self._guarantee() if calibrated else None
        meta = self._metadata(seed) | {
            "known": list(known or ()),
            "calibrated": recalibration is not None,
            **self._prior(),
        }

        def predict_batch(seen: Observations, rows: slice) -> Posterior:
            part = None if fixed is None else fixed[rows]
            source = generator if streams is None else streams[rows]
            return draw_block(self, seen, part, n_draws, source, meta, recalibration, guarantee)

        return predict_batch

    def _draws_for_calibration(
        self,
        cutouts: Cutouts | None,
        photometry: Photometry | None,
        options: InputArguments,
        n_draws: int,
        seed: int,
    ) -> tuple[Posterior, np.ndarray]:
        """Return draws without recalibration and the mode of each galaxy."""
        batches = self._read(cutouts, photometry, InputOptions(**options))
        generator, n_draws = make_generator(seed), check_count(n_draws, "n_draws")
        weights = {key: self._metadata(seed)[key] for key in ("model", "version")}
        meta = {**weights, "calibrated": False, **self._prior()}
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

    def _guarantee(self) -> CoverageGuarantee | None:
        stored = (self.card or {}).get("guarantee")
        return None if stored is None else CoverageGuarantee.from_dict(stored)

    def _prior(self) -> dict[str, Any]:
        """Return the metadata about the population, and about bounds unlike those of SDSS."""
        card, bounds = self.card or {}, self.network.own_bounds
        metadata = {key: card[key] for key in ("population",) if key in card}
        return metadata | ({"bounds": bounds} if bounds else {})
