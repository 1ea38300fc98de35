"""Flags of galaxies whose inputs or predictions lie outside the training distribution.

These tests are made, with limits from the card of the weights:

* Ranges (card key ``training_range``): magnitudes, colours and posterior medians are compared with
  the lowest and highest value in the training set.  Keys are ``r_magnitude`` and the like, ``g-r``
  and the like (AB, corrected for Galactic extinction), and names of quantities (in their own unit;
  a line flux as log10).
* Image statistics (card key ``novelty``): size, centring, noise, sky, neighbours and artefacts
  (`image_statistics`) are compared with their quantiles 0.0005 and 0.9995 in the training set, plus
  a margin for what simulations leave out.
* Spectral energy distributions, of networks that read photometry in any filters (card key
  ``novelty``): the tail probability of the fluxes (`astrogenspec.inference.outliers.seds`) is
  compared with its quantile 0.002 in the training set, minus half a dex.  The other tests use
  virtual photometry in ugriz then, and that of colours is made for photometry in ugriz only.
* Colours (card key ``novelty``): the tail probability of the magnitudes under a Gaussian mixture
  (`ColourMixture`) is compared with its quantile 0.002 in the training set, minus half a dex.
* Stars and quasars (card key ``novelty``): the magnitudes of an object without an image are
  compared with those of galaxies, stars and quasars (`StarTest`), unless its radius shows that it
  is extended.

Draws of flagged galaxies are kept.  Every kind of deviation has its own bit of
`~astrogenspec.flags.Flag`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cards import check_layout, check_number, check_range, entry
from ...flags import Flag, FlagLog
from ...inputs.cutouts import CutoutBatch
from ...inputs.filter_sets import is_sdss
from ...inputs.fluxes import ab_magnitudes
from ...inputs.observations import Observations
from ...inputs.photometry import PhotometryBatch
from ...inputs.sed_features import SEDComponents, SEDInference
from ...inputs.virtual_photometry import in_sdss_bands
from ...quantities import QUANTITIES, quantity_index
from ...surveys import BANDS
from .colours import ColourMixture, near_stellar_locus
from .image_statistics import aperture_magnitudes, image_statistics
from .seds import sed_log_tail, sed_log_tails
from .stars import StarTest

__all__ = [
    "check_outlier_statistics",
    "input_range_flags",
    "magnitudes_and_errors",
    "outlier_flags",
    "outlier_statistics",
    "posterior_range_flags",
    "sed_limit",
    "training_range_of",
]

_MAGNITUDE = "_magnitude"
_LAYOUT = 1
#: Key of the card.
_ENTRY = "novelty"
#: Tail probability of each limit of an image statistic.
_TAIL = 0.0005
#: Margins below the lower and above the upper limit of each image statistic, in its own unit.
_MARGINS = {
    "signal": (0.15, 9.0),
    "size": (0.3, 2.0),
    "offset": (9.0, 1.0),
    "misregistration": (9.0, 0.1),
    "plateau": (9.0, 3.0),
    "sharpness": (9.0, 0.05),
    "neighbour": (9.0, 0.05),
    "edge": (9.0, 0.1),
    "opposite": (9.0, 0.1),
    "background": (0.15, 2.0),
    "noise": (0.35, 0.08),
}
#: Margins in dex, of the tail probability of colours and of the signal-to-noise ratio of
#: photometry.
_COLOUR_MARGIN, _SIGNAL_MARGIN = 0.5, 0.8
#: Quantile of the tail probabilities of the training set that is the limit for colours.
_COLOUR_TAIL = 0.002
#: Upper limits of the ``size`` and ``wings`` of a point source, see `image_statistics`.
_STAR_SIZE, _STAR_WINGS = 6.5, 0.11
#: Maximum fraction of bad pixels, in the whole image and in its core.
_MAX_MASKED, _MAX_MASKED_CORE = 0.4, 0.1
#: Radius that encloses half of the light, arcsec, above which a source is not a star; twice that of
#: a star in images of SDSS.
_EXTENDED_RADIUS = 1.6
#: Signal-to-noise ratio from which a source counts as detected.
_DETECTED = 5.0


def input_range_flags(
    limits: Mapping[str, Sequence[float]], photometry: PhotometryBatch
) -> FlagLog:
    """Compare magnitudes and colours with the training range.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    photometry : PhotometryBatch
        Photometry of n galaxies.

    Returns
    -------
    FlagLog
        Missing magnitudes are not flagged.
    """
    log = FlagLog(len(photometry))
    for key, magnitudes in _magnitudes(photometry).items():
        if key in limits:
            band = key.removesuffix(_MAGNITUDE)
            label = f"colour {key}" if band == key else f"{band} magnitude"
            _flag_range(log, Flag.INPUT_RANGE, label, magnitudes, limits[key], digits=2)
    return log


def posterior_range_flags(limits: Mapping[str, Sequence[float]], theta: np.ndarray) -> FlagLog:
    """Compare posterior medians with the training range.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    theta : ndarray, shape (n, n_draws, 9)
        Draws in internal units.

    Returns
    -------
    FlagLog
        Galaxies without draws are not flagged.
    """
    log = FlagLog(len(theta))
    for k, name in enumerate(QUANTITIES):
        if name in limits:
            median = np.median(theta[:, :, k], axis=1)
            _flag_range(log, Flag.POSTERIOR_RANGE, f"median {name}", median, limits[name], digits=3)
    return log


def training_range_of(photometry: PhotometryBatch, theta: np.ndarray) -> dict[str, list[float]]:
    """Compute the range of a training set.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of the n galaxies of the training set.
    theta : ndarray, shape (n, 9)
        Labels, NaN where unknown.

    Returns
    -------
    dict of str to [lowest, highest]
        For the r magnitude and the redshift, unless all of its values are missing.
    """
    columns = {
        f"r{_MAGNITUDE}": _magnitudes(photometry)[f"r{_MAGNITUDE}"],
        "redshift": theta[:, quantity_index("redshift")],
    }
    return {
        key: [float(np.nanmin(values)), float(np.nanmax(values))]
        for key, values in columns.items()
        if np.isfinite(values).any()
    }


def outlier_statistics(
    photometry: PhotometryBatch, cutouts: CutoutBatch | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Compute the limits of `outlier_flags` from a training set; needs scikit-learn.

    Parameters
    ----------
    photometry : PhotometryBatch
        Catalogue photometry with realistic errors; tens of thousands of galaxies.
    cutouts : CutoutBatch, optional
        Images, free of Galactic extinction; thousands of galaxies, not necessarily the same.
    seed : int
        Seed of the Gaussian mixtures.

    Returns
    -------
    dict
        Value of the card key ``novelty``; JSON-serialisable.

    Raises
    ------
    ValueError
        If fewer than 200 galaxies have all bands.
    """
    signal = np.log10(np.maximum(_signal(photometry), 1.0))
    statistics: dict[str, Any] = {
        "layout": _LAYOUT,
        "colours": _colour_statistics(*magnitudes_and_errors(photometry), seed),
        "least_signal": round(float(np.quantile(signal, _TAIL)) - _SIGNAL_MARGIN, 3),
    }
    if cutouts is not None:
        observed = aperture_magnitudes(cutouts.flux, cutouts.ivar)
        statistics["image_colours"] = _colour_statistics(*observed, seed)
        values = image_statistics(cutouts.flux, cutouts.ivar)
        statistics["image"] = {
            name: [
                round(float(np.nanquantile(values[name], level)) + sign * margin, 4)
                for level, sign, margin in zip((_TAIL, 1 - _TAIL), (-1, 1), margins, strict=True)
            ]
            for name, margins in _MARGINS.items()
        }
    return statistics


def sed_limit(inferred: SEDInference) -> float:
    """Compute the limit of the tail probability of SEDs from a training set.

    Parameters
    ----------
    inferred : SEDInference
        Galaxies of the training set in realistic sets of filters.

    Returns
    -------
    float
        Value of ``least_sed_log_tail`` in the card's ``novelty``.
    """
    return round(float(np.nanquantile(sed_log_tails(inferred), _COLOUR_TAIL)) - _COLOUR_MARGIN, 3)


def outlier_flags(
    statistics: Mapping[str, Any],
    seen: Observations,
    components: SEDComponents | None = None,
) -> FlagLog:
    """Flag images and photometry outside the training distribution.

    Parameters
    ----------
    statistics : mapping
        The card's ``novelty``; if empty, nothing is flagged.
    seen : Observations
        Observations of n galaxies.
    components : SEDComponents, optional
        Components of a network that reads photometry in any filters.

    Returns
    -------
    FlagLog

    Raises
    ------
    ValueError
        If the statistics were written by a newer version.
    """
    log = FlagLog(len(seen))
    if not statistics:
        return log
    check_layout(statistics, _LAYOUT, _ENTRY)
    sdss = in_sdss_bands(seen.photometry, components)
    if seen.cutouts is not None and "image" in statistics:
        _check_images(log, statistics, seen.cutouts, sdss)
    unusual = np.zeros(len(seen), dtype=bool)
    if components is not None and "least_sed_log_tail" in statistics:
        with np.errstate(invalid="ignore"):
            tails = sed_log_tail(components, seen.photometry)
            unusual = tails < statistics["least_sed_log_tail"]
    _check_photometry(log, statistics, seen.photometry, sdss, unusual)
    if "stars" in statistics:
        found = StarTest.from_dict(statistics["stars"]).found(*magnitudes_and_errors(sdss))
        log.add(
            found & ~_extended(seen),
            Flag.STAR_OR_QUASAR,
            "the photometry is more probably that of a star or a quasar (if it is a galaxy, give "
            "an image or its radius r50)",
        )
    return log


def check_outlier_statistics(statistics: Mapping[str, Any]) -> None:
    """Check the card's ``novelty``.

    Parameters
    ----------
    statistics : mapping
        Output of `outlier_statistics`.

    Raises
    ------
    ValueError
        If an entry is missing or invalid, or was written by a newer version.
    """
    check_layout(statistics, _LAYOUT, _ENTRY)
    check_number(entry(statistics, "least_signal", _ENTRY), f"{_ENTRY}.least_signal")
    if "least_sed_log_tail" in statistics:
        check_number(statistics["least_sed_log_tail"], f"{_ENTRY}.least_sed_log_tail")
    if "stars" in statistics:
        StarTest.from_dict(statistics["stars"], f"{_ENTRY}.stars")
    with_images = "image" in statistics
    for key in ("colours", "image_colours") if with_images else ("colours",):
        colours, where = entry(statistics, key, _ENTRY), f"{_ENTRY}.{key}"
        ColourMixture.from_dict(entry(colours, "mixture", where), f"{where}.mixture")
        check_number(entry(colours, "least_log_tail", where), f"{where}.least_log_tail")
    if with_images:
        where = f"{_ENTRY}.image"
        for name in _MARGINS:
            check_range(entry(statistics["image"], name, where), f"{where}.{name}")


def magnitudes_and_errors(photometry: PhotometryBatch) -> tuple[np.ndarray, np.ndarray]:
    """Compute dereddened magnitudes of fluxes that exceed twice their error.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of n galaxies.

    Returns
    -------
    magnitudes, errors : ndarray, shape (n, 5)
        AB; NaN where missing or too faint.
    """
    flux, error = photometry.dereddened()
    with np.errstate(invalid="ignore", divide="ignore"):
        usable = flux > 2 * error
        errors = np.where(usable, 1.0857 * error / flux, np.nan)
    return np.where(usable, ab_magnitudes(flux), np.nan), errors


@dataclass(frozen=True)
class _ImageOutliers:
    """Image statistics of n galaxies and the limits of the training set.

    Attributes
    ----------
    statistics : mapping of str to ndarray, shape (n,)
        See `image_statistics`.
    limits : mapping of str to (lowest, highest)
        Limits of each statistic.
    present : ndarray of bool, shape (n,)
        Whether the galaxy has an image.
    unusual_colours : ndarray of bool, shape (n,)
        Whether aperture colours are outside the training distribution.
    """

    statistics: Mapping[str, np.ndarray]
    limits: Mapping[str, Sequence[float]]
    present: np.ndarray
    unusual_colours: np.ndarray

    @property
    def detected(self) -> np.ndarray:
        return self.present & (10 ** self.statistics["signal"] >= _DETECTED)

    @property
    def star(self) -> np.ndarray:
        small = self.statistics["size"] < _STAR_SIZE
        return self.detected & small & (self.statistics["wings"] < _STAR_WINGS)

    @property
    def masked(self) -> np.ndarray:
        core = self.statistics["masked_core"] > _MAX_MASKED_CORE
        return self.present & (core | (self.statistics["masked"] > _MAX_MASKED))

    def low(self, name: str) -> np.ndarray:
        return self.detected & (self.statistics[name] < self.limits[name][0])

    def high(self, name: str) -> np.ndarray:
        return self.detected & (self.statistics[name] > self.limits[name][1])

    def outside(self, name: str) -> np.ndarray:
        return self.low(name) | self.high(name)


#: Checks of images: flag, condition, and text with the statistics of the galaxy as fields.
_IMAGE_CHECKS: tuple[tuple[Flag, Callable[[_ImageOutliers], np.ndarray], str], ...] = (
    (
        Flag.BLANK_FIELD,
        lambda s: s.present & ~s.detected,
        "no source is detected in the middle of the image",
    ),
    (
        Flag.POINT_SOURCE,
        lambda s: s.star,
        "the image shows a point source: a star or a quasar",
    ),
    (
        Flag.ARTEFACT,
        lambda s: s.high("sharpness"),
        "the image has pixels sharper than any source: a cosmic ray or an artefact",
    ),
    (
        Flag.ARTEFACT,
        lambda s: s.high("opposite"),
        "opposite sides of the image are bright: a trail or two neighbours",
    ),
    (
        Flag.SATURATED,
        lambda s: s.high("plateau"),
        "{plateau:.0f} pixels are within 3% of the highest value: the image may be saturated",
    ),
    (
        Flag.MASKED,
        lambda s: s.masked,
        "up to {masked:.0%} of the pixels of a band are bad, and up to {masked_core:.0%} of its "
        "central pixels",
    ),
    (
        Flag.MISREGISTERED,
        lambda s: s.high("misregistration"),
        "the bands are displaced by {misregistration:.1f} pixels from one another",
    ),
    (
        Flag.NEIGHBOUR,
        lambda s: s.high("neighbour") | s.high("edge"),
        "other sources are {neighbour_ratio:.2g} times as bright as the middle of the image",
    ),
    (
        Flag.OFF_CENTRE,
        lambda s: s.high("offset"),
        "the source is {offset:.1f} pixels off centre",
    ),
    (
        Flag.BACKGROUND,
        lambda s: s.outside("background"),
        "the sky level at the edge of the image is {background:.2g} times the pixel noise: check "
        "the sky subtraction",
    ),
    (
        Flag.NOISE,
        lambda s: s.outside("noise"),
        "the noise of the image is {noise_ratio:.2g} times its stated uncertainty",
    ),
    (
        Flag.SIZE,
        lambda s: s.outside("size") & ~s.star,
        "the size of the galaxy is outside the training range",
    ),
    (
        Flag.IMAGE_COLOURS,
        lambda s: s.detected & s.unusual_colours,
        "the colours of the image are outside the training distribution",
    ),
    (
        Flag.LOW_SIGNAL,
        lambda s: s.low("signal"),
        "the signal-to-noise ratio of the image, {signal_ratio:.0f}, is below the training range",
    ),
)


def _extended(seen: Observations) -> np.ndarray:
    """Return which objects have an image or a radius larger than that of a star."""
    extended = np.zeros(len(seen), dtype=bool)
    if seen.cutouts is not None:
        extended |= np.any(seen.cutouts.bands_present, axis=1)
    if seen.photometry.morphology is not None:
        extended |= np.nan_to_num(seen.photometry.morphology.r50) > _EXTENDED_RADIUS
    return extended


def _check_images(
    log: FlagLog, statistics: Mapping[str, Any], cutouts: CutoutBatch, photometry: PhotometryBatch
) -> None:
    values = image_statistics(cutouts.flux, cutouts.ivar)
    observed, errors = aperture_magnitudes(cutouts.flux, cutouts.ivar)
    found = _ImageOutliers(
        values,
        statistics["image"],
        np.any(cutouts.bands_present, axis=1),
        _unusual(statistics["image_colours"], observed - photometry.extinction, errors),
    )
    ratios = {f"{name}_ratio": 10 ** values[name] for name in ("neighbour", "noise", "signal")}
    fields = values | ratios
    for flag, condition, template in _IMAGE_CHECKS:
        for row in np.flatnonzero(condition(found)):
            text = template.format(**{name: column[row] for name, column in fields.items()})
            log.add(int(row), flag, text)


def _check_photometry(
    log: FlagLog,
    statistics: Mapping[str, Any],
    photometry: PhotometryBatch,
    sdss: PhotometryBatch,
    unusual: np.ndarray,
) -> None:
    """Flag faint galaxies and those with unusual colours, among them those that are ``unusual``."""
    magnitudes, errors = magnitudes_and_errors(sdss)
    if is_sdss(photometry.filters):
        # The limit holds for the errors of SDSS; other surveys have that of their spectra.
        unusual = unusual | _unusual(statistics["colours"], magnitudes, errors)
    signal = _signal(photometry)
    present = photometry.bands_present.any(axis=1)
    with np.errstate(invalid="ignore"):
        faint = present & (np.log10(np.maximum(signal, 1.0)) < statistics["least_signal"])
    stellar = near_stellar_locus(magnitudes)

    def of_signal(row: int) -> str:
        return (
            f"the signal-to-noise ratio of the photometry, {signal[row]:.1f}, is below the "
            "training range"
        )

    def of_colours(row: int) -> str:
        star = " (colours of a star)" if stellar[row] else ""
        return f"magnitudes and colours are outside the training distribution{star}"

    log.add(faint, Flag.LOW_SIGNAL, of_signal)
    log.add(unusual & ~faint, Flag.COLOURS, of_colours)


def _flag_range(
    log: FlagLog,
    flag: Flag,
    label: str,
    values: np.ndarray,
    limits: Sequence[float],
    digits: int,
) -> None:
    low, high = limits
    with np.errstate(invalid="ignore"):
        outside = (values < low) | (values > high)
    log.add(
        outside,
        flag,
        lambda row: (
            f"{label} {values[row]:.{digits}f} is outside the training range, "
            f"{low:.{digits}f} to {high:.{digits}f}"
        ),
    )


def _magnitudes(photometry: PhotometryBatch) -> dict[str, np.ndarray]:
    """Return dereddened AB magnitudes and all colours; NaN where a flux is not positive."""
    flux = photometry.dereddened()[0]
    magnitude = 22.5 - 2.5 * np.log10(flux, out=np.full(flux.shape, np.nan), where=flux > 0)
    columns: dict[str, Any] = {f"{b}{_MAGNITUDE}": magnitude[:, k] for k, b in enumerate(BANDS)}
    for j, blue in enumerate(BANDS):
        for k in range(j + 1, len(BANDS)):
            columns[f"{blue}-{BANDS[k]}"] = magnitude[:, j] - magnitude[:, k]
    return columns


def _colour_statistics(magnitudes: np.ndarray, errors: np.ndarray, seed: int) -> dict[str, Any]:
    mixture = ColourMixture.fit(magnitudes, seed=seed)
    tails = mixture.log_tail(magnitudes, errors)
    least = float(np.nanquantile(tails, _COLOUR_TAIL)) - _COLOUR_MARGIN
    return {"mixture": mixture.to_dict(), "least_log_tail": round(least, 3)}


def _unusual(
    statistics: Mapping[str, Any], magnitudes: np.ndarray, errors: np.ndarray
) -> np.ndarray:
    tails = ColourMixture.from_dict(statistics["mixture"]).log_tail(magnitudes, errors)
    with np.errstate(invalid="ignore"):
        return tails < statistics["least_log_tail"]


def _signal(photometry: PhotometryBatch) -> np.ndarray:
    """Return the highest signal-to-noise ratio of the bands, shape (n,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(photometry.flux / photometry.error, posinf=0.0)
    return np.maximum(ratio.max(axis=1), 0.0)
