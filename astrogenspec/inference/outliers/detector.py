"""Is a galaxy like those that the network was trained on?

The card of a network may hold ``training_range``, a dictionary of ``[lowest, highest]``: ``r_magnitude`` and likewise for
the other bands, ``g-r`` and other colours (AB magnitudes, corrected for Galactic extinction), and any quantity of the
posterior in its own unit (a line flux as log10).  Inputs are compared with the first two, the median of the posterior with
the last.  A galaxy outside is flagged; its draws are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...inputs.cutouts import CutoutBatch
from ...inputs.fluxes import ab_magnitudes
from ...inputs.observations import Observations
from ...inputs.photometry import PhotometryBatch
from ...quantities import QUANTITIES
from ...surveys import BANDS
from .colours import ColourMixture, near_stellar_locus
from .image_statistics import aperture_magnitudes, image_statistics

__all__ = [
    "KINDS",
    "detect_outliers",
    "input_range_flags",
    "magnitudes_and_errors",
    "outlier_flags",
    "outlier_statistics",
    "posterior_range_flags",
    "training_range_of",
]

_MAGNITUDE = "_magnitude"


def input_range_flags(
    limits: Mapping[str, Sequence[float]], photometry: PhotometryBatch
) -> list[str]:
    """Compare magnitudes and colours with the range of training.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    photometry : PhotometryBatch
        What the network sees.

    Returns
    -------
    list of str
        One sentence for each galaxy; empty strings inside of the range or where nothing is known.
    """
    flags = [""] * len(photometry)
    for key, magnitudes in _magnitudes(photometry).items():
        if key in limits:
            what = (
                f"{key.removesuffix(_MAGNITUDE)} magnitude"
                if _MAGNITUDE in key
                else f"colour {key}"
            )
            _note(flags, what, magnitudes, limits[key], digits=2)
    return flags


def posterior_range_flags(limits: Mapping[str, Sequence[float]], theta: np.ndarray) -> list[str]:
    """Compare medians of the posterior with the range of training.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    theta : ndarray, shape (n, n_draws, 9)
        Draws.

    Returns
    -------
    list of str
        One sentence for each galaxy; empty strings inside of the range.
    """
    flags = [""] * len(theta)
    for k, name in enumerate(QUANTITIES):
        if name in limits:
            median = np.median(theta[:, :, k], axis=1)
            _note(flags, f"median {name}", median, limits[name], digits=3)
    return flags


def training_range_of(photometry: PhotometryBatch, theta: np.ndarray) -> dict[str, list[float]]:
    """Give the range that a training set spans.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of the training set.
    theta : ndarray, shape (n, 9)
        Labels, NaN where unknown.

    Returns
    -------
    dict of str to [lowest, highest]
        The r magnitude and the redshift, as far as they are known.
    """
    columns = {f"r{_MAGNITUDE}": _magnitudes(photometry)[f"r{_MAGNITUDE}"], "redshift": theta[:, 0]}
    return {
        key: [float(np.nanmin(values)), float(np.nanmax(values))]
        for key, values in columns.items()
        if np.isfinite(values).any()
    }


def _magnitudes(photometry: PhotometryBatch) -> dict[str, np.ndarray]:
    """Give AB magnitudes and all colours, dereddened; NaN where there is no positive flux."""
    flux = photometry.dereddened()[0]
    magnitude = 22.5 - 2.5 * np.log10(flux, out=np.full(flux.shape, np.nan), where=flux > 0)
    columns: dict[str, Any] = {f"{b}{_MAGNITUDE}": magnitude[:, k] for k, b in enumerate(BANDS)}
    for j, blue in enumerate(BANDS):
        for k in range(j + 1, len(BANDS)):
            columns[f"{blue}-{BANDS[k]}"] = magnitude[:, j] - magnitude[:, k]
    return columns


def _note(
    flags: list[str], what: str, values: np.ndarray, limits: Sequence[float], digits: int
) -> None:
    low, high = limits
    with np.errstate(invalid="ignore"):
        outside = (values < low) | (values > high)
    for k in np.flatnonzero(outside):
        sentence = (
            f"{what} {values[k]:.{digits}f} is outside of the range of training, "
            f"{low:.{digits}f} to {high:.{digits}f}"
        )
        flags[k] = f"{flags[k]}; {sentence}" if flags[k] else sentence


#: Kinds of deviation, in the order in which they are named.
KINDS = (
    "blank field",
    "star",
    "artefact",
    "saturated",
    "masked",
    "misregistered",
    "neighbour",
    "off centre",
    "background",
    "noise",
    "size",
    "image colour",
    "signal",
    "colours",
)
_LAYOUT = 1
_TAIL = 0.0005
#: What is allowed beyond the limits of the training set, downwards and upwards, since no simulation is quite real.
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
#: Decades: of probability for colours; of the signal-to-noise ratio of photometry, which matters little while it is high.
_COLOUR_MARGIN, _SIGNAL_MARGIN = 0.5, 0.8
_COLOUR_TAIL = 0.002
#: A point source: its size, and how much wider it may seem under a wider window (see `stamps`).
_STAR_SIZE, _STAR_WINGS = 6.5, 0.11
_MOST_MASKED, _MOST_MASKED_CORE = 0.4, 0.1
_DETECTED = 5.0


def outlier_statistics(
    photometry: PhotometryBatch, cutouts: CutoutBatch | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Describe the training set, for ``card["novelty"]``; needs scikit-learn.

    Parameters
    ----------
    photometry : PhotometryBatch
        Catalogue photometry of galaxies as the network was trained on, errors and all; tens of thousands.
    cutouts : CutoutBatch, optional
        Images of such galaxies (not necessarily the same); thousands. Without Galactic extinction.
    seed : int
        Of the mixture.

    Returns
    -------
    dict
        Fits JSON.

    Raises
    ------
    ValueError
        If there are fewer than 200 galaxies with all bands.
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
        measures = image_statistics(cutouts.flux, cutouts.ivar)
        statistics["image"] = {
            name: [
                round(float(np.nanquantile(measures[name], share)) + sign * margin, 4)
                for share, sign, margin in zip((_TAIL, 1 - _TAIL), (-1, 1), margins, strict=True)
            ]
            for name, margins in _MARGINS.items()
        }
    return statistics


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


def detect_outliers(statistics: Mapping[str, Any], seen: Observations) -> dict[str, list[str]]:
    """Say for each kind of deviation which galaxies show it.

    Parameters
    ----------
    statistics : mapping
        The card's ``novelty``.
    seen : Observations
        n galaxies.

    Returns
    -------
    dict of str to list of str
        For each of `KINDS`, n sentences, empty where a galaxy is as usual in that respect.

    Raises
    ------
    ValueError
        If the statistics are of a newer version.
    """
    if statistics.get("layout", 0) > _LAYOUT:
        raise ValueError(
            f"the novelty statistics have layout {statistics['layout']} and this version knows {_LAYOUT}; update "
            "astrogenspec."
        )
    found = {kind: [""] * len(seen) for kind in KINDS}
    if seen.cutouts is not None and "image" in statistics:
        _check_images(found, statistics, seen)
    _check_photometry(found, statistics, seen.photometry)
    return found


def outlier_flags(statistics: Mapping[str, Any], seen: Observations) -> list[str]:
    """Join what is unusual about each galaxy.

    Parameters
    ----------
    statistics : mapping
        The card's ``novelty``; empty: nothing is known.
    seen : Observations
        n galaxies.

    Returns
    -------
    list of str
        Empty strings where nothing is.
    """
    if not statistics:
        return [""] * len(seen)
    found = detect_outliers(statistics, seen)
    return ["; ".join(filter(None, sentences)) for sentences in zip(*found.values(), strict=True)]


@dataclass(frozen=True)
class _Stamps:
    """Measures of images, and their range in the training set."""

    measures: Mapping[str, np.ndarray]
    limits: Mapping[str, Sequence[float]]
    present: np.ndarray

    @property
    def detected(self) -> np.ndarray:
        return self.present & (10 ** self.measures["signal"] >= _DETECTED)

    @property
    def star(self) -> np.ndarray:
        small = self.measures["size"] < _STAR_SIZE
        return self.detected & small & (self.measures["wings"] < _STAR_WINGS)

    @property
    def masked(self) -> np.ndarray:
        core = self.measures["masked_core"] > _MOST_MASKED_CORE
        return self.present & (core | (self.measures["masked"] > _MOST_MASKED))

    def low(self, name: str) -> np.ndarray:
        return self.detected & (self.measures[name] < self.limits[name][0])

    def high(self, name: str) -> np.ndarray:
        return self.detected & (self.measures[name] > self.limits[name][1])

    def outside(self, name: str) -> np.ndarray:
        return self.low(name) | self.high(name)


#: What may be wrong with an image: kind, which images have it, and how to say it, with the measures of one.
_IMAGE_CHECKS = (
    (
        "blank field",
        lambda s: s.present & ~s.detected,
        "no source is seen in the middle of the image",
    ),
    ("star", lambda s: s.star, "the image shows a point source: a star or a quasar"),
    (
        "artefact",
        lambda s: s.high("sharpness"),
        "the image has pixels sharper than any source: a cosmic ray or an artefact",
    ),
    (
        "artefact",
        lambda s: s.high("opposite"),
        "there is bright light at opposite sides of the image: a trail, or two neighbours",
    ),
    (
        "saturated",
        lambda s: s.high("plateau"),
        "{plateau:.0f} pixels have the highest value: the image may be saturated",
    ),
    (
        "masked",
        lambda s: s.masked,
        "{masked:.0%} of the pixels of a band are bad, {masked_core:.0%} of those in the middle",
    ),
    (
        "misregistered",
        lambda s: s.high("misregistration"),
        "the bands are displaced by {misregistration:.1f} pixels from one another",
    ),
    (
        "neighbour",
        lambda s: s.high("neighbour") | s.high("edge"),
        "other light in the image is {neighbour_ratio:.2g} times as bright as its middle",
    ),
    (
        "off centre",
        lambda s: s.high("offset"),
        "the light is centred {offset:.1f} pixels from the middle of the image",
    ),
    (
        "background",
        lambda s: s.outside("background"),
        "the rim of the image is at {background:.2g} times the noise: check the sky subtraction",
    ),
    (
        "noise",
        lambda s: s.outside("noise"),
        "the noise of the image is {noise_ratio:.2g} times what its uncertainty says",
    ),
    (
        "size",
        lambda s: s.outside("size") & ~s.star,
        "the size of the galaxy is outside of the range of training",
    ),
    (
        "signal",
        lambda s: s.low("signal"),
        "the signal-to-noise ratio of the image, {signal_ratio:.0f}, is below that of training",
    ),
)


def _check_images(
    found: dict[str, list[str]], statistics: Mapping[str, Any], seen: Observations
) -> None:
    cutouts = seen.cutouts
    measures = image_statistics(cutouts.flux, cutouts.ivar)
    stamps = _Stamps(measures, statistics["image"], np.any(cutouts.bands_present, axis=1))
    said = dict(measures)
    for name in ("neighbour", "noise", "signal"):
        said[f"{name}_ratio"] = 10 ** measures[name]

    def sentence(template: str):
        return lambda k: template.format(**{name: values[k] for name, values in said.items()})

    for kind, which, template in _IMAGE_CHECKS:
        _note_novelty(found, kind, which(stamps), sentence(template))
    observed, errors = aperture_magnitudes(cutouts.flux, cutouts.ivar)
    unusual = _unusual(statistics["image_colours"], observed - seen.photometry.extinction, errors)
    _note_novelty(
        found,
        "image colour",
        stamps.detected & unusual,
        lambda k: "no galaxy of the training has such colours in the middle of its image",
    )


def _check_photometry(
    found: dict[str, list[str]], statistics: Mapping[str, Any], photometry: PhotometryBatch
) -> None:
    magnitudes, errors = magnitudes_and_errors(photometry)
    unusual = _unusual(statistics["colours"], magnitudes, errors)
    signal = _signal(photometry)
    present = photometry.bands_present.any(axis=1)
    with np.errstate(invalid="ignore"):
        faint = present & (np.log10(np.maximum(signal, 1.0)) < statistics["least_signal"])
    stellar = near_stellar_locus(magnitudes)
    _note_novelty(
        found,
        "colours",
        unusual & ~faint,
        lambda k: (
            "no galaxy of the training has such magnitudes and colours"
            + (" (they are those of a star)" if stellar[k] else "")
        ),
    )
    _note_novelty(
        found,
        "signal",
        faint,
        lambda k: (
            f"the signal-to-noise ratio of the photometry, {signal[k]:.1f}, is below that of training"
        ),
    )


def _note_novelty(found: dict[str, list[str]], kind: str, chosen: np.ndarray, words: Any) -> None:
    sentences = found[kind]
    for k in np.flatnonzero(chosen):
        sentences[k] = f"{sentences[k]}; {words(k)}" if sentences[k] else words(k)


def magnitudes_and_errors(photometry: PhotometryBatch) -> tuple[np.ndarray, np.ndarray]:
    """Give magnitudes without Galactic extinction, of fluxes that exceed twice their error.

    Parameters
    ----------
    photometry : PhotometryBatch
        n galaxies.

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


def _signal(photometry: PhotometryBatch) -> np.ndarray:
    """Give the highest signal-to-noise ratio of a band."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num(photometry.flux / photometry.error, posinf=0.0)
    return np.maximum(ratio.max(axis=1), 0.0)
