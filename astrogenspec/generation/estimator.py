"""Estimator of galaxy spectra from images, photometry and a posterior of the properties."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import Row

from ..base import Estimator, make_generator, make_streams
from ..calibration import SpectrumRecalibration
from ..flags import Flag, FlagLog
from ..inputs.cutouts import Cutouts
from ..inputs.errors import check_bool, check_count
from ..inputs.features import ModelInputs
from ..inputs.ids import ObjectIds
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..inputs.photometry import Photometry
from ..inputs.sed_features import SEDComponents
from ..inputs.survey_names import SurveyLike
from ..nn.noise import ObjectStreams
from ..nn.records import TensorRecord
from ..quantities import (
    FLUX_UNIT,
    LINE_FLUX_UNIT,
    QUANTITIES,
    plain_values,
    quantities_to_theta,
    quantity_index,
)
from ..results.matching import GalaxyMatcher
from ..results.posterior import Posterior
from ..results.spectra import SpectrumDraws
from ..surveys import BANDS
from ..warnings import AstroGenSpecWarning, warn_deprecated
from ..wavelengths import GENERATED, MEASURED_LINES, REST, WIDE
from .completion import Completion, draw_completion, in_ugriz, sed_components
from .conditioning import APERTURES
from .fibre_photometry import fibre_fluxes
from .flux_calibration import TargetPhotometry
from .galaxy_spectroscopy import WAVELENGTH, GalaxySpectroscopyNetwork
from .image_spectra import draw_image_spectra
from .network import SamplerSettings, SpectrumNetwork
from .networks import build_network
from .pipeline import (
    SELECTIONS,
    DrawnSpectra,
    Request,
    candidate_draws,
    draw_spectra,
    galaxy_generators,
    galaxy_seed,
    recalibrate_continua,
)

__all__ = ["SpectrumEstimator", "SpectrumOptions"]

#: Tells the random numbers of spectra from those of properties with the same seed and ids.
_LANE = 1
#: First pixel of `GENERATED` in `WIDE`.
_FIRST_PIXEL = round((GENERATED.start - WIDE.start) / WIDE.step)
#: Rest-frame wavelengths (Angstrom) at which the stellar library resolves spectral features.
_TRUSTED_RANGE = (10**REST.start, 8750.0)
#: Pixels of `GENERATED` that networks of images alone generate.
_RANGE_OF_IMAGES = (GENERATED.wavelength >= WAVELENGTH[0]) & (
    GENERATED.wavelength <= WAVELENGTH[-1]
)


@dataclass(frozen=True)
class _Conditions(TensorRecord):
    """Network inputs and photometry of a batch; a completion if it is not in ugriz."""

    inputs: ModelInputs
    target: TargetPhotometry
    completion: Completion | None = None


@dataclass(frozen=True, eq=False)
class SpectrumOptions:
    """Rarely used options of `SpectrumEstimator.predict`.

    Parameters
    ----------
    select : {"all", "weighted", "best"}
        Use of the contrastive scores. ``"all"``: none; the draws have equal weights, as draws of
        the posterior. ``"weighted"``: draws are weighted by their scores. ``"best"``: the
        low-resolution candidates with the highest scores are kept, and weighted by their scores at
        full resolution.
    n_candidates : int, optional
        Number of low-resolution candidates with ``select="best"``; twice ``n_draws`` by default.
    sampler : SamplerSettings
        Settings of the diffusion samplers.
    psf_fwhm : Quantity ['angle'], optional
        Full width at half maximum of the point-spread function of the images: one value, one per
        galaxy, or shape (n_galaxies, 5) for ugriz. It gives the light in the fibre to 2%; without
        it the typical seeing of the survey is assumed, and the light in the fibre is known to 6%.

    Raises
    ------
    ValueError, TypeError
        If an option is invalid.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogenspec import SpectrumOptions
    >>> options = SpectrumOptions(select="best", n_candidates=64, psf_fwhm=1.2 * u.arcsec)
    """

    select: str = "all"
    n_candidates: int | None = None
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    psf_fwhm: u.Quantity | None = None

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise ValueError(
                f"select is {self.select!r}: it must be one of {', '.join(SELECTIONS)}."
            )
        if self.n_candidates is not None:
            check_count(self.n_candidates, "n_candidates")
        if not isinstance(self.sampler, SamplerSettings):
            raise TypeError(
                f"sampler is a {type(self.sampler).__name__}: it must be a SamplerSettings."
            )
        if self.psf_fwhm is not None and not isinstance(self.psf_fwhm, u.Quantity):
            raise TypeError(
                f"psf_fwhm is a {type(self.psf_fwhm).__name__}: give a Quantity, such as 1.3 * "
                "u.arcsec."
            )

    def seeing(self, cutouts: Any, n: int | None) -> np.ndarray | None:
        """Return the seeing of each image.

        Parameters
        ----------
        cutouts : object
            The images; None if there are none.
        n : int or None
            Number of galaxies; None if unknown.

        Returns
        -------
        ndarray, shape (n, 5), or None
            Full width at half maximum (arcsec); None if ``psf_fwhm`` is None.

        Raises
        ------
        ValueError
            If ``psf_fwhm`` is not positive, has a wrong shape, or is given without images or for an
            unknown number of galaxies.
        astropy.units.UnitConversionError
            If its unit is not an angle.
        """
        if self.psf_fwhm is None:
            return None
        values = plain_values(self.psf_fwhm, u.arcsec, name="psf_fwhm").astype(float)
        if cutouts is None:
            raise ValueError("psf_fwhm requires cutouts: omit it when only photometry is given.")
        if n is None:
            raise ValueError(
                "psf_fwhm requires a known number of galaxies, but cutouts is an iterator: give "
                "a list of cutouts."
            )
        if values.shape not in ((), (n,), (n, len(BANDS))):
            raise ValueError(
                f"psf_fwhm has shape {values.shape} for {n} galaxies: give one value, one per "
                f"galaxy, or shape ({n}, {len(BANDS)})."
            )
        wrong = values[~((values > 0) & np.isfinite(values))]
        if wrong.size:
            raise ValueError(
                f"psf_fwhm is {wrong.flat[0]:g} arcsec, but it must be positive and finite: give "
                "the seeing of each image."
            )
        values = values[:, None] if values.ndim == 1 else values
        return np.broadcast_to(values, (n, len(BANDS)))


class SpectrumEstimator(Estimator):
    """Draw optical spectra of galaxies from their images and photometry.

    Parameters
    ----------
    network : SpectrumNetwork or GalaxySpectroscopyNetwork
        The network.
    card : dict, optional
        Metadata of the weights; without a card the network is untrained.
    device : str or `torch.device`
        Device of the network.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogenspec import PropertyEstimator, SpectrumEstimator
    >>> galaxy = {"g": 17.6 * u.ABmag, "r": 16.8 * u.ABmag, "i": 16.4 * u.ABmag}
    >>> galaxy |= {f"{band}_err": 0.02 * u.mag for band in "gri"} | {"ebv": 0.03 * u.mag}
    >>> properties = PropertyEstimator.from_pretrained()  # doctest: +SKIP
    >>> posterior = properties.predict(photometry=galaxy, seed=1)  # doctest: +SKIP
    >>> estimator = SpectrumEstimator.from_pretrained()  # doctest: +SKIP
    >>> spectra = estimator.predict(  # doctest: +SKIP
    ...     photometry=galaxy, posterior=posterior, seed=1
    ... )
    >>> spectra.best  # doctest: +SKIP
    """

    default_model = "astrogenspec-spectra"
    _batch_size = 64
    _bytes_per_draw = 2 * 4 * GENERATED.size

    @classmethod
    def build_network(cls, config: dict[str, Any]) -> SpectrumNetwork | GalaxySpectroscopyNetwork:
        """Build an untrained network from the ``config`` of another."""
        return build_network(config)

    @classmethod
    def _check_card(cls, card: Any) -> None:
        super()._check_card(card)
        if card.get("recalibration") is not None:
            SpectrumRecalibration.from_dict(card["recalibration"])

    @property
    def from_images_alone(self) -> bool:
        """Whether the weights use neither photometry, except for the flux, nor a posterior."""
        return isinstance(self.network, GalaxySpectroscopyNetwork)

    def predict(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        posterior: Posterior | None = None,
        *,
        n_draws: int = 16,
        aperture: str = "fibre",
        options: SpectrumOptions | None = None,
        bands: str | Sequence[str] | None = None,
        position: SkyCoord | None = None,
        pixel_scale: u.Quantity | None = None,
        ebv: float | np.ndarray | u.Quantity | None = None,
        survey: SurveyLike | None = None,
        on_error: str = "raise",
        calibrated: bool = True,
        seed: int | torch.Generator | None = None,
        ids: ObjectIds | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_candidates: int | None = None,
        select: str | None = None,
        sampler: SamplerSettings | None = None,
        psf_fwhm: u.Quantity | None = None,
    ) -> SpectrumDraws:
        """Draw spectra of each galaxy.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, optional
            Images of one or more galaxies. For images in counts without a zero point in the header,
            give ``coerce_cutouts(images, zero_point=...)``.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Observed fluxes or magnitudes of the same galaxies, in the same order. It sets the
            absolute flux. Missing photometry is measured on the image.
        posterior : Posterior, optional
            Posterior of the same galaxies: matched by name, or by order if the galaxies of either
            have no names. Each spectrum has the redshift of one draw and, in the fibre, its line
            fluxes. Without it redshifts and lines are generated with the spectrum.
        n_draws : int
            Number of spectra per galaxy.
        aperture : {"fibre", "total"}
            Light in a fibre of 3 arcsec on the centre, or in the aperture of the photometry. For
            photometry in a fibre (``coerce_photometry(table, aperture="fibre")``) only
            ``"fibre"``: the spectra have its fluxes, and of the posterior only the redshift is
            used, for line fluxes and masses assume total fluxes.
        options : SpectrumOptions, optional
            Rarely used options: selection of draws, sampler, seeing. With weights of the
            configuration galaxy-spectroscopy, the default is ``SpectrumOptions(select="best",
            n_candidates=25)``.
        bands, position, pixel_scale, ebv, survey, on_error
            As for `PropertyEstimator.predict`.
        calibrated : bool
            Apply the recalibration in the card, if any: scale the spread of the continua about
            their median, which does not change a single draw, and correct the emission lines that
            are not tied to a draw of the properties; see
            `~astrogenspec.calibration.SpectrumRecalibration`.
        seed : int, `torch.Generator` or None
            Seed of the random numbers. The spectra of a galaxy depend on the seed, its index (or
            its entry of ``ids``) and the options, but not on ``batch_size`` or on other galaxies.
        ids : sequence of int or of str, shape (n,), optional
            Identifiers of the galaxies, which key the random numbers, as for
            `PropertyEstimator.predict`.
        batch_size : int, optional
            Number of galaxies per batch; 64 by default.
        progress : bool, optional
            Show a progress bar; by default for long runs on a terminal.
        n_candidates, select, sampler, psf_fwhm
            Deprecated; use ``options``.

        Returns
        -------
        SpectrumDraws
            Spectra corrected for Galactic extinction, on vacuum wavelengths of 3800 to 9200
            Angstrom. Spectrum k belongs to draw k of the posterior; with ``select="best"`` see
            `SpectrumDraws.posterior_draw`.

        Raises
        ------
        NotFittedError
            If the network is not trained.
        ValueError, TypeError, astropy.units.UnitsError
            If an input is invalid, or photometry in a fibre is given without a posterior or with
            ``aperture="total"``.
        MemoryError
            If the spectra would take more than ``memory_limit`` bytes.
        """
        chosen = self._current_options(options, n_candidates, select, sampler, psf_fwhm)
        request = self._request(n_draws, aperture, chosen, calibrated)
        reading = InputOptions(bands, position, pixel_scale, ebv, on_error, survey=survey)
        batches = self._read(cutouts, photometry, reading, batch_size)
        seeing = chosen.seeing(cutouts, batches.n_galaxies)
        predict_batch = self._batch_predictor(batches, posterior, seeing, request, seed, ids)
        return self._predict_all(batches, predict_batch, progress, n_draws=request.n_draws)

    def predict_iter(
        self,
        cutouts: Cutouts | None = None,
        photometry: Photometry | None = None,
        posterior: Posterior | None = None,
        *,
        n_draws: int = 16,
        aperture: str = "fibre",
        options: SpectrumOptions | None = None,
        calibrated: bool = True,
        seed: int | torch.Generator | None = None,
        ids: ObjectIds | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_candidates: int | None = None,
        select: str | None = None,
        sampler: SamplerSettings | None = None,
        psf_fwhm: u.Quantity | None = None,
        **input_options: Unpack[InputArguments],
    ) -> Iterator[SpectrumDraws]:
        """Draw spectra batch by batch, in memory that does not grow with the number of galaxies.

        Parameters
        ----------
        cutouts, photometry, posterior, n_draws, aperture, options, calibrated, seed, ids
            As for `predict`.
        batch_size : int, optional
            Number of galaxies per batch; 64 by default.
        progress : bool, optional
            Show a progress bar; by default for long runs on a terminal.
        n_candidates, select, sampler, psf_fwhm
            Deprecated; use ``options``.
        **input_options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``survey``, ``on_error``: as for
            `predict`.

        Returns
        -------
        iterator of SpectrumDraws
            Batches in the order of the input; `SpectrumWriter.append` writes them to one file.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`.
        """
        chosen = self._current_options(options, n_candidates, select, sampler, psf_fwhm)
        request = self._request(n_draws, aperture, chosen, calibrated)
        batches = self._read(cutouts, photometry, InputOptions(**input_options), batch_size)
        seeing = chosen.seeing(cutouts, batches.n_galaxies)
        predict_batch = self._batch_predictor(batches, posterior, seeing, request, seed, ids)
        return self._predict_batches(batches, predict_batch, progress)

    def _read(
        self,
        cutouts: Cutouts | None,
        photometry: Photometry | None,
        options: InputOptions,
        batch_size: int | None = None,
    ) -> ObservationBatches:
        """Check that the network is trained; return the input, in any filters."""
        self.check_fitted()
        size = self._batch_size if batch_size is None else batch_size
        batches = ObservationBatches(cutouts, photometry, options, batch_size=size)
        in_sdss = batches.is_sdss or self.from_images_alone
        batches.require_filters(None if in_sdss else sed_components())
        return batches

    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Raise an error: only ``astrogenspec train spectra`` trains, on simulations.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "a SpectrumEstimator cannot be fitted to observed galaxies: train one with "
            "`astrogenspec train spectra`."
        )

    # ---- internal

    def _current_options(
        self,
        options: SpectrumOptions | None,
        n_candidates: int | None,
        select: str | None,
        sampler: SamplerSettings | None,
        psf_fwhm: u.Quantity | None,
    ) -> SpectrumOptions:
        """Return the options, by default those of the network, also from deprecated arguments."""
        default = SpectrumOptions(**self.network.default_options)
        return _current_options(options, default, n_candidates, select, sampler, psf_fwhm)

    def _request(
        self, n_draws: int, aperture: str, options: SpectrumOptions, calibrated: bool
    ) -> Request:
        """Check the arguments and collect them."""
        n_draws, n_candidates = check_count(n_draws, "n_draws"), options.n_candidates
        if aperture not in APERTURES:
            raise ValueError(f"aperture is {aperture!r}: it must be one of {', '.join(APERTURES)}.")
        if n_candidates is None:
            n_candidates = 2 * n_draws if options.select == "best" else n_draws
        if n_candidates < n_draws:
            raise ValueError(
                f"n_candidates is {n_candidates}, less than n_draws ({n_draws}): give at least "
                "n_draws."
            )
        if options.select != "best" and n_candidates > n_draws:
            raise ValueError(
                f"n_candidates is {n_candidates} with select={options.select!r}: more candidates "
                "than n_draws need "
                'select="best".'
            )
        check_bool(calibrated, "calibrated")
        stored = (self.card or {}).get("recalibration") if calibrated else None
        recalibration = None if stored is None else SpectrumRecalibration.from_dict(stored)
        return Request(
            n_draws, n_candidates, options.select, aperture, options.sampler, recalibration
        )

    def _batch_predictor(
        self,
        batches: ObservationBatches,
        posterior: Posterior | None,
        seeing: np.ndarray | None,
        request: Request,
        seed: int | torch.Generator | None,
        ids: ObjectIds | None,
    ) -> Callable[[Observations, slice], SpectrumDraws]:
        """Check the arguments; return the function that draws the spectra of a batch."""
        if posterior is not None and self.from_images_alone:
            warnings.warn(
                "these weights make spectra from images alone, and measure their redshifts; the "
                "posterior is not used.",
                AstroGenSpecWarning,
                stacklevel=3,
            )
            posterior = None
        theta = None if posterior is None else _posterior_theta(posterior)
        aperture = request.aperture
        if batches.in_fibre:
            theta = _redshift_alone(theta, aperture)
            # The network takes the photometry as that of the spectrum.
            request = replace(request, aperture="total", photometry_in_fibre=True)
        gaps = None if posterior is None else _incomplete_draws(posterior)
        rows_of = None if posterior is None else _row_finder(posterior, batches)
        streams = None if ids is None else make_streams(seed, ids, batches, lane=_LANE)
        root = 0 if streams is not None else galaxy_seed(make_generator(seed))
        meta = self._metadata(seed) | {
            "aperture": aperture,
            "select": request.select,
            "calibrated": request.recalibration is not None,
            "calibration_case": request.case,
            "free_lines": theta is None or request.aperture == "total" or not _has_lines(theta),
        }

        in_sdss = batches.is_sdss or self.from_images_alone
        components = None if in_sdss else sed_components()
        if self.from_images_alone:
            meta["wavelength_range"] = [float(WAVELENGTH[0]), float(WAVELENGTH[-1])]

        def predict_batch(seen: Observations, rows: slice) -> SpectrumDraws:
            part = incomplete = None
            if theta is not None and rows_of is not None and gaps is not None:
                found = rows_of(seen, rows)
                part, incomplete = theta[found], gaps[found]
            sources: list[torch.Generator] | ObjectStreams
            if streams is None:
                sources = list(galaxy_generators(root, rows.start, len(seen)))
            else:
                sources = streams[rows]
            given = self._conditions(
                seen, components, None if seeing is None else seeing[rows], part, sources, request
            )
            return self._draw_batch(seen, given, part, incomplete, sources, request, meta)

        return predict_batch

    def _conditions(
        self,
        seen: Observations,
        components: SEDComponents | None,
        seeing: np.ndarray | None,
        theta: np.ndarray | None,
        generators: list[torch.Generator] | ObjectStreams,
        request: Request,
    ) -> _Conditions:
        """Return the network inputs and the photometry of a batch, in ugriz."""
        in_fibre, zero_points = request.aperture == "fibre", self.network.zero_points
        if components is None:
            target = _target_photometry(seen, seeing, zero_points, in_fibre=in_fibre)
            return _Conditions(seen.inputs(), target)
        virtual, inputs, extinction = in_ugriz(seen, components)
        target = _target_photometry(virtual, seeing, zero_points, extinction, in_fibre=in_fibre)
        redshift = torch.full((len(seen), request.n_candidates), torch.nan)
        if theta is not None:
            chosen = candidate_draws(request, theta.shape[1])
            redshift = torch.as_tensor(theta[:, chosen, quantity_index("redshift")])
        completion = draw_completion(
            seen.photometry, target, components, generators, redshift, zero_points
        )
        return _Conditions(inputs, target, completion)

    def _draw_batch(
        self,
        seen: Observations,
        given: _Conditions,
        theta: np.ndarray | None,
        incomplete: np.ndarray | None,
        generators: list[torch.Generator] | ObjectStreams,
        request: Request,
        meta: dict[str, Any],
    ) -> SpectrumDraws:
        network = self.network
        given = given.to(self.device)
        log = FlagLog(len(seen))
        log.extend(seen.flag_codes, seen.flags)
        usable = seen.usable & given.target.flux.isfinite().any(1).cpu().numpy()
        log.add(
            seen.usable & ~usable,
            Flag.NO_FLUX_SCALE,
            "there is no photometry to which the spectrum can be scaled",
        )
        properties = None
        if theta is not None and incomplete is not None:
            drawn_before = np.isfinite(theta).any(axis=(1, 2))
            log.add(usable & ~drawn_before, Flag.NO_DRAWS, "the posterior has no finite draws")
            usable = usable & drawn_before
            log.add(
                usable & incomplete, Flag.NO_DRAWS, "some draws of the posterior are not finite"
            )
            usable = usable & ~incomplete
            limit = QUANTITIES["redshift"].upper
            beyond = (theta[..., quantity_index("redshift")] > limit).any(axis=1)
            log.add(
                usable & beyond,
                Flag.NO_SPECTRUM,
                f"the posterior reaches beyond redshift {limit:g}, to which spectra are generated",
            )
            usable = usable & ~beyond
            properties = torch.as_tensor(theta, dtype=torch.float32, device=self.device)
        recalibration, modes = request.recalibration, seen.modes
        if recalibration is not None:
            redshift = np.full((len(seen), 1), np.nan)
            if theta is not None:
                redshift = theta[..., quantity_index("redshift")]
            modes = recalibration.applicable(modes, request.case, redshift)
        if isinstance(network, GalaxySpectroscopyNetwork):
            lacking = network.lacking(given.inputs).cpu().numpy()
            log.add(usable & lacking, Flag.NO_SPECTRUM, f"these weights need {network.needs}")
            usable = usable & ~lacking
            drawn = draw_image_spectra(network, given.inputs, given.target, generators, request)
        else:
            drawn = draw_spectra(
                network,
                given.inputs,
                given.target,
                properties,
                generators,
                request,
                given.completion,
                # Also where all are 1, so that random numbers do not depend on other galaxies.
                None if recalibration is None else recalibration.line_factors(modes, request.case),
            )
        if recalibration is not None:
            drawn = recalibrate_continua(drawn, recalibration, modes, request.case, generators)
        finite = np.isfinite(drawn.flux).all(axis=(1, 2))
        log.add(usable & ~finite, Flag.NO_SPECTRUM, "the network generated no finite spectrum")
        draws = None if theta is None else drawn.draw
        reliable = _RANGE_OF_IMAGES if self.from_images_alone else None
        return _spectrum_draws(drawn, usable & finite, draws, seen, log, request, meta, reliable)


def _current_options(
    options: SpectrumOptions | None,
    default: SpectrumOptions,
    n_candidates: int | None,
    select: str | None,
    sampler: SamplerSettings | None,
    psf_fwhm: u.Quantity | None,
) -> SpectrumOptions:
    """Return the options, also from the deprecated arguments, with a warning for each of these."""
    given: dict[str, Any] = {
        "n_candidates": n_candidates,
        "select": select,
        "sampler": sampler,
        "psf_fwhm": psf_fwhm,
    }
    old = {name: value for name, value in given.items() if value is not None}
    if options is not None and not isinstance(options, SpectrumOptions):
        raise TypeError(f"options is a {type(options).__name__}: it must be a SpectrumOptions.")
    if options is not None and old:
        raise ValueError(
            f"options and {', '.join(old)} were both given: give them in SpectrumOptions only."
        )
    for name in old:
        warn_deprecated(
            f"the argument {name} of SpectrumEstimator.predict",
            f"options=SpectrumOptions({name}=...)",
            stacklevel=5,
        )
    return replace(options or default, **old)


def _posterior_theta(posterior: Posterior) -> np.ndarray:
    """Return the draws of a posterior in internal units, shape (n, m, 9); NaN if missing."""
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: it must be the Posterior that "
            "PropertyEstimator.predict returns."
        )
    if "redshift" not in posterior.quantities:
        raise ValueError(
            "posterior has no redshift: give the Posterior that PropertyEstimator.predict returns."
        )
    return quantities_to_theta(
        {name: draws for name, draws in posterior.draws.items() if name in QUANTITIES}
    )


def _has_lines(theta: np.ndarray) -> bool:
    """Whether draws of the properties, of shape (n, k, 9), have fluxes of lines."""
    columns = [quantity_index(name) for name in QUANTITIES if name.endswith("_flux")]
    return bool(np.isfinite(theta[..., columns]).any())


def _redshift_alone(theta: np.ndarray | None, aperture: str) -> np.ndarray:
    """Return draws without the quantities that assume total fluxes, for photometry in a fibre."""
    if aperture != "fibre":
        raise ValueError(
            f"aperture is {aperture!r}, but the photometry is that in a fibre: give "
            "aperture='fibre', or total fluxes."
        )
    if theta is None:
        raise ValueError(
            "photometry is that in a fibre, which requires a posterior: give that of "
            "PropertyEstimator.predict for the same photometry, or for total fluxes."
        )
    found = np.full_like(theta, np.nan)
    redshift = quantity_index("redshift")
    found[..., redshift] = theta[..., redshift]
    return found


def _incomplete_draws(posterior: Posterior) -> np.ndarray:
    """Return the galaxies in which draws of a quantity are NaN while others are not, shape (n,)."""
    missing = np.stack(
        [np.isnan(draws.value) for name, draws in posterior.draws.items() if name in QUANTITIES]
    )
    partly = (missing.any(axis=2) & ~missing.all(axis=2)).any(axis=0)
    no_redshift = np.isnan(posterior.draws["redshift"].value).any(axis=1)
    return partly | (no_redshift & ~missing.all(axis=(0, 2)))


def _row_finder(
    posterior: Posterior, batches: ObservationBatches
) -> Callable[[Observations, slice], np.ndarray]:
    """Return the function that finds the rows of a posterior for the galaxies of a batch."""
    n = batches.n_galaxies
    if n is not None and len(posterior) < n:
        raise ValueError(
            f"posterior has {len(posterior)} galaxies, but {n} were given: give the posterior of "
            "the same galaxies."
        )
    matcher = GalaxyMatcher(posterior, "posterior")
    conditioned_on = posterior.photometry
    if matcher.by_order:
        batches.require(len(posterior), "posterior")

    def rows_of(seen: Observations, rows: slice) -> np.ndarray:
        def same(index: int, row: int) -> bool:
            return conditioned_on is not None and _same_fluxes(
                seen.photometry.flux[index], seen.photometry.bands, conditioned_on[row]
            )

        found = matcher.match(seen.names, seen.named, rows.start, same=same)
        if matcher.by_order:
            batches.require(len(posterior), "posterior")
        return found

    return rows_of


def _same_fluxes(flux: np.ndarray, bands: Sequence[str], row: Row) -> bool:
    """Return whether the photometry of a posterior has the given fluxes."""
    names = [f"flux_{band}" for band in bands]
    if not set(names) <= set(row.colnames):
        return False
    stored = [u.Quantity(row[name], u.nmgy).value for name in names]
    return np.allclose(stored, flux, rtol=1e-6, atol=0, equal_nan=True)


def _target_photometry(
    seen: Observations,
    seeing: np.ndarray | None,
    zero_points: torch.Tensor,
    extinction: np.ndarray | None = None,
    *,
    in_fibre: bool,
) -> TargetPhotometry:
    """Return the photometry to which spectra are scaled, and for the fibre also that in it.

    ``extinction``, by default that of the photometry, corrects the images.
    """
    flux, error = seen.photometry.dereddened()
    fibre: tuple[np.ndarray, np.ndarray] | None = None
    seeing_known: np.ndarray | bool = False
    if in_fibre and seen.cutouts is not None:
        if extinction is None:
            extinction = np.asarray(seen.photometry.extinction)
        factor = 10 ** (0.4 * extinction)
        light, noise = fibre_fluxes(seen.cutouts, seeing)
        fibre = light * factor, noise * factor
        seeing_known = False if seeing is None else np.isfinite(seeing).all(axis=1)
    return TargetPhotometry.from_survey(
        flux,
        error,
        zero_points,
        fibre=fibre,
        measured=seen.photometry.measured,
        seeing_known=seeing_known,
    )


def _spectrum_draws(
    drawn: DrawnSpectra,
    usable: np.ndarray,
    posterior_draw: np.ndarray | None,
    seen: Observations,
    log: FlagLog,
    request: Request,
    meta: dict[str, Any],
    reliable: np.ndarray | None,
) -> SpectrumDraws:
    """Return the draws; ``reliable`` are pixels that are trusted whatever the redshift is."""
    flux = drawn.flux[:, :, _FIRST_PIXEL : _FIRST_PIXEL + GENERATED.size].astype(np.float32)
    redshift, residual = drawn.redshift.copy(), drawn.residual.copy()
    line_flux = None
    if drawn.line_flux is not None:
        lines = np.where(usable[:, None, None], drawn.line_flux, np.nan) * LINE_FLUX_UNIT
        line_flux = dict(zip(MEASURED_LINES, np.moveaxis(lines, 2, 0), strict=True))
    for values in (flux, redshift, residual):
        values[~usable] = np.nan
    if reliable is None:
        median_redshift = np.where(usable, np.median(drawn.redshift, axis=1), 0.0)
        rest = GENERATED.wavelength / (1 + median_redshift[:, None])
        trusted = (rest > _TRUSTED_RANGE[0]) & (rest < _TRUSTED_RANGE[1])
    else:
        trusted = np.broadcast_to(reliable, (len(flux), GENERATED.size))
    return SpectrumDraws(
        flux * FLUX_UNIT,
        GENERATED.wavelength * u.AA,
        redshift,
        weights=None if request.select == "all" else drawn.weights,
        names=seen.names,
        named=seen.named,
        flags=log.texts,
        flag_codes=log.codes,
        photometric_residual=residual * u.mag,
        posterior_draw=posterior_draw,
        line_flux=line_flux,
        trusted=trusted,
        meta=meta,
    )
