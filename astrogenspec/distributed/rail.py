"""Stages for RAIL, the photometric redshift pipelines of the Rubin Observatory.

`AstroGenSpecInformer` fine-tunes weights on galaxies with redshifts, and `AstroGenSpecEstimator`
estimates distributions of redshifts. RAIL finds them as ``rail.estimation.algos.astrogenspec``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..inference.estimator import PropertyEstimator
from ..results.posterior import Posterior
from ..results.qp_ensembles import grid_densities

try:
    import qp
    from ceci.config import StageParameter
    from rail.core.common_params import SharedParams
    from rail.core.enums import DistributionType
    from rail.estimation.estimator import CatEstimator
    from rail.estimation.informer import CatInformer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "astrogenspec.distributed.rail needs the package RAIL, which is not installed; install it "
        "with 'pip install astrogenspec[rail]'.",
        name=error.name,
    ) from error

__all__ = ["AstroGenSpecEstimator", "AstroGenSpecInformer", "AstroGenSpecModel"]

#: Module by which pipelines import the stages in their processes.
_MODULE = "rail.estimation.algos.astrogenspec"

#: AB magnitude of one nanomaggy.
_ZERO_POINT = 22.5
_PARAMETRISATIONS = ("interp", "quantiles", "histogram")
#: Cumulative probabilities of the quantiles of the estimator: 1% to 99%, and the ends.
_QUANTILES = np.concatenate([[0.001], np.arange(1, 100) / 100, [0.999]])
_PHOTOMETRY = {
    "bands": SharedParams.copy_param("bands"),
    "err_bands": SharedParams.copy_param("err_bands"),
    "survey": StageParameter(str, "lsst", msg="survey whose filters the bands are"),
    "filters": StageParameter(
        list, list("ugrizy"), msg="names that the survey has for the bands, in the same order"
    ),
    "nondetect_val": SharedParams.copy_param("nondetect_val"),
    "nonobserved_val": SharedParams.copy_param("nonobserved_val"),
    "mag_limits": SharedParams.copy_param("mag_limits"),
    "ebv": StageParameter(float, 0.0, msg="Galactic E(B-V) of all galaxies (0: dereddened)"),
    "ebv_col": StageParameter(str, "", msg="column of the Galactic E(B-V), instead of ebv"),
    "seed": StageParameter(int, 1, msg="seed of the random numbers"),
    "device": StageParameter(str, "cpu", msg="device of the network: cpu or cuda"),
}


@dataclass(frozen=True)
class AstroGenSpecModel:
    """Weights as one object that RAIL can pickle.

    Attributes
    ----------
    weights : bytes
        Contents of the ``.safetensors`` file.
    card : dict
        The card.
    fine_tuned : bool
        Whether the weights were fine-tuned on galaxies of the survey.
    """

    weights: bytes
    card: dict[str, Any]
    fine_tuned: bool = False

    @classmethod
    def of(cls, estimator: PropertyEstimator, *, fine_tuned: bool = False) -> AstroGenSpecModel:
        """Return the weights of an estimator.

        Parameters
        ----------
        estimator : PropertyEstimator
            Estimator with trained weights.
        fine_tuned : bool
            Whether they were fine-tuned on galaxies of the survey.

        Returns
        -------
        AstroGenSpecModel
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(estimator.save(Path(folder) / "model.safetensors"))
            card = json.loads(path.with_suffix(".json").read_text())
            return cls(path.read_bytes(), card, fine_tuned)

    def estimator(self, device: str = "cpu") -> PropertyEstimator:
        """Return an estimator with these weights.

        Parameters
        ----------
        device : str
            Device of the network.

        Returns
        -------
        PropertyEstimator
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(self.weights)
            path.with_suffix(".json").write_text(json.dumps(self.card))
            return PropertyEstimator.load(path, device=device)


class AstroGenSpecInformer(CatInformer):
    """Fine-tune weights on galaxies with redshifts.

    Galaxies without a redshift, or with one beyond the bounds of the weights, are left out; their
    number is logged. With ``epochs: 0`` the weights are passed on as they are.
    """

    name = "AstroGenSpecInformer"
    entrypoint_function = "inform"
    interactive_function = "astrogenspec_informer"
    config_options = CatInformer.config_options.copy()
    config_options.update(
        **_PHOTOMETRY,
        redshift_col=SharedParams.copy_param("redshift_col"),
        weights=StageParameter(
            str, "astrogenspec-properties-deep", msg="registered weights, or a .safetensors file"
        ),
        epochs=StageParameter(int, 50, msg="maximum number of epochs; 0: do not fine-tune"),
        heads=StageParameter(int, 0, msg="number of heads; 0: as many as the weights have"),
    )

    @classmethod
    def get_module(cls) -> str:
        """Return the module by which pipelines import the stage."""
        return _MODULE

    def run(self) -> None:
        """Fine-tune the weights, and store them as the model."""
        estimator = PropertyEstimator.from_pretrained(
            self.config.weights, device=self.config.device
        )
        if self.config.epochs > 0:
            data = self.get_data("input")
            if self.config.hdf5_groupname:
                data = data[self.config.hdf5_groupname]
            data = self._convert_table_format(data)
            redshift = np.asarray(data[self.config.redshift_col], dtype=float)
            bounds = estimator.network.quantities["redshift"]
            used = (redshift > bounds.lower) & (redshift < bounds.upper)
            if not used.all():
                self.log.warning(
                    f"{np.count_nonzero(~used)} of {len(used)} galaxies have no redshift between "
                    f"{bounds.lower} and {bounds.upper} (the bounds of the weights): left out"
                )
            estimator = estimator.fit(
                photometry=_photometry(data, self.config)[used],
                labels=QTable({"redshift": redshift[used] * u.one}),
                epochs=self.config.epochs,
                heads=self.config.heads or None,
                survey=self.config.survey,
                seed=self.config.seed,
                on_error="flag",
                progress=False,
            )
        self.model = AstroGenSpecModel.of(estimator, fine_tuned=self.config.epochs > 0)
        self.add_data("model", self.model)

    def validate(self) -> None:
        """Check that the columns are there."""
        self._get_stage_columns()
        if self.config.epochs > 0:
            data = self.get_handle("input", allow_missing=True)
            self._check_column_names(data, self.stage_columns)

    def _get_stage_columns(self) -> None:
        self.stage_columns = [*_column_names(self.config), self.config.redshift_col]


class AstroGenSpecEstimator(CatEstimator):
    """Estimate the distribution of the redshift of each galaxy, and other properties.

    The ancillary data are point estimates from the draws, ``zmean``, ``zmedian`` and ``zmode`` as
    RAIL names them and ``astrogenspec_z_mean`` and so on as Rubin's catalogues do; ``z_std``;
    ``usable``, whether there is a posterior; ``flags``, see `~astrogenspec.decode_flags`;
    ``outside``, the fraction of the draws beyond ``zmin`` and ``zmax``; and ``fine_tuned``, whether
    the weights were fine-tuned by the informer: if not, the distributions are not calibrated for
    the survey, and a warning is logged. A galaxy that is not usable has a uniform distribution and
    NaN as point estimates.

    The draws are keyed by the seed and the identifier (``id_col``), or the row: the result does not
    depend on ``chunk_size`` or on the number of processes.
    """

    name = "AstroGenSpecEstimator"
    entrypoint_function = "estimate"
    interactive_function = "astrogenspec_estimator"
    config_options = CatEstimator.config_options.copy()
    config_options.update(
        **_PHOTOMETRY,
        n_draws=StageParameter(int, 1000, msg="number of draws of each galaxy"),
        parametrisation=StageParameter(
            str, "interp", msg="interp (on the grid), quantiles, or histogram (around its points)"
        ),
        quantities=StageParameter(
            list, [], msg="further quantities, such as stellar_mass: columns <quantity>_median etc."
        ),
    )

    def __init__(self, args: Any, **kwargs: Any) -> None:
        super().__init__(args, **kwargs)
        if self.config.parametrisation not in _PARAMETRISATIONS:
            raise ValueError(
                f"parametrisation is {self.config.parametrisation!r}; it must be one of "
                f"{', '.join(_PARAMETRISATIONS)}."
            )
        self._estimator: PropertyEstimator | None = None
        self._fine_tuned = False

    @classmethod
    def get_module(cls) -> str:
        """Return the module by which pipelines import the stage."""
        return _MODULE

    def open_model(self, **kwargs: Any) -> Any:
        """Read the model, and make the estimator."""
        model = super().open_model(**kwargs)
        if model is not None:
            self._estimator = model.estimator(self.config.device)
            self._fine_tuned = model.fine_tuned
            if not model.fine_tuned:
                self.log.warning(
                    "the weights were not fine-tuned on galaxies of this survey (epochs is 0): the "
                    "distributions are not calibrated for it"
                )
        return model

    def validate(self) -> None:
        """Check that the columns are there."""
        self._get_stage_columns()
        data = self.get_handle("input", allow_missing=True)
        self._check_column_names(data, self.stage_columns)

    def _get_stage_columns(self) -> None:
        self.stage_columns = _column_names(self.config)

    @classmethod
    def default_distribution_type(cls) -> DistributionType:
        """Return the type of the distributions: posteriors."""
        return DistributionType.posterior

    def _process_chunk(self, start: int, end: int, data: Any, first: bool) -> None:
        data = self._convert_table_format(data)
        ids = data[self.config.id_col] if self.config.id_col in data else np.arange(start, end)
        if self._estimator is None:
            raise ValueError("there is no model: give the one of AstroGenSpecInformer.")
        batches = self._estimator.predict_iter(
            photometry=_photometry(data, self.config),
            survey=self.config.survey,
            n_draws=self.config.n_draws,
            seed=self.config.seed,
            ids=np.asarray(ids),
            on_error="flag",
            progress=False,
        )
        grid = np.linspace(self.config.zmin, self.config.zmax, self.config.nzbins)
        names, kind = tuple(self.config.quantities), self.config.parametrisation
        parts = [_summaries(posterior, grid, kind, names) for posterior in batches]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        columns["fine_tuned"] = np.full(end - start, self._fine_tuned)
        self._do_chunk_output(_ensemble(columns, grid, kind), start, end, first, data=data)

    def _calculate_summary_stats(self, qp_dstn: Any) -> Any:
        """Return the ensemble as it is: its statistics are those of the draws."""
        return qp_dstn


def _column_names(config: Any) -> list[str]:
    """Return the names of the columns of photometry."""
    return [*config.bands, *config.err_bands, *([config.ebv_col] if config.ebv_col else [])]


def _photometry(data: Mapping[str, Any], config: Any) -> QTable:
    """Convert the magnitudes of RAIL to fluxes.

    A band without a detection has a flux of zero with the error of the limiting magnitude of one
    standard deviation (``mag_limits``), as in BPZ; one that was not observed has none.
    """
    if not len(config.bands) == len(config.err_bands) == len(config.filters):
        raise ValueError(
            f"there are {len(config.bands)} bands, {len(config.err_bands)} err_bands and "
            f"{len(config.filters)} filters; give as many of each."
        )
    table = QTable()
    for band, error_band, name in zip(config.bands, config.err_bands, config.filters, strict=True):
        magnitude = np.array(data[band], dtype=float)
        error = np.array(data[error_band], dtype=float)
        undetected = _equal(magnitude, config.nondetect_val)
        magnitude[_equal(magnitude, config.nonobserved_val)] = np.nan
        flux = 10 ** (-0.4 * (magnitude - _ZERO_POINT))
        flux_error = flux * error * np.log(10) / 2.5
        limit = config.mag_limits.get(band, np.nan)
        flux[undetected] = 0.0 if np.isfinite(limit) else np.nan
        flux_error[undetected] = 10 ** (-0.4 * (limit - _ZERO_POINT))
        table[f"flux_{name}"], table[f"flux_err_{name}"] = flux * u.nmgy, flux_error * u.nmgy
    ebv = np.asarray(data[config.ebv_col], float) if config.ebv_col else config.ebv
    table["ebv"] = np.full(len(table), ebv) * u.mag
    return table


def _equal(values: np.ndarray, guard: float) -> np.ndarray:
    """Return which values are a guard value, which may be NaN."""
    return np.isnan(values) if np.isnan(guard) else np.isclose(values, guard)


def _summaries(
    posterior: Posterior, grid: np.ndarray, kind: str, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Return the distributions and ancillary columns of a batch."""
    redshift = posterior["redshift"]
    points = {name: getattr(redshift, name)().value for name in ("mean", "median", "mode", "std")}
    columns = {f"z{name}": points[name] for name in ("mean", "median", "mode")}
    columns |= {f"astrogenspec_z_{name}": values for name, values in points.items()}
    columns["z_std"] = points["std"]
    for name in names:
        low, middle, high = posterior[name].percentiles([16, 50, 84]).value
        columns |= {f"{name}_median": middle, f"{name}_p16": low, f"{name}_p84": high}
    edges = _edges(grid) if kind == "histogram" else grid
    density, outside = grid_densities(redshift.draws.value, edges, smooth=kind != "histogram")
    usable = posterior.usable & (outside < 1)
    if kind == "quantiles":
        values = redshift.percentiles(100 * _QUANTILES).value.T.astype(float)
        values[~usable] = grid[0] + _QUANTILES * (grid[-1] - grid[0])
        # Equal draws are separated by a rounding error, since quantiles must increase.
        columns["distribution"] = values + 1e-9 * np.arange(len(_QUANTILES))
    else:
        density[~usable] = 1 / (grid[-1] - grid[0])
        columns["distribution"] = density
    columns |= {"usable": usable, "outside": np.nan_to_num(outside, nan=1.0)}
    columns["flags"] = posterior.flag_codes.astype(np.int64)
    return columns


def _edges(grid: np.ndarray) -> np.ndarray:
    """Return the edges of bins around the points of a grid."""
    half = (grid[1] - grid[0]) / 2
    return np.append(grid - half, grid[-1] + half)


def _ensemble(columns: dict[str, np.ndarray], grid: np.ndarray, kind: str) -> Any:
    values = columns.pop("distribution")
    if kind == "quantiles":
        ensemble = qp.Ensemble(qp.quant, data={"quants": _QUANTILES, "locs": values})
    elif kind == "histogram":
        ensemble = qp.Ensemble(qp.hist, data={"bins": _edges(grid), "pdfs": values})
    else:
        ensemble = qp.Ensemble(qp.interp, data={"xvals": grid, "yvals": values})
    ensemble.set_ancil(columns)
    return ensemble
