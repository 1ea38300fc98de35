"""``astrogenspec spectrum``: draw spectra of galaxies in files, one batch of galaxies at a time."""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..atomic import save_figure
from ..inputs.errors import INPUT_ERRORS, check_count
from ..warnings import AstroGenSpecWarning
from ..wavelengths import GENERATED
from .inputs import (
    FLAGGED,
    Galaxies,
    check_output,
    figure_path,
    printable,
    read_inputs,
    with_file_name,
)
from .report import check_page, write_page

if TYPE_CHECKING:
    from ..generation.estimator import SpectrumEstimator
    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws

__all__ = ["spectrum"]

#: Maximum number of spectra in a batch, and of one galaxy: the spectra of a galaxy are drawn
#: together, using about 3 MB each.
_MAX_SPECTRA = 1024
#: Maximum number of galaxies in a batch.
_MAX_GALAXIES = 64
#: Maximum number of galaxies in the printed summary.
_MAX_ROWS = 20


def spectrum(options: argparse.Namespace) -> int:
    """Draw spectra of galaxies in files and write them to a FITS file.

    Parameters
    ----------
    options : `argparse.Namespace`
        Namespace parsed by `astrogenspec.cli.commands.make_parser`.

    Returns
    -------
    int
        Exit status: 0, or 3 if a galaxy is flagged.

    Raises
    ------
    ValueError, TypeError, OSError, astropy.units.UnitsError
        If an input cannot be read or the output cannot be written.
    """
    from ..results.spectra import SpectrumDraws
    from ..results.spectra_io import SpectrumWriter

    _check_options(options)
    writer = SpectrumWriter(options.output, overwrite=options.overwrite)
    galaxies = read_inputs(options)
    galaxies.check_photometry(options.ebv, options.on_error)
    _check_space(options.output, len(galaxies), options.draws)
    check_page(options, len(galaxies))

    from ..generation.estimator import SpectrumEstimator

    estimator = SpectrumEstimator.from_pretrained(options.model, device=options.device)
    summary = _Summary()
    posterior = _posterior(options, galaxies)
    with _files_named(galaxies), writer:
        for block in _spectra(estimator, options, galaxies, posterior):
            writer.append(block)
            summary.add(block)
    if options.plot is not None:
        _plot(options.output, options.plot, summary.names, _block_size(options.draws))
    if options.report is not None:
        write_page(options, posterior, galaxies, spectra=SpectrumDraws.read(options.output))
    if not options.quiet:
        print(summary.text(options.output, options.draws))
    return FLAGGED if any(summary.flags) and not options.flagged_ok else 0


def _check_options(options: argparse.Namespace) -> None:
    """Raise before the inference if options are inconsistent or the output is not writable."""
    n_draws = check_count(options.draws, "--draws")
    if n_draws > _MAX_SPECTRA:
        raise ValueError(
            f"--draws is {n_draws}, but at most {_MAX_SPECTRA} are allowed: all spectra of a "
            "galaxy are drawn together."
        )
    read = (*options.input, options.photometry, options.posterior)
    check_output(options.output, options.overwrite, read)
    options.output = options.output.expanduser()
    if options.posterior is not None and options.properties_model is not None:
        raise ValueError(
            "--properties-model cannot be combined with --posterior, which replaces the "
            "inference; omit one of them."
        )
    if options.plot is not None:
        if options.plot.exists() and not options.plot.is_dir():
            raise NotADirectoryError(
                f"--plot is {options.plot}, which is a file; a folder is expected."
            )
        # A missing matplotlib must be reported before the inference.
        import matplotlib as mpl

        mpl.use("Agg")


def _check_space(path: Path, n_galaxies: int, n_draws: int) -> None:
    """Raise before the inference if there is not enough disk space."""
    needed = 4 * n_galaxies * n_draws * GENERATED.size
    free = shutil.disk_usage(path.expanduser().parent).free
    if needed > free:
        raise OSError(
            f"{n_galaxies} galaxies with {n_draws} spectra require {needed / 1e9:.3g} GB, but only "
            f"{free / 1e9:.3g} GB are free for {path}; choose another folder or fewer --draws."
        )


def _block_size(n_draws: int) -> int:
    return max(1, min(_MAX_GALAXIES, _MAX_SPECTRA // n_draws))


def _posterior(options: argparse.Namespace, galaxies: Galaxies) -> Posterior:
    """Infer or read the posterior, with one draw for each candidate spectrum."""
    n_draws = 2 * options.draws if options.select == "best" else options.draws
    if options.posterior is not None:
        return _trimmed(_read_posterior(options.posterior, galaxies), n_draws, options.posterior)
    from ..inference.estimator import PropertyEstimator

    estimator = PropertyEstimator.from_pretrained(options.properties_model, device=options.device)
    with _files_named(galaxies):
        return estimator.predict(
            galaxies.images,
            **galaxies.photometry_arguments(options.ebv, options.on_error),
            n_draws=n_draws,
            seed=options.seed,
            on_error=options.on_error,
            progress=_progress(options, galaxies),
        )


def _read_posterior(path: Path, galaxies: Galaxies) -> Posterior:
    """Read a posterior and match its galaxies by name, or by order if one side has no names."""
    from ..results.matching import GalaxyMatcher
    from ..results.posterior import Posterior

    try:
        posterior = Posterior.read(path)
    except ValueError as error:
        sentence = str(error).rstrip(".")
        raise ValueError(f"{sentence} (`astrogenspec infer --save-draws` makes one).") from error
    if "redshift" not in posterior.quantities:
        raise ValueError(
            f"{path} has no redshift; a posterior written by `astrogenspec infer --save-draws` "
            "is expected."
        )
    wanted, named = galaxies.names()
    matcher = GalaxyMatcher(posterior, str(path))
    if named.any() and named.tolist() == posterior.named.tolist() and wanted == posterior.names:
        return posterior
    rows = matcher.match(wanted, named)
    if matcher.by_order and len(posterior) != len(wanted):
        raise ValueError(
            f"{path} has {len(posterior)} galaxies, but the input has {len(wanted)}, and there are "
            "no names to match them; give a posterior of the same galaxies in the same order."
        )
    return posterior[rows]


def _trimmed(posterior: Posterior, n_draws: int, path: Path) -> Posterior:
    """Keep only the draws that are used, to save memory."""
    if posterior.n_draws < n_draws:
        warnings.warn(
            f"{path} has {posterior.n_draws} draws for each galaxy, fewer than the {n_draws} "
            "spectra; draws are used repeatedly",
            AstroGenSpecWarning,
            stacklevel=2,
        )
    if posterior.n_draws <= n_draws:
        return posterior
    return type(posterior)(
        {name: values[:, :n_draws] for name, values in posterior.draws.items()},
        names=posterior.names,
        flags=posterior.flags,
        flag_codes=posterior.flag_codes,
        photometry=posterior.photometry,
        meta=posterior.meta,
        named=posterior.named,
    )


def _spectra(
    estimator: SpectrumEstimator,
    options: argparse.Namespace,
    galaxies: Galaxies,
    posterior: Posterior,
) -> Iterator[SpectrumDraws]:
    """Draw spectra batch by batch, and add the flags of the posterior."""
    from ..generation.estimator import SpectrumOptions

    blocks = estimator.predict_iter(
        galaxies.images,
        posterior=posterior,
        n_draws=options.draws,
        aperture=options.aperture,
        options=SpectrumOptions(
            select=options.select,
            psf_fwhm=None if options.psf_fwhm is None else options.psf_fwhm * u.arcsec,
        ),
        **galaxies.photometry_arguments(options.ebv, options.on_error),
        seed=options.seed,
        on_error=options.on_error,
        batch_size=_block_size(options.draws),
        progress=_progress(options, galaxies),
    )
    start = 0
    for block in blocks:
        rows = slice(start, start + len(block))
        of_posterior = posterior.flags[rows]
        codes = block.flag_codes | posterior.flag_codes[rows]
        names, named = list(block.names), block.named
        flags = [_joined(*pair) for pair in zip(block.flags, of_posterior, strict=True)]
        if galaxies.images is not None:
            names, flags, codes, named = galaxies.images.with_reasons(
                names, flags, codes, named, start
            )
        start += len(block)
        yield _renamed(block, names, flags, codes, named)


def _joined(flag: str, of_posterior: str) -> str:
    """Append the reasons of the posterior that the flag of the spectrum lacks."""
    known = flag.split("; ")
    more = [part for part in of_posterior.split("; ") if part not in known]
    return "; ".join(filter(None, (flag, f"posterior: {'; '.join(more)}" if any(more) else "")))


def _renamed(
    block: SpectrumDraws,
    names: Sequence[str],
    flags: Sequence[str],
    codes: np.ndarray,
    named: np.ndarray,
) -> SpectrumDraws:
    same_names = tuple(names) == block.names and tuple(flags) == block.flags
    if same_names and np.array_equal(codes, block.flag_codes):
        return block
    return type(block)(
        block.flux,
        block.wavelength,
        block.redshift,
        weights=block.weights,
        names=names,
        flags=flags,
        flag_codes=codes,
        photometric_residual=block.photometric_residual,
        line_flux=block.line_flux,
        trusted=block.trusted,
        posterior_draw=block.posterior_draw,
        meta=block.meta,
        named=named,
    )


@contextmanager
def _files_named(galaxies: Galaxies) -> Iterator[None]:
    try:
        yield
    except INPUT_ERRORS as error:
        raise with_file_name(error, galaxies.files) from error


def _progress(options: argparse.Namespace, galaxies: Galaxies) -> bool:
    return not options.quiet and len(galaxies) > 1 and sys.stderr.isatty()


class _Summary:
    """Summary statistics of the galaxies, collected batch by batch."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.flags: list[str] = []
        self._redshift: list[np.ndarray] = []
        self._residual: list[np.ndarray] = []

    def add(self, block: SpectrumDraws) -> None:
        self.names += block.names
        self.flags += block.flags
        self._redshift.append(_percentiles(block.redshift, block.weights, [16, 50, 84]))
        if block.photometric_residual is None:
            self._residual.append(np.full(len(block), np.nan))
            return
        residual = np.abs(block.photometric_residual.value)
        weights = np.repeat(block.weights, residual.shape[2], axis=1)
        self._residual.append(_percentiles(residual.reshape(len(block), -1), weights, [50])[0])

    def text(self, path: Path, n_draws: int) -> str:
        redshift, residual = np.hstack(self._redshift), np.concatenate(self._residual)
        n, flagged = len(self.names), [k for k, flag in enumerate(self.flags) if flag]
        lines = []
        if n <= _MAX_ROWS:
            columns: dict[str, Any] = {"name": [printable(name) for name in self.names]}
            columns["redshift"] = [
                f"{m:.4f} -{m - a:.4f} +{b - m:.4f}" if np.isfinite(m) else "-"
                for a, m, b in redshift.T
            ]
            columns["residual [mag]"] = [f"{r:.3f}" if np.isfinite(r) else "-" for r in residual]
            lines = QTable(columns).pformat(-1, -1)
            lines += [printable(f"{self.names[k]}: {self.flags[k]}") for k in flagged]
        counted = f"{n} {'galaxy' if n == 1 else 'galaxies'}, {_spectra_of_each(n, n_draws)}"
        if flagged:
            counted += f", {len(flagged)} flagged"
        if np.isfinite(residual).any():
            counted += f", median absolute photometric residual {np.nanmedian(residual):.3f} mag"
        return "\n".join([*lines, f"{counted}: {path}"])


def _spectra_of_each(n: int, n_draws: int) -> str:
    return f"{n_draws} {'spectrum' if n_draws == 1 else 'spectra'}{'' if n == 1 else ' each'}"


def _percentiles(values: np.ndarray, weights: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Return weighted percentiles of each row, shape (n_percentiles, n)."""
    from ..results.statistics import weighted_percentiles

    return weighted_percentiles(values[..., None], weights, np.array(wanted))[..., 0]


def _plot(path: Path, folder: Path, names: Sequence[str], size: int) -> None:
    """Write a figure of each galaxy with spectra, reading one batch at a time."""
    from matplotlib import pyplot as plt

    from ..results.spectra import SpectrumDraws

    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(names), size):
        spectra = SpectrumDraws.read(path, slice(start, start + size))
        for k in np.flatnonzero(spectra.usable):
            figure: Any = spectra.plot(int(k)).figure
            save_figure(figure, figure_path(folder, names, start + int(k)), dpi=150)
            plt.close(figure)
