"""``astrogenspec spectrum``, end to end on files."""

import gc
import warnings
import weakref
from types import SimpleNamespace

import astropy.units as u
import estimator_cases
import generation_cases
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from estimator_cases import N, make_cutouts, make_photometry
from specutils import Spectrum

from astrogenspec import Posterior, SpectrumDraws, SpectrumWriter, coerce_photometry
from astrogenspec.cli import spectrum as cli_spectrum
from astrogenspec.cli.commands import main, make_parser
from astrogenspec.flags import Flag
from astrogenspec.generation.conditioning import APERTURES
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.generation.pipeline import SELECTIONS
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts

NAMES = tuple(f"g{k}" for k in range(N))
DRAWS = 2


def make_spectra_estimator():
    return SpectrumEstimator(generation_cases.make_network(), card={})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of both lanes, catalogue, posterior, and cutouts, one of which has no good pixel."""
    path = tmp_path_factory.mktemp("spectrum")
    make_spectra_estimator().save(path / "spectra.safetensors")
    estimator_cases.make_estimator().save(path / "properties.safetensors")
    make_photometry(name=NAMES).write(path / "galaxies.ecsv")
    make_photometry(2).write(path / "unnamed.ecsv")
    made_posterior().write(path / "posterior.fits", draws=True)
    batch = coerce_cutouts(make_cutouts(names=NAMES))
    for k in range(2):
        write_cutout_fits(path / f"cutout{k}.fits", batch, k)
    write_cutout_fits(path / "dark.fits", batch, 2)
    with fits.open(path / "dark.fits", mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.data[:] = np.nan
            hdu.header["NAME"] = "dark"
    (path / "text.fits").write_text("this is no image")
    return path


def made_posterior(n=N, n_draws=3, **kwargs):
    """Draw k of galaxy i has the redshift 0.05 + 0.02 i + 0.001 k."""
    redshift = 0.05 + 0.02 * np.arange(n)[:, None] + 0.001 * np.arange(n_draws)
    return Posterior({"redshift": redshift * u.one}, **({"names": NAMES[:n]} | kwargs))


@pytest.fixture
def spectrum(folder, tmp_path, capsys):
    """Run ``spectrum`` with files of the folder; return status, standard output and error."""

    def run(*arguments, output="out.fits", draws=DRAWS):
        paths = [str(folder / a) if (folder / a).exists() else a for a in arguments]
        models = ["--model", str(folder / "spectra.safetensors")]
        models *= "--model" not in paths
        if not {"--posterior", "--properties-model"} & set(paths):
            models += ["--properties-model", str(folder / "properties.safetensors")]
        target = ["-o", str(tmp_path / output), "--draws", str(draws)]
        status = main(["spectrum", *paths, *target, *models])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def assert_alike(one, other):
    """The same spectra, whatever blocks they were made in."""
    assert one.names == other.names and one.flags == other.flags
    # an untrained network is rough: rounding moves a spectrum by a thousandth of a pixel, across
    # jumps
    off = np.abs(one.flux - other.flux).max(axis=2) / one.flux.max(axis=2)
    assert (off < 2e-3).all()
    np.testing.assert_allclose(one.redshift, other.redshift, rtol=1e-5)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-3)


# ---- what is written


def test_catalogue_gives_spectra_of_its_posterior(spectrum, tmp_path):
    status, out, err = spectrum("galaxies.ecsv", "--seed", "1")
    assert (status, err) == (0, "")
    found = SpectrumDraws.read(tmp_path / "out.fits")
    photometry = make_photometry(name=NAMES)
    posterior = estimator_cases.make_estimator().predict(
        photometry=photometry, n_draws=DRAWS, seed=1
    )
    expected = make_spectra_estimator().predict(
        photometry=photometry, posterior=posterior, n_draws=DRAWS, seed=1
    )
    assert_alike(found, expected)
    np.testing.assert_allclose(found.redshift, posterior["redshift"].draws.value, rtol=1e-5)
    assert dict(found.meta) == dict(expected.meta) | {"version": "spectra.safetensors"}
    assert Spectrum.read(tmp_path / "out.fits").flux.shape == found.wavelength.shape
    lines = out.splitlines()
    assert len(lines) == N + 3 and lines[0].split() == ["name", "redshift", "residual", "[mag]"]
    middle = np.median(found.redshift[3])
    assert lines[5].split()[:2] == ["g3", f"{middle:.4f}"]
    residual = np.nanmedian(np.abs(found.photometric_residual.value[3]))
    assert float(lines[5].split()[-1]) == pytest.approx(residual, abs=6e-4)
    assert "5 galaxies, 2 spectra each, median absolute photometric residual 0." in lines[-1]
    assert lines[-1].endswith(f"mag: {tmp_path / 'out.fits'}")


def test_cutouts_are_used_for_posterior_and_spectra(spectrum, tmp_path):
    arguments = ("cutout0.fits", "cutout1.fits", "--ebv", "0.02", "--seed", "1", "-q")
    assert spectrum(*arguments) == (0, "", "")
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert found.names == ("g0", "g1")
    cutouts = make_cutouts(names=NAMES)[:2]
    posterior = estimator_cases.make_estimator().predict(cutouts, ebv=0.02, n_draws=DRAWS, seed=1)
    expected = make_spectra_estimator().predict(
        cutouts, posterior=posterior, ebv=0.02, n_draws=DRAWS, seed=1
    )
    assert_alike(found, expected)


def test_batch_size_does_not_change_spectra(spectrum, tmp_path, monkeypatch):
    assert spectrum("galaxies.ecsv", "--seed", "1", output="whole.fits")[0] == 0
    alive, sizes, held = weakref.WeakSet(), [], []
    append = SpectrumWriter.append

    def watched(self, block):
        gc.collect()
        alive.add(block)
        sizes.append(len(block))
        held.append(len(alive))
        append(self, block)

    monkeypatch.setattr(SpectrumWriter, "append", watched)
    monkeypatch.setattr(cli_spectrum, "_MAX_SPECTRA", 2 * DRAWS)
    assert spectrum("galaxies.ecsv", "--seed", "1", output="blocks.fits")[0] == 0
    assert sizes == [2, 2, 1] and max(held) <= 2
    assert_alike(*(SpectrumDraws.read(tmp_path / f"{name}.fits") for name in ("whole", "blocks")))


def test_select_best_draws_twice_as_many(spectrum, tmp_path):
    assert (
        spectrum("unnamed.ecsv", "--seed", "1", "--select", "best", "--aperture", "total")[0] == 0
    )
    found = SpectrumDraws.read(tmp_path / "out.fits")
    candidates = estimator_cases.make_estimator().predict(
        photometry=make_photometry(2), n_draws=2 * DRAWS, seed=1
    )
    redshift = candidates["redshift"].draws.value.astype(float)
    for k in range(2):
        distance = np.abs(found.redshift[k][:, None] - redshift[k]).min(axis=1)
        assert distance.max() < 1e-5
    assert found.n_draws == DRAWS and np.ptp(found.weights, axis=1).min() > 0
    assert (found.meta["aperture"], found.meta["select"]) == ("total", "best")


def test_same_seed_gives_same_file(spectrum, tmp_path):
    for name in ("a.fits", "b.fits"):
        assert spectrum("unnamed.ecsv", "--seed", "5", output=name)[0] == 0
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert spectrum("unnamed.ecsv", "--seed", "6", output="c.fits")[0] == 0
    assert (tmp_path / "a.fits").read_bytes() != (tmp_path / "c.fits").read_bytes()


# ---- a posterior that is given


def test_posterior_is_matched_by_name(spectrum, tmp_path):
    made_posterior()[::-1].write(tmp_path / "reversed.ecsv", draws=True)
    given = ("--posterior", str(tmp_path / "reversed.ecsv"))
    assert spectrum("cutout1.fits", "cutout0.fits", "--ebv", "0", *given)[0] == 0
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert found.names == ("g1", "g0")
    np.testing.assert_allclose(found.redshift, [[0.07, 0.071], [0.05, 0.051]], rtol=1e-5)
    assert spectrum("galaxies.ecsv", *given, "--overwrite")[0] == 0
    found = SpectrumDraws.read(tmp_path / "out.fits")
    np.testing.assert_allclose(found.redshift[:, 0], 0.05 + 0.02 * np.arange(N), rtol=1e-5)


def test_posterior_without_names_is_matched_by_order(spectrum, tmp_path):
    path = tmp_path / "unnamed.ecsv"
    made_posterior(2, names=None).write(path, draws=True)
    assert spectrum("cutout1.fits", "cutout0.fits", "--ebv", "0", "--posterior", str(path))[0] == 0
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert found.names == ("g1", "g0")
    np.testing.assert_allclose(found.redshift[:, 0], [0.05, 0.07], rtol=1e-5)
    status, _, err = spectrum("unnamed.ecsv", "--posterior", "posterior.fits", output="x.fits")
    assert status == 2 and "has 5 galaxies, but the input has 2, and there are no names" in err
    assert not (tmp_path / "x.fits").exists()


def test_posterior_with_few_draws_warns(spectrum, tmp_path):
    status, _, err = spectrum("galaxies.ecsv", "--posterior", "posterior.fits", draws=4)
    assert status == 0 and "has 3 draws for each galaxy, fewer than the 4 spectra" in err
    found = SpectrumDraws.read(tmp_path / "out.fits")
    np.testing.assert_array_equal(found.redshift[:, 3], found.redshift[:, 0])


def test_duplicate_names_are_refused(spectrum, tmp_path):
    twice = made_posterior(3, names=["g1", "g1", "g0"])
    twice.write(tmp_path / "twice.ecsv", draws=True)
    status, _, err = spectrum(
        "cutout1.fits", "cutout0.fits", "--posterior", str(tmp_path / "twice.ecsv")
    )
    assert status == 2 and "twice.ecsv has several galaxies named 'g1'" in err
    status, _, err = spectrum("cutout0.fits", "cutout0.fits", "--posterior", "posterior.fits")
    assert status == 2 and "the input has several galaxies named 'g0'" in err


def test_summary_table_is_refused_as_posterior(spectrum, tmp_path):
    made_posterior().write(tmp_path / "summary.ecsv")
    status, _, err = spectrum("galaxies.ecsv", "--posterior", str(tmp_path / "summary.ecsv"))
    assert status == 2 and "contains summaries but no draws" in err
    assert "(`astrogenspec infer --save-draws` makes one)" in err and err.count("\n") == 1


# ---- galaxies that are flagged


def test_unusable_galaxies_raise_or_are_flagged(spectrum, tmp_path):
    arguments = ("cutout0.fits", "dark.fits", "text.fits", "--ebv", "0")
    status, _, err = spectrum(*arguments[:2], *arguments[3:])
    assert status == 2 and "dark.fits: galaxy 1: no band has a usable pixel" in err
    assert err.count("\n") == 1 and list(tmp_path.iterdir()) == []
    status, out, err = spectrum(*arguments, "--on-error", "flag")
    assert (status, err) == (3, "")
    assert "3 galaxies, 2 spectra each, 2 flagged, median" in out
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert found.names == ("g0", "dark", "text") and list(found.usable) == [True, False, False]
    assert found.flags[0] == "" and found.flags[1].startswith("image not used: no band has")
    assert "posterior" not in found.flags[1]
    assert "text.fits cannot be read as a FITS file" in found.flags[2]
    assert "neither" not in found.flags[2]
    assert found.flag_codes[0] == 0 and found.flag_codes[1] & Flag.IMAGE_NOT_USED
    assert found.flag_codes[2] & Flag.FILE_NOT_READ
    lines = out.splitlines()
    assert lines[3].split() == ["dark", "-", "-"]
    assert lines[5] == f"dark: {found.flags[1]}"


def test_flags_of_the_posterior_are_passed_on(spectrum, tmp_path):
    posterior = made_posterior(flags=["", "odd colours", "", "", ""])
    draws = np.array(posterior["redshift"].draws)
    draws[2] = np.nan
    posterior = Posterior({"redshift": draws * u.one}, names=NAMES, flags=posterior.flags)
    posterior.write(tmp_path / "flagged.ecsv", draws=True)
    status, out, _ = spectrum("galaxies.ecsv", "--posterior", str(tmp_path / "flagged.ecsv"))
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert status == 3 and "2 flagged" in out
    expected = ("", "posterior: odd colours", "the posterior has no finite draws", "", "")
    assert found.flags == expected
    assert list(found.usable) == [True, True, False, True, True]


# ---- figures


def test_figure_of_each_galaxy_is_written(spectrum, tmp_path, monkeypatch):
    drawn = []

    class Axes:
        @property
        def figure(self):
            return self

        def savefig(self, path, dpi):
            path.write_bytes(b"png")

    monkeypatch.setattr(
        SpectrumDraws, "plot", lambda spectra, k: drawn.append(spectra.names[k]) or Axes()
    )
    monkeypatch.setattr("matplotlib.pyplot.close", lambda _: None)
    monkeypatch.setattr(cli_spectrum, "_MAX_GALAXIES", 2)
    assert spectrum("galaxies.ecsv", "--plot", str(tmp_path / "plots"))[0] == 0
    assert drawn == list(NAMES)
    assert sorted(p.name for p in (tmp_path / "plots").iterdir())[3] == "00003_g3.png"


def test_figure_is_named_after_the_galaxy(spectrum, tmp_path):
    arguments = ("cutout0.fits", "--ebv", "0", "--posterior", "posterior.fits")
    status, out, _ = spectrum(*arguments, "--plot", str(tmp_path / "plots"), draws=1)
    assert status == 0 and "1 galaxy, 1 spectrum, median" in out
    (path,) = (tmp_path / "plots").iterdir()
    assert path.name == "g0.png" and path.read_bytes().startswith(b"\x89PNG")


# ---- what is wrong


@pytest.mark.parametrize(
    ("arguments", "output", "status", "message"),
    [
        (("nothing.fits",), "out.fits", 2, "the input file nothing.fits does not exist"),
        (("text.fits", "--ebv", "0"), "out.fits", 2, "text.fits cannot be read as a FITS file"),
        (("cutout0.fits", "galaxies.ecsv"), "out.fits", 2, "give one catalogue, or FITS cutouts"),
        (("galaxies.ecsv", "--bands", "gx"), "out.fits", 2, "--bands contains 'x'"),
        (("galaxies.ecsv", "--device", "gpu"), "out.fits", 2, "device is 'gpu'"),
        (("galaxies.ecsv", "--seed", "-4"), "out.fits", 2, "seed is -4"),
        (("galaxies.ecsv", "--draws", "0"), "out.fits", 2, "--draws is 0: it must be at least 1"),
        (("galaxies.ecsv", "--draws", "9999"), "out.fits", 2, "at most 1024 are allowed"),
        (("galaxies.ecsv",), "out.ecsv", 2, "ends in none of .fits, .fit"),
        (("galaxies.ecsv",), "nowhere/out.fits", 2, "the output folder"),
        (("galaxies.ecsv", "--plot", "text.fits"), "out.fits", 2, "text.fits, which is a file"),
        (("galaxies.ecsv", "--model", "nonsense"), "out.fits", 2, "no model is named 'nonsense'"),
        (
            ("galaxies.ecsv", "--model", "properties.safetensors"),
            "out.fits",
            4,
            "does not hold the network of a SpectrumEstimator",
        ),
        (
            ("galaxies.ecsv", "--properties-model", "broken.safetensors"),
            "out.fits",
            4,
            "broken.safetensors",
        ),
        (
            ("galaxies.ecsv", "--posterior", "posterior.fits", "--properties-model", "x"),
            "out.fits",
            2,
            "--properties-model cannot be combined with --posterior",
        ),
        (
            ("galaxies.ecsv", "--posterior", "none.fits"),
            "out.fits",
            2,
            "the file 'none.fits' does not exist",
        ),
        (("galaxies.ecsv", "--posterior", "galaxies.ecsv"), "out.fits", 2, "was not made by"),
        (
            ("cutout0.fits", "--posterior", "others.fits"),
            "out.fits",
            2,
            "others.fits has no galaxy named 'g0'",
        ),
        (
            ("cutout0.fits", "--posterior", "masses.fits"),
            "out.fits",
            2,
            "masses.fits has no redshift",
        ),
        (
            ("cutout0.fits", "--properties-model", "x"),
            "out.fits",
            2,
            "error: no model is named 'x'",
        ),
    ],
)
def test_invalid_input_reports_one_line(
    spectrum, folder, tmp_path, arguments, output, status, message
):
    (folder / "broken.safetensors").write_bytes(b"\x00" * 20)
    others = made_posterior(names=list("abcde"))
    others.write(folder / "others.fits", draws=True, overwrite=True)
    masses = Posterior({"stellar_mass": np.full((1, 2), 10.0) * u.dex(u.Msun)}, names=["g0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masses.write(folder / "masses.fits", draws=True, overwrite=True)
    options = {"draws": int(arguments[-1])} if arguments[1:2] == ("--draws",) else {}
    found, out, err = spectrum(*arguments, output=output, **options)
    assert found == status
    assert message in err and err.startswith("astrogenspec: error: ")
    assert "Traceback" not in err and err.count("\n") == 1 and out == ""
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_noticed_early(spectrum, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000))
    status, _, err = spectrum("galaxies.ecsv")
    assert status == 2 and err.count("\n") == 1 and list(tmp_path.iterdir()) == []
    assert "5 galaxies with 2 spectra require 0.000154 GB, but only 0.0001 GB are free" in err


def test_input_file_is_never_replaced(spectrum, folder, tmp_path):
    path = tmp_path / "cutout.fits"
    path.write_bytes((folder / "cutout0.fits").read_bytes())
    status, _, err = spectrum(str(path), "--overwrite", output="cutout.fits")
    assert status == 2 and "cutout.fits is an input file" in err
    assert path.read_bytes() == (folder / "cutout0.fits").read_bytes()


def test_existing_output_is_kept_without_overwrite(spectrum, tmp_path):
    (tmp_path / "out.fits").write_text("precious")
    status, _, err = spectrum("unnamed.ecsv")
    assert status == 2 and "exists; choose another name or use --overwrite" in err
    assert (tmp_path / "out.fits").read_text() == "precious"
    assert spectrum("unnamed.ecsv", "--overwrite")[0] == 0
    assert len(SpectrumDraws.read(tmp_path / "out.fits")) == 2


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(KeyboardInterrupt(), 130, "interrupted"), (ValueError("galaxy 1: too odd."), 2, "too odd")],
)
def test_interruption_keeps_old_file(spectrum, tmp_path, monkeypatch, error, status, message):
    (tmp_path / "out.fits").write_text("precious")
    predict_iter = SpectrumEstimator.predict_iter

    def stopped(self, *arguments, **options):
        blocks = predict_iter(self, *arguments, **options)
        yield next(blocks)
        raise error

    monkeypatch.setattr(SpectrumEstimator, "predict_iter", stopped)
    monkeypatch.setattr(cli_spectrum, "_MAX_GALAXIES", 1)
    found, out, err = spectrum("unnamed.ecsv", "--overwrite", "--plot", str(tmp_path / "plots"))
    assert (found, out) == (status, "") and message in err and err.count("\n") == 1
    assert (tmp_path / "out.fits").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out.fits"]


# ---- the options


def test_choices_are_those_of_the_estimator(capsys):
    with pytest.raises(SystemExit):
        main(["spectrum", "--help"])
    out = capsys.readouterr().out
    assert f"--select {{{','.join(SELECTIONS)}}}" in out
    assert f"--aperture {{{','.join(APERTURES)}}}" in out
    assert "astrogenspec spectrum galaxies.ecsv -o spectra.fits" in out
    defaults = make_parser().parse_args(["spectrum", "a.fits", "-o", "b.fits"])
    assert (defaults.draws, defaults.select, defaults.aperture) == (16, "all", "fibre")
    assert (defaults.on_error, defaults.seed, defaults.device) == ("raise", None, "cpu")


def test_a_catalogue_of_another_survey(spectrum, folder, tmp_path):
    """Properties are given as a posterior, for the small networks of the tests know ugriz only."""
    table = Table({"OBJID": np.arange(N), "EBV": np.full(N, 0.03)})
    for band, flux in {"G": 60.0, "R": 130.0, "Z": 230.0}.items():
        table[f"FLUX_{band}"] = flux * (1 + 0.1 * np.arange(N))
        table[f"FLUX_IVAR_{band}"] = np.full(N, 4.0)
    table.write(folder / "sweep.fits", overwrite=True)
    made_posterior(names=[str(k) for k in range(N)]).write(
        folder / "sweep-posterior.fits", draws=True, overwrite=True
    )
    survey = ("--survey", "legacy-dr10")
    status, _, err = spectrum("sweep.fits", *survey, "--posterior", "sweep-posterior.fits")
    assert (status, err) == (0, "")
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert len(found) == N and np.isfinite(found.flux.value).all()
    brightness = np.median(found.photometry("legacy-dr10", ["r"]).value[..., 0], axis=1)
    assert 0.2 < brightness[-1] / brightness[0] < 5
    # The names of the columns are also those of this package.
    status, _, err = spectrum("sweep.fits", "--survey", "nowhere", output="other.fits")
    assert status == 1 or status == 2
    assert "nowhere" in err and err.count("\n") == 1


def test_a_catalogue_of_magnitudes_in_a_fibre(spectrum, tmp_path):
    """The galaxies are flagged, for the light outside the fibre is assumed."""
    status, _, err = spectrum("galaxies.ecsv", "--fibre-photometry", "--seed", "1")
    assert (status, err) == (3, "")
    found = SpectrumDraws.read(tmp_path / "out.fits")
    assert ((found.flag_codes & Flag.ASSUMPTION) != 0).all()
    batch = coerce_photometry(make_photometry(name=NAMES), aperture="fibre")
    posterior = estimator_cases.make_estimator().predict(photometry=batch, n_draws=DRAWS, seed=1)
    expected = make_spectra_estimator().predict(
        photometry=batch, posterior=posterior, n_draws=DRAWS, seed=1
    )
    np.testing.assert_allclose(found.redshift, expected.redshift, rtol=1e-5)
    np.testing.assert_allclose(np.median(found.flux), np.median(expected.flux), rtol=1e-3)
    total = ("--aperture", "total", "--overwrite")
    status, _, err = spectrum("galaxies.ecsv", "--fibre-photometry", *total)
    assert status != 0 and "aperture is 'total', but the photometry is that in a fibre" in err
    status, _, err = spectrum("cutout0.fits", "--fibre-photometry", "--overwrite")
    assert status != 0 and "--fibre-photometry is for catalogues without images" in err
