"""Inference for visitors: results are kept in memory, the latest ones only."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..quantities import QUANTITIES
from ..view.page import galaxies_content, results_page
from ..view.pictures import reconstruction_strip
from ..warnings import AstroGenSpecWarning, filtered_warnings

if TYPE_CHECKING:
    from astropy.table import QTable

    from ..cli.inputs import Galaxies
    from ..generation.estimator import SpectrumEstimator
    from ..inference.estimator import PropertyEstimator
    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws

__all__ = ["DOWNLOADS", "Analyst", "UnknownResultError"]

#: Types of the files that a visitor can download, by name.
DOWNLOADS = {
    "galaxies.csv": "text/csv",
    "posterior.fits": "application/fits",
    "spectra.fits": "application/fits",
    "galaxies.html": "text/html",
}
_SEED = 1
#: Maximum number of galaxies whose images are also reconstructed by the network.
_MAX_RECONSTRUCTED = 50
#: Quantities that can be fixed, and whose effect on the image can be shown.
_SLIDERS = ("redshift", "stellar_mass", "sfr", "gas_metallicity", "black_hole_mass")
_STEPS = 9


class UnknownResultError(LookupError):
    """A result is not, or not any more, in memory."""


@dataclass
class _Result:
    """What was given, and its posterior."""

    images: list[Any] | None
    photometry: QTable | None
    options: dict[str, Any]
    posterior: Posterior
    reconstructions: Any = None
    spectra: dict[int, SpectrumDraws] = field(default_factory=dict)

    def inputs(self, row: int) -> dict[str, Any]:
        """Return the arguments of an estimator for one galaxy."""
        one = slice(row, row + 1)
        return {
            "cutouts": None if self.images is None else self.images[one],
            "photometry": None if self.photometry is None else self.photometry[one],
            **self.options,
        }


class Analyst:
    """Infer galaxies, and answer questions about the latest results.

    Parameters
    ----------
    model, spectrum_model : str, optional
        Names of the weights; the default ones of the package.
    n_draws : int
        Number of draws of a posterior.
    n_spectra : int
        Number of draws of a spectrum.
    max_results : int
        Number of results that are kept; older ones are forgotten.
    """

    def __init__(
        self,
        model: str | None = None,
        spectrum_model: str | None = None,
        *,
        n_draws: int = 1000,
        n_spectra: int = 4,
        max_results: int = 32,
    ) -> None:
        from ..inference.estimator import PropertyEstimator

        arguments = () if model is None else (model,)
        self.estimator: PropertyEstimator = PropertyEstimator.from_pretrained(*arguments)
        self._spectrum_model = spectrum_model
        self._n_draws, self._n_spectra = n_draws, n_spectra
        self._max_results = max_results
        self._results: OrderedDict[str, _Result] = OrderedDict()

    @cached_property
    def _spectrum_estimator(self) -> SpectrumEstimator:
        from ..generation.estimator import SpectrumEstimator

        arguments = () if self._spectrum_model is None else (self._spectrum_model,)
        return SpectrumEstimator.from_pretrained(*arguments)

    def infer(self, galaxies: Galaxies, *, ebv: float | None = None) -> dict[str, Any]:
        """Infer galaxies.

        Parameters
        ----------
        galaxies : Galaxies
            Images in memory and photometry.
        ebv : float, optional
            Galactic E(B-V) of all, if the photometry has none.

        Returns
        -------
        dict
            ``result`` (identifier), ``notes`` (warnings), ``content`` (as
            `astrogenspec.view.page.galaxies_content`) and ``sliders``.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If the input cannot be used.
        """
        images = None if galaxies.images is None else list(galaxies.images)
        options: dict[str, Any] = {"survey": galaxies.surveys, "ebv": ebv}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AstroGenSpecWarning)
            posterior = self.estimator.predict(
                images,
                galaxies.photometry,
                n_draws=self._n_draws,
                seed=_SEED,
                on_error="raise" if len(galaxies) == 1 else "flag",
                progress=False,
                **options,
            )
        notes = [str(w.message) for w in caught if issubclass(w.category, AstroGenSpecWarning)]
        result = _Result(images, galaxies.photometry, options, posterior)
        if images is not None and len(images) <= _MAX_RECONSTRUCTED:
            with filtered_warnings("ignore", AstroGenSpecWarning):
                result.reconstructions = self.estimator.reconstruct(
                    images, ebv=ebv or 0.0, on_error="flag"
                )
        token = self._keep(result)
        return {
            "result": token,
            "notes": list(dict.fromkeys(notes)),
            "content": galaxies_content(
                posterior, cutouts=images, reconstructions=result.reconstructions
            ),
            "sliders": self._sliders(posterior),
            "images": [image is not None for image in images or []],
        }

    def what_if(self, token: str, row: int, known: Mapping[str, float]) -> dict[str, Any]:
        """Infer one galaxy again with some quantities fixed.

        Parameters
        ----------
        token : str
            Identifier of the result.
        row : int
            Number of the galaxy.
        known : mapping of str to float
            Fixed values: the first one or more quantities of the chain.

        Returns
        -------
        dict
            ``content`` for one galaxy.

        Raises
        ------
        UnknownResultError
            If the result is not in memory.
        ValueError, TypeError
            If a value cannot be used.
        """
        posterior = self._conditioned(token, row, known)
        return {"content": galaxies_content(posterior)}

    def spectrum(self, token: str, row: int, known: Mapping[str, float]) -> dict[str, Any]:
        """Generate spectra of one galaxy.

        Parameters
        ----------
        token, row, known
            As for `what_if`; nothing is fixed if ``known`` is empty.

        Returns
        -------
        dict
            ``content`` for one galaxy with ``spectra``.

        Raises
        ------
        UnknownResultError, ValueError, TypeError
            As for `what_if`.
        """
        result = self._result(token, row)
        posterior = self._conditioned(token, row, known)
        with filtered_warnings("ignore", AstroGenSpecWarning):
            spectra = self._spectrum_estimator.predict(
                posterior=posterior,
                n_draws=self._n_spectra,
                seed=_SEED,
                on_error="flag",
                progress=False,
                **result.inputs(row),
            )
        if not known:
            result.spectra[row] = spectra
        return {"content": galaxies_content(posterior, spectra=spectra)}

    def traverse(self, token: str, row: int, quantity: str) -> dict[str, Any]:
        """Decode the image of a galaxy for several values of one quantity.

        Parameters
        ----------
        token : str
            Identifier of the result.
        row : int
            Number of the galaxy.
        quantity : str
            Name of the quantity.

        Returns
        -------
        dict
            ``values`` and ``pictures``.

        Raises
        ------
        UnknownResultError
            If the result is not in memory.
        ValueError
            If the galaxy has no image, or the quantity is unknown.
        """
        result = self._result(token, row)
        if result.images is None or result.images[row] is None:
            raise ValueError("the galaxy has no image; images are decoded from one.")
        slider = next((s for s in self._sliders(result.posterior) if s["key"] == quantity), None)
        if slider is None:
            raise ValueError(f"quantity is {quantity!r}; it must be one of {', '.join(_SLIDERS)}.")
        values = np.linspace(slider["low"], slider["high"], _STEPS)
        inputs = result.inputs(row)
        if inputs["photometry"] is None and inputs["ebv"] is None:
            inputs["ebv"] = 0.0
        with filtered_warnings("ignore", AstroGenSpecWarning):
            images = self.estimator.traverse(
                inputs.pop("cutouts"), quantity, values * QUANTITIES[quantity].unit, **inputs
            )
        pictures = [picture.as_dict() for picture in reconstruction_strip(images.value)]
        return {"quantity": quantity, "values": values.tolist(), "pictures": pictures}

    def download(self, token: str, name: str) -> bytes:
        """Return a file with the result.

        Parameters
        ----------
        token : str
            Identifier of the result.
        name : str
            A key of `DOWNLOADS`.

        Returns
        -------
        bytes

        Raises
        ------
        UnknownResultError
            If the result is not in memory, or there is no such file.
        """
        result = self._result(token)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            if name == "galaxies.csv":
                return _csv(result.posterior)
            if name == "posterior.fits":
                result.posterior.write(path, draws=True)
            elif name == "spectra.fits" and result.spectra:
                _joined(result).write(path)
            elif name == "galaxies.html":
                results_page(
                    path,
                    result.posterior,
                    cutouts=result.images,
                    reconstructions=result.reconstructions,
                )
            else:
                raise UnknownResultError(f"the result has no file {name!r}.")
            return path.read_bytes()

    def _keep(self, result: _Result) -> str:
        token = secrets.token_urlsafe(16)
        self._results[token] = result
        while len(self._results) > self._max_results:
            self._results.popitem(last=False)
        return token

    def _result(self, token: str, row: int = 0) -> _Result:
        if token not in self._results:
            raise UnknownResultError("the result is not in memory any more; infer it again.")
        self._results.move_to_end(token)
        result = self._results[token]
        if not 0 <= row < len(result.posterior):
            raise UnknownResultError(f"there is no galaxy with the number {row}.")
        return result

    def _conditioned(self, token: str, row: int, known: Mapping[str, float]) -> Posterior:
        result = self._result(token, row)
        if not known:
            return result.posterior[row : row + 1]
        unknown = [name for name in known if name not in _SLIDERS]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} cannot be fixed; it must be one of {', '.join(_SLIDERS)}."
            )
        values = {name: [float(x)] * QUANTITIES[name].unit for name, x in known.items()}
        with filtered_warnings("ignore", AstroGenSpecWarning):
            return self.estimator.predict(
                known=values,
                n_draws=self._n_draws,
                seed=_SEED,
                on_error="flag",
                progress=False,
                **result.inputs(row),
            )

    @staticmethod
    def _sliders(posterior: Posterior) -> list[dict[str, Any]]:
        """Return the ranges of the sliders: the population of the training, and the draws."""
        made = []
        population = posterior.meta.get("population") or {}
        for name in _SLIDERS:
            if name not in posterior.draws:
                continue
            known = population.get(name, posterior.draws[name].value)
            low, high = np.nanquantile(np.asarray(known, float), [0.005, 0.995])
            info = QUANTITIES[name]
            low = max(low, info.lower + 1e-3)
            made.append({"key": name, "low": round(float(low), 3), "high": round(float(high), 3)})
        return made


def _joined(result: _Result) -> SpectrumDraws:
    spectra = [result.spectra[row] for row in sorted(result.spectra)]
    return spectra[0] if len(spectra) == 1 else type(spectra[0]).concatenate(spectra)


def _csv(posterior: Posterior) -> bytes:
    """Return the summary as CSV, with units in the names of the columns."""
    import io

    from astropy.table import Table

    table = posterior.to_table()
    plain = Table()
    for name in table.colnames:
        column = table[name]
        unit = getattr(column, "unit", None)
        plain[f"{name} [{unit}]" if unit is not None and str(unit) else name] = getattr(
            column, "value", column
        )
    stream = io.StringIO()
    plain.write(stream, format="ascii.csv")
    return stream.getvalue().encode()
