"""Images, photometry and a posterior in, draws of the optical spectrum out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, Unpack

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord

from ..base import Estimator, make_generator
from ..calibration import SpectrumRecalibration
from ..inputs.errors import check_count
from ..inputs.observations import (
    InputArguments,
    InputOptions,
    ObservationBatches,
    Observations,
)
from ..quantities import QUANTITIES, quantities_to_theta
from ..results.posterior import Posterior
from ..results.spectra import SpectrumDraws
from ..surveys import BANDS
from ..wavelengths import GENERATED, REST, WIDE
from .conditioning import APERTURES
from .fibre_photometry import fibre_fluxes
from .flux_calibration import Photometry
from .network import SamplerSettings, SpectrumNetwork
from .pipeline import (
    SELECTIONS,
    DrawnSpectra,
    Request,
    draw_spectra,
    galaxy_generators,
    recalibrated,
)

__all__ = ["SpectrumEstimator", "checked_psf", "checked_request", "theta_of"]


def checked_request(
    n_draws: int,
    n_candidates: int | None,
    select: str,
    aperture: str,
    sampler: SamplerSettings | None,
) -> Request:
    """Check what is asked for.

    Parameters
    ----------
    n_draws, n_candidates, select, aperture, sampler
        As for `SpectrumEstimator.predict`.

    Returns
    -------
    Request

    Raises
    ------
    ValueError, TypeError
        If something makes no sense.
    """
    n_draws = check_count(n_draws, "n_draws")
    if select not in SELECTIONS:
        raise ValueError(f"select is {select!r}: it must be one of {', '.join(SELECTIONS)}.")
    if aperture not in APERTURES:
        raise ValueError(f"aperture is {aperture!r}: it must be one of {', '.join(APERTURES)}.")
    if n_candidates is None:
        n_candidates = 2 * n_draws if select == "best" else n_draws
    if check_count(n_candidates, "n_candidates") < n_draws:
        raise ValueError(
            f"n_candidates is {n_candidates}, but {n_draws} draws are to be chosen from them: give at least as many."
        )
    if select != "best" and n_candidates > n_draws:
        raise ValueError(
            f'n_candidates is {n_candidates} with select={select!r}: only select="best" chooses among more than n_draws.'
        )
    if sampler is not None and not isinstance(sampler, SamplerSettings):
        raise TypeError(f"sampler is a {type(sampler).__name__}: it must be a SamplerSettings.")
    return Request(n_draws, n_candidates, select, aperture, sampler or SamplerSettings())


def theta_of(posterior: Posterior, n: int | None) -> np.ndarray:
    """Bring the draws of a posterior to internal units.

    Parameters
    ----------
    posterior : Posterior
    n : int or None
        Number of galaxies wanted, if it is known.

    Returns
    -------
    ndarray, shape (n, m, 9)
        NaN for a quantity that the posterior lacks.

    Raises
    ------
    TypeError
        If it is no posterior.
    ValueError
        If it is of another number of galaxies, or has no redshift.
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: it must be the Posterior that PropertyEstimator.predict returns."
        )
    if n is not None and len(posterior) != n:
        raise ValueError(
            f"posterior is of {len(posterior)} galaxies, but {n} were given: give the posterior of the same "
            "galaxies, in the same order."
        )
    if "redshift" not in posterior.quantities:
        raise ValueError(
            "posterior has no redshift: give one that PropertyEstimator.predict returned."
        )
    known = {name: q for name, q in posterior.draws.items() if name in QUANTITIES}
    return quantities_to_theta(known)


def checked_psf(psf_fwhm: Any, cutouts: Any, n: int | None) -> np.ndarray | None:
    """Check the seeing of images.

    Parameters
    ----------
    psf_fwhm : Quantity ['angle'] or None
        One for all, one for each galaxy, or shape (n, 5).
    cutouts : object
        The images; None if there are none.
    n : int or None
        Number of galaxies; None if it is not known before the end.

    Returns
    -------
    ndarray, shape (n, 5), or None
        Full width at half maximum (arcsec).

    Raises
    ------
    TypeError
        If it is no Quantity.
    ValueError
        If it is not positive, has another shape, there are no images, or the number of galaxies is not known.
    astropy.units.UnitConversionError
        If its unit is no angle.
    """
    if psf_fwhm is None:
        return None
    if not isinstance(psf_fwhm, u.Quantity):
        raise TypeError(
            f"psf_fwhm is a {type(psf_fwhm).__name__}: give a Quantity, such as 1.3 * u.arcsec."
        )
    values = np.asarray(psf_fwhm.to_value(u.arcsec), dtype=float)
    if cutouts is None:
        raise ValueError("psf_fwhm was given without cutouts: leave it out, it is that of images.")
    if n is None:
        raise ValueError(
            "psf_fwhm was given with an iterator of cutouts, whose number is not known: give a list of cutouts."
        )
    if values.shape not in ((), (n,), (n, len(BANDS))):
        raise ValueError(
            f"psf_fwhm has shape {values.shape} for {n} galaxies: give one for all, one for each, or shape "
            f"({n}, {len(BANDS)})."
        )
    if not (values > 0).all():
        raise ValueError(
            "psf_fwhm holds values that are not positive: give the seeing of each image."
        )
    values = values[:, None] if values.ndim == 1 else values
    return np.broadcast_to(values, (n, len(BANDS)))


_FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)
_FIRST = round((GENERATED.start - WIDE.start) / WIDE.step)
#: Rest-frame wavelengths (Angstrom) within which the stellar library resolves features.
_TRUSTED = (10**REST.start, 8750.0)


class SpectrumEstimator(Estimator):
    """Draw the optical spectrum of galaxies from their images and photometry.

    Parameters
    ----------
    network : SpectrumNetwork
        The network.
    card : dict, optional
        What is known of its weights; without a card the network counts as never trained.
    device : str or `torch.device`
        Where the network runs.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogenspec import PropertyEstimator, SpectrumEstimator
    >>> galaxy = {"g": 17.6 * u.ABmag, "r": 16.8 * u.ABmag, "i": 16.4 * u.ABmag, "ebv": 0.03 * u.mag}
    >>> galaxy |= {f"{band}_err": 0.02 * u.mag for band in "gri"}
    >>> posterior = PropertyEstimator.from_pretrained().predict(photometry=galaxy, seed=1)  # doctest: +SKIP
    >>> estimator = SpectrumEstimator.from_pretrained()  # doctest: +SKIP
    >>> spectra = estimator.predict(photometry=galaxy, posterior=posterior, seed=1)  # doctest: +SKIP
    >>> spectra.best  # doctest: +SKIP
    """

    default_model = "astrogenspec-spectra"
    _batch_size = 64
    _bytes_per_draw = 2 * 4 * GENERATED.size

    @classmethod
    def build_network(cls, config: dict[str, Any]) -> SpectrumNetwork:
        """Build the untrained network from the ``config`` of another."""
        return SpectrumNetwork.from_config(config)

    def predict(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        posterior: Posterior | None = None,
        *,
        n_draws: int = 16,
        n_candidates: int | None = None,
        select: str = "all",
        aperture: str = "fibre",
        sampler: SamplerSettings | None = None,
        psf_fwhm: u.Quantity | None = None,
        bands: str | Sequence[str] | None = None,
        position: SkyCoord | None = None,
        pixel_scale: u.Quantity | None = None,
        ebv: float | np.ndarray | u.Quantity | None = None,
        on_error: str = "raise",
        calibrated: bool = True,
        seed: int | torch.Generator | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> SpectrumDraws:
        """Draw spectra of each galaxy.

        Parameters
        ----------
        cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, optional
            Images of one galaxy or of many.
        photometry : see `~astrogenspec.coerce_photometry`, optional
            Fluxes or magnitudes of the same galaxies, in the same order, as observed. What is missing is measured on
            the image; it fixes the absolute flux.
        posterior : Posterior, optional
            Of the same galaxies: each spectrum belongs to one of its draws, whose redshift it has and, in the fibre,
            whose line fluxes. Without it redshifts and lines are generated with the spectrum.
        n_draws : int
            Spectra of each galaxy.
        n_candidates : int, optional
            Spectra at low resolution from which they are chosen; by default twice ``n_draws`` with
            ``select="best"``, else ``n_draws``.
        select : {"all", "weighted", "best"}
            What the contrastive networks do. ``all``: nothing, every draw counts alike, as the posterior demands.
            ``weighted``: the draws are weighted by their score. ``best``: the candidates of the highest scores at low
            resolution are kept and weighted by their score at full resolution.
        aperture : {"fibre", "total"}
            Light in a fibre of 3 arcsec on the centre, or in the aperture of the photometry.
        sampler : SamplerSettings, optional
            How the diffusions are sampled.
        psf_fwhm : Quantity ['angle'], optional
            Full width at half maximum of the point-spread function of the images: one for all, one for each galaxy, or
            shape (n_galaxies, 5) for ugriz. With it the light in the fibre is measured on the image to 2%, without it
            to 6%, as the typical seeing of the survey is assumed.
        bands, position, pixel_scale, ebv, on_error
            As for `PropertyEstimator.predict`.
        calibrated : bool
            Whether to apply the recalibration in the card, if there is one: the continua of the draws of a galaxy spread more
            or less about their median. A single draw stays as it is.
        seed : int, `torch.Generator` or None
            Source of randomness. The spectra of a galaxy depend on the seed, its number and what is asked for; not on
            ``batch_size``, nor on the galaxies around it.
        batch_size : int, optional
            Galaxies that are read at a time; 64 by default.
        progress : bool, optional
            Show a progress bar; by default for long work on a terminal.

        Returns
        -------
        SpectrumDraws
            Corrected for Galactic extinction, on vacuum wavelengths of 3800 to 9200 Angstrom. Spectrum k
            belongs to draw k of the posterior, unless ``select="best"`` chose others:
            `SpectrumDraws.posterior_draw` tells which.

        Raises
        ------
        NotFittedError
            If the network was never trained.
        ValueError, TypeError, astropy.units.UnitsError
            If an input cannot be used; the sentence names it.
        MemoryError
            If the spectra would need more than ``memory_limit`` bytes.
        """
        options = InputOptions(bands, position, pixel_scale, ebv, on_error)
        request = checked_request(n_draws, n_candidates, select, aperture, sampler)
        request = self._with_recalibration(request, calibrated)
        batches = self._read(cutouts, photometry, options, batch_size)
        predict_batch = self._batch_predictor(cutouts, batches, posterior, psf_fwhm, request, seed)
        return self._predict_all(batches, predict_batch, progress, n_draws=n_draws)

    def predict_iter(
        self,
        cutouts: Any = None,
        photometry: Any = None,
        posterior: Posterior | None = None,
        *,
        n_draws: int = 16,
        n_candidates: int | None = None,
        select: str = "all",
        aperture: str = "fibre",
        sampler: SamplerSettings | None = None,
        psf_fwhm: u.Quantity | None = None,
        calibrated: bool = True,
        seed: int | torch.Generator | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        **options: Unpack[InputArguments],
    ) -> Iterator[SpectrumDraws]:
        """Draw spectra block by block, so that memory does not grow with the number of galaxies.

        Parameters
        ----------
        cutouts, photometry, posterior, n_draws, n_candidates, select, aperture, sampler, psf_fwhm, calibrated, seed
            As for `predict`.
        batch_size : int, optional
            Galaxies of a block; 64 by default.
        progress : bool, optional
            Show a progress bar; by default for long work on a terminal.
        **options
            ``bands``, ``position``, ``pixel_scale``, ``ebv``, ``on_error``: as for `predict`.

        Returns
        -------
        iterator of SpectrumDraws
            In order; hand each to `SpectrumWriter.append` to write them to one file.

        Raises
        ------
        NotFittedError, ValueError, TypeError, astropy.units.UnitsError
            As for `predict`.
        """
        request = checked_request(n_draws, n_candidates, select, aperture, sampler)
        request = self._with_recalibration(request, calibrated)
        batches = self._read(cutouts, photometry, InputOptions(**options), batch_size)
        predict_batch = self._batch_predictor(cutouts, batches, posterior, psf_fwhm, request, seed)
        return self._predict_batches(batches, predict_batch, progress)

    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Refuse: spectra are learnt from simulations alone, by ``astrogenspec train spectra``.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "a SpectrumEstimator cannot be fitted to observed galaxies: train one with `astrogenspec train spectra`."
        )

    # ---- inside

    def _with_recalibration(self, request: Request, calibrated: bool) -> Request:
        learnt = (self.card or {}).get("recalibration") if calibrated else None
        if learnt is None:
            return request
        return replace(request, recalibration=SpectrumRecalibration.from_dict(learnt))

    def _batch_predictor(
        self,
        cutouts: Any,
        batches: ObservationBatches,
        posterior: Posterior | None,
        psf_fwhm: u.Quantity | None,
        request: Request,
        seed: int | torch.Generator | None,
    ) -> Callable[[Observations, slice], SpectrumDraws]:
        """Check the arguments; return the function that draws the spectra of a batch."""
        theta = None if posterior is None else theta_of(posterior, batches.n_galaxies)
        seeing = checked_psf(psf_fwhm, cutouts, batches.n_galaxies)
        generator = make_generator(seed)
        root = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        meta = self._metadata(seed) | {
            "aperture": request.aperture,
            "select": request.select,
            "calibrated": request.recalibration is not None,
        }

        def predict_batch(seen: Observations, rows: slice) -> SpectrumDraws:
            if theta is not None and rows.stop > len(theta):
                raise ValueError(
                    f"posterior has {len(theta)} galaxies, but cutouts has more: give the posterior of the same galaxies."
                )
            scaled = _photometry(
                seen,
                None if seeing is None else seeing[rows],
                self.network.zero_points,
                in_fibre=request.aperture == "fibre",
            )
            part = None if theta is None else theta[rows]
            generators = list(galaxy_generators(root, rows.start, len(seen)))
            return self._block(seen, scaled, part, generators, request, meta)

        return predict_batch

    def _block(
        self,
        seen: Observations,
        scaled: Photometry,
        theta: np.ndarray | None,
        generators: list[torch.Generator],
        request: Request,
        meta: dict[str, Any],
    ) -> SpectrumDraws:
        network, device = self.network, self.device
        reasons = list(seen.flags)
        usable = seen.usable & np.isfinite(scaled.flux.numpy()).any(axis=1)
        _note(reasons, seen.usable & ~usable, "there is no photometry to scale the spectrum to")
        if theta is not None:
            known = np.isfinite(theta).any(axis=(1, 2))
            _note(reasons, usable & ~known, "the posterior has no draws")
            usable = usable & known
            theta = torch.as_tensor(theta, dtype=torch.float32, device=device)
        drawn = draw_spectra(
            network,
            seen.inputs().to(device),
            scaled.to(device),
            theta,
            generators,
            request,
        )
        if request.recalibration is not None:
            drawn = recalibrated(drawn, request.recalibration, seen.modes, request.aperture)
        broken = ~np.isfinite(drawn.flux).all(axis=(1, 2))
        _note(reasons, usable & broken, "the network gave no finite spectrum")
        belongs = None if theta is None else drawn.draw
        return _packed(drawn, usable & ~broken, belongs, seen.names, reasons, request, meta)


def _note(reasons: list[str], rows: np.ndarray, sentence: str) -> None:
    for k in np.flatnonzero(rows):
        reasons[k] = f"{reasons[k]}; {sentence}" if reasons[k] else sentence


def _photometry(
    seen: Observations, seeing: np.ndarray | None, zero_points: torch.Tensor, *, in_fibre: bool
) -> Photometry:
    """Photometry that the flux is scaled to; in the fibre also that of its light on the image."""
    flux, error = seen.photometry.dereddened()
    fibre, known = None, False
    if in_fibre and seen.cutouts is not None:
        factor = 10 ** (0.4 * seen.photometry.extinction)
        light, noise = fibre_fluxes(seen.cutouts, seeing)
        fibre = light * factor, noise * factor
        known = False if seeing is None else np.isfinite(seeing).all(axis=1)
    return Photometry.on_ab(
        flux,
        error,
        zero_points,
        fibre=fibre,
        measured=seen.photometry.measured,
        seeing_known=known,
    )


def _packed(
    drawn: DrawnSpectra,
    usable: np.ndarray,
    belongs: np.ndarray | None,
    names: tuple[str, ...],
    flags: list[str],
    request: Request,
    meta: dict[str, Any],
) -> SpectrumDraws:
    flux = drawn.flux[:, :, _FIRST : _FIRST + GENERATED.size].astype(np.float32)
    redshift, residual = drawn.redshift.copy(), drawn.residual.copy()
    for values in (flux, redshift, residual):
        values[~usable] = np.nan
    middle = np.where(usable, np.median(drawn.redshift, axis=1), 0.0)
    rest = GENERATED.wavelength / (1 + middle[:, None])
    return SpectrumDraws(
        flux * _FLUX_UNIT,
        GENERATED.wavelength * u.AA,
        redshift,
        weights=None if request.select == "all" else drawn.weights,
        names=names,
        flags=flags,
        photometric_residual=residual * u.mag,
        posterior_draw=belongs,
        trusted=(rest > _TRUSTED[0]) & (rest < _TRUSTED[1]),
        meta=meta,
    )
