"""The command line, end to end on files."""

import json
import logging
import subprocess
import sys
import warnings
from dataclasses import asdict

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from estimator_cases import N, make_cutouts, make_estimator, make_network, make_photometry

import astrogenspec
from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.cli import commands as cli
from astrogenspec.cli import main
from astrogenspec.flags import Flag
from astrogenspec.inference import training as recipe
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.reports import simulator as report
from astrogenspec.simulate import dataset

NULL = logging.NullHandler
NAMES = [f"g{k}" for k in range(N)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, a catalogue in three formats, and cutouts, of which the last has no good pixel."""
    path = tmp_path_factory.mktemp("cli")
    make_estimator().save(path / "tiny.safetensors")
    table = make_photometry(name=NAMES)
    table.write(path / "galaxies.ecsv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write(path / "galaxies.fits")
    table.write(path / "galaxies.parquet")
    QTable({name: getattr(table[name], "value", table[name]) for name in table.colnames}).write(
        path / "galaxies.csv"
    )
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


@pytest.fixture
def infer(folder, tmp_path, capsys):
    """Run ``infer`` with files of the folder; return status, standard output and error."""

    def run(*arguments, output="out.ecsv", draws=20):
        paths = [str(folder / a) if (folder / a).exists() else a for a in arguments]
        weights = [] if "--model" in paths else ["--model", str(folder / "tiny.safetensors")]
        status = main(
            ["infer", *paths, "-o", str(tmp_path / output), "--draws", str(draws), *weights]
        )
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# ---- infer


@pytest.mark.parametrize("catalogue", ["galaxies.ecsv", "galaxies.fits", "galaxies.parquet"])
def test_catalogue_gives_table(infer, tmp_path, catalogue):
    status, out, err = infer(catalogue, "--seed", "1")
    assert (status, err) == (0, "")
    assert "5 galaxies: " in out and "g3" in out
    table = QTable.read(tmp_path / "out.ecsv")
    assert list(table["name"]) == NAMES
    expected = make_estimator().predict(photometry=make_photometry(), n_draws=20, seed=1)
    assert u.allclose(table["sfr_median"], expected["sfr"].median(), rtol=1e-4)


def test_flux_unit_applies_to_columns_without_unit(infer, tmp_path):
    status, _, err = infer("galaxies.csv")
    assert status == 2 and "flux_u has no unit" in err
    status, *_ = infer("galaxies.csv", "--flux-unit", "nmgy", "--seed", "1", "--save-draws")
    assert status == 0
    flux = Posterior.read(tmp_path / "out.ecsv").photometry["flux_g"]
    assert u.allclose(flux, make_photometry()["flux_g"])


def test_cutouts_give_table_with_draws(infer, tmp_path):
    status, out, err = infer(
        "cutout0.fits", "cutout1.fits", "--ebv", "0.02", "--save-draws", "--seed", "1",
        output="out.fits",
    )  # fmt: skip
    assert (status, err) == (0, "") and "2 galaxies" in out
    posterior = Posterior.read(tmp_path / "out.fits")
    assert posterior.names == ("g0", "g1") and posterior.n_draws == 20
    expected = make_estimator().predict(make_cutouts()[:2], ebv=0.02, n_draws=20, seed=1)
    assert u.allclose(posterior["redshift"].draws, expected["redshift"].draws, rtol=1e-3)


def test_cutouts_with_photometry(infer, folder, tmp_path):
    make_photometry(2, name=NAMES[:2]).write(tmp_path / "two.ecsv")
    arguments = ("cutout0.fits", "cutout1.fits", "--photometry", str(tmp_path / "two.ecsv"))
    assert infer(*arguments, "--save-draws", "-q") == (0, "", "")
    assert not Posterior.read(tmp_path / "out.ecsv").photometry["measured"].any()
    status, _, err = infer("cutout1.fits", *arguments[1:], output="x.ecsv")
    assert status == 2 and "galaxy 0: the name is 'g1' in cutouts but 'g0' in photometry" in err
    status, _, err = infer("cutout0.fits", *arguments[2:], output="x.ecsv")
    assert status == 2 and "cutouts holds 1 galaxies but photometry 2" in err


def test_list_of_files_and_choice_of_bands(infer, folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder / 'cutout0.fits'}\n{folder / 'cutout1.fits'}\n")
    status, *_ = infer(f"@{tmp_path / 'list.txt'}", "--bands", "gri", "--ebv", "0", "--save-draws")
    assert status == 0
    photometry = Posterior.read(tmp_path / "out.ecsv").photometry
    assert np.isnan(photometry["flux_u"]).all() and np.isfinite(photometry["flux_r"]).all()
    assert infer("galaxies.ecsv", "--bands", "gr", "--save-draws", output="b.ecsv")[0] == 0
    photometry = Posterior.read(tmp_path / "b.ecsv").photometry
    assert np.isnan(photometry["flux_i"]).all() and np.isfinite(photometry["flux_r"]).all()


def test_unnamed_cutout_is_named_after_its_file(infer, folder, tmp_path):
    with fits.open(folder / "cutout0.fits") as hdus:
        for hdu in hdus[1:]:
            del hdu.header["NAME"]
        hdus.writeto(tmp_path / "ngc1.fits", checksum=True)
    assert infer(str(tmp_path / "ngc1.fits"), "--ebv", "0")[0] == 0
    assert list(QTable.read(tmp_path / "out.ecsv")["name"]) == ["ngc1"]


def test_unusable_galaxies_raise_or_are_flagged(infer, folder, tmp_path):
    arguments = ("cutout0.fits", "dark.fits", "text.fits", "--ebv", "0")
    status, _, err = infer(*arguments[:2], *arguments[3:])
    assert status == 2 and "dark.fits: galaxy 1: no band has a usable pixel" in err
    assert "Traceback" not in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    status, out, _ = infer(*arguments, "--on-error", "flag")
    assert status == 3 and "3 galaxies, 2 flagged" in out
    table = QTable.read(tmp_path / "out.ecsv")
    assert list(table["name"]) == ["g0", "dark", "text"]
    flags = np.ma.filled(table["flag"], "")
    assert flags[0] == "" and "no band has a usable pixel" in flags[1]
    assert "text.fits cannot be read as a FITS file" in flags[2] and "neither" not in flags[2]
    codes = table["flags"]
    assert codes[0] == 0 and codes[1] & Flag.IMAGE_NOT_USED and codes[2] & Flag.FILE_NOT_READ
    assert list(table["redshift_median"].mask) == [False, True, True]


def test_same_seed_gives_same_file(infer, tmp_path):
    for name in ("a.ecsv", "b.ecsv"):
        assert infer("galaxies.ecsv", "--seed", "5", output=name)[0] == 0
    assert (tmp_path / "a.ecsv").read_bytes() == (tmp_path / "b.ecsv").read_bytes()


def test_assumed_extinction_warns_on_one_line(infer):
    status, _, err = infer("cutout0.fits", "cutout1.fits")
    assert status == 0
    assert err.startswith("astrogenspec: warning: no Galactic extinction") and err.count("\n") == 1


def test_corner_plots_are_written(infer, tmp_path, monkeypatch):
    drawn = []

    class Figure:
        def savefig(self, path):
            path.write_bytes(b"png")

    monkeypatch.setattr(Posterior, "plot_corner", lambda _, k: drawn.append(k) or Figure())
    monkeypatch.setattr("matplotlib.pyplot.close", lambda _: None)
    assert infer("galaxies.ecsv", "--plot", str(tmp_path / "plots"))[0] == 0
    assert drawn == list(range(N))
    assert (tmp_path / "plots" / "00003_g3.png").exists()


@pytest.mark.parametrize(
    ("arguments", "output", "status", "message"),
    [
        (("nothing.fits",), "out.ecsv", 2, "the input file nothing.fits does not exist"),
        (("text.fits", "--ebv", "0"), "out.ecsv", 2, "text.fits cannot be read as a FITS file"),
        (("galaxies.fits", "cutout0.fits"), "out.ecsv", 2, "give one catalogue, or FITS cutouts"),
        (("galaxies.ecsv", "--photometry", "galaxies.fits"), "out.ecsv", 2, "give one catalogue"),
        (("galaxies.ecsv", "--bands", "gx"), "out.ecsv", 2, "--bands contains 'x'"),
        (("galaxies.ecsv", "--ebv", "0.1"), "out.ecsv", 2, "ebv was given both"),
        (("galaxies.ecsv", "--device", "gpu"), "out.ecsv", 2, "device is 'gpu'"),
        (("galaxies.ecsv", "--seed", "-4"), "out.ecsv", 2, "seed is -4"),
        (("galaxies.csv", "--flux-unit", "mJansky"), "out.ecsv", 2, "'mJansky'"),
        (("galaxies.ecsv",), "out.xyz", 2, "ends in none of"),
        (("galaxies.ecsv",), "nowhere/out.ecsv", 2, "the output folder"),
        (("galaxies.ecsv", "--model", "nonsense"), "out.ecsv", 2, "no model is named 'nonsense'"),
        (("galaxies.ecsv", "--model", "text.safetensors"), "out.ecsv", 2, "the weights file"),
        (("galaxies.ecsv", "--model", "broken.safetensors"), "out.ecsv", 4, "truncated"),
    ],
)
def test_invalid_input_reports_one_line(
    infer, folder, tmp_path, arguments, output, status, message
):
    (folder / "broken.safetensors").write_bytes(b"\x00" * 20)
    found, out, err = infer(*arguments, output=output)
    assert found == status
    assert message in err and err.startswith("astrogenspec: error: ")
    assert "Traceback" not in err and err.count("\n") == 1 and out == ""
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept_without_overwrite(infer, tmp_path):
    (tmp_path / "out.ecsv").write_text("precious")
    status, _, err = infer("galaxies.ecsv")
    assert status == 2 and "exists; choose another name or use --overwrite" in err
    assert (tmp_path / "out.ecsv").read_text() == "precious"
    assert infer("galaxies.ecsv", "--overwrite")[0] == 0


def test_too_many_draws_are_refused_early(infer):
    status, _, err = infer("galaxies.ecsv", draws=100_000_000)
    assert status == 2 and "use --draws 1111" in err


def test_interrupted_write_keeps_old_file(infer, tmp_path, monkeypatch):
    (tmp_path / "out.ecsv").write_text("precious")

    def interrupted(self, path, **_):
        if path == tmp_path / "out.ecsv":
            raise KeyboardInterrupt

    monkeypatch.setattr(Posterior, "write", interrupted)
    status, _, err = infer("galaxies.ecsv", "--overwrite")
    assert status == 130 and err == "astrogenspec: interrupted\n"
    assert (tmp_path / "out.ecsv").read_text() == "precious"


def test_internal_error_has_its_own_status(infer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(Posterior, "write", broken)
    status, _, err = infer("galaxies.ecsv")
    assert status == 1 and "RuntimeError: out of cheese" in err and "Traceback" not in err
    status, _, err = infer("galaxies.ecsv", "--debug")
    assert status == 1 and "Traceback" in err


# ---- the other commands


def test_help_and_version(capsys):
    for arguments in (
        ["--help"],
        ["infer", "--help"],
        ["train", "properties", "--help"],
        ["--version"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  astrogenspec infer galaxies.ecsv -o properties.fits" in out
    assert "exit status:\n0 success" in out and "130 interrupted" in out
    assert f"astrogenspec {astrogenspec.__version__}\n" in out


@pytest.mark.parametrize("arguments", [[], ["weights"], ["train"]])
def test_incomplete_command_prints_help(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: astrogenspec" in capsys.readouterr().out


def test_invalid_command_line_has_status_2(capsys):
    for arguments in (["dance"], ["infer", "a.fits"], ["infer", "a", "-o", "b", "--draws", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_weights_list_show_and_fetch(folder, capsys):
    assert main(["weights", "list"]) == 0
    assert "description" in capsys.readouterr().out
    path = str(folder / "tiny.safetensors")
    assert main(["weights", "show", path]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert main(["weights", "fetch", path]) == 0
    assert capsys.readouterr().out.strip() == path
    assert main(["weights", "fetch", "nonsense"]) == 2
    assert "no model is named 'nonsense'" in capsys.readouterr().err


def test_verbose_logs_weights(capsys):
    assert main(["weights", "fetch"]) == 0
    quiet = capsys.readouterr()
    assert main(["weights", "fetch", "--verbose"]) == 0
    told = capsys.readouterr()
    assert quiet.err == "" and told.out == quiet.out
    assert told.err.startswith("astrogenspec.weights: model 'astrogenspec-properties' is ")
    assert not [h for h in logging.getLogger("astrogenspec").handlers if type(h) is not NULL]


def test_simulate_passes_its_options(monkeypatch, tmp_path, capsys):
    asked = []

    def write_shards(n, out, **options):
        asked.append(
            (n, options["seed"], options["workers"], asdict(options["contents"])["images"])
        )
        return [out / "shard-00000.h5"]

    monkeypatch.setattr(dataset, "write_shards", write_shards)
    monkeypatch.setattr(report, "write_report", lambda real, out, **_: out / f"{real.name}.html")
    out = tmp_path / "sim"
    assert main(["simulate", "2000", "--out", str(out), "--seed", "3", "--no-images"]) == 0
    assert main(["simulate", "10", "--out", str(out), "--workers", "1"]) == 0
    assert main(["simulate", "10", "--out", str(out), "--training", "-q"]) == 0
    expected = [(2000, 3, None, "none"), (10, 0, 1, "observed"), (10, 0, None, "noiseless")]
    assert asked == expected
    assert main(["simulate", "--report", str(tmp_path / "real"), "--out", str(out)]) == 0
    assert str(out / "real.html") in capsys.readouterr().out
    for wrong in (
        ["simulate", "--out", str(out)],
        ["simulate", "9", "--report", "x", "--out", "y"],
    ):
        assert main(wrong) == 2
        assert "either N, a number of galaxies, or --report" in capsys.readouterr().err


def test_train_writes_usable_weights(monkeypatch, tmp_path, infer):
    asked = {}

    def train_properties(data, out, *, recipe, training, network):
        asked.update(
            data=data,
            seed=recipe.seed,
            network=network,
            steps=training.max_steps,
            time=training.max_seconds,
        )
        out.mkdir()
        return make_network(), recipe_history()

    def recipe_history():
        from astrogenspec.training.loop import History

        return History(stopped="steps", best_step=7)

    monkeypatch.setattr(recipe, "train_properties", train_properties)
    out = tmp_path / "run"
    arguments = ["train", "properties", "--data", "a", "b", "--out", str(out), "--seed", "4", "-q"]
    assert main([*arguments, "--steps", "9"]) == 0
    assert [p.name for p in asked["data"]] == ["a", "b"]
    assert (asked["seed"], asked["steps"], asked["time"]) == (4, 9, None)
    assert asked["network"] is None
    card = json.loads((out / "properties.json").read_text())
    assert card["training"]["best_step"] == 7 and card["recipe"]["seed"] == 4
    assert infer("galaxies.ecsv", "--model", str(out / "properties.safetensors"))[0] == 0
    (out / "properties.safetensors").unlink()
    out = tmp_path / "other"
    assert main(["train", "properties", "--data", "a", "--out", str(out), "-q"]) == 0
    assert (asked["steps"], asked["time"]) == (None, 7200)


def test_evaluate_matches_by_name(infer, tmp_path, capsys):
    assert infer("galaxies.ecsv", "--save-draws", "--seed", "1")[0] == 0
    posterior = Posterior.read(tmp_path / "out.ecsv")
    truth = QTable({"name": posterior.names, "redshift": posterior["redshift"].median()})
    truth[::-1].write(tmp_path / "truth.ecsv")
    command = ["evaluate", str(tmp_path / "out.ecsv"), str(tmp_path / "truth.ecsv")]
    assert main([*command, "-o", str(tmp_path / "scores.ecsv")]) == 0
    assert "redshift" in capsys.readouterr().out
    scores = QTable.read(tmp_path / "scores.ecsv")
    assert list(scores["quantity"]) == ["redshift"]
    assert abs(scores["bias"][0]) < 1e-6 and scores["n"][0] == N
    truth[:3].write(tmp_path / "truth.ecsv", overwrite=True)
    assert main(command) == 2
    assert "has no row for 2 of 5 galaxies, such as 'g3'" in capsys.readouterr().err
    truth.remove_column("name")
    truth[:3].write(tmp_path / "truth.ecsv", overwrite=True)
    assert main(command) == 2
    assert "has 3 rows and no column name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["infer", "evaluate"])
def test_inputs_are_never_replaced(infer, folder, tmp_path, capsys, command):
    path = tmp_path / "galaxies.ecsv"
    path.write_bytes((folder / "galaxies.ecsv").read_bytes())
    before = path.read_bytes()
    model = ["--model", str(folder / "tiny.safetensors")]
    if command == "infer":
        arguments = ["infer", str(path), "-o", str(path), "--overwrite", *model]
    else:
        drawn = str(tmp_path / "drawn.fits")
        assert main(["infer", str(path), "-o", drawn, "--save-draws", "--draws", "5", *model]) == 0
        arguments = ["evaluate", drawn, str(path), "-o", str(path), "--overwrite"]
    assert main(arguments) == 2
    assert "galaxies.ecsv is an input file; choose another output file" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_positions_and_identifiers_are_kept(infer, tmp_path):
    table = make_photometry()
    table["ra"], table["dec"] = np.linspace(0, 359, N) * u.deg, np.linspace(-10, 10, N) * u.deg
    table["objID"] = 1237648720693755918 + np.arange(N)
    table["other"] = np.arange(N)
    table.write(tmp_path / "in.ecsv")
    status, _, _ = infer(str(tmp_path / "in.ecsv"), output="out.fits")
    assert status == 0
    found = QTable.read(tmp_path / "out.fits")
    assert found.colnames[:4] == ["name", "ra", "dec", "objID"]
    assert found["objID"].tolist() == table["objID"].tolist()
    assert found["dec"].unit == u.deg and np.allclose(found["dec"], table["dec"])
    assert "other" not in found.colnames


def test_unusable_galaxy_is_reported_before_the_weights_are_loaded(infer, tmp_path, monkeypatch):
    table = make_photometry()
    for band in "ugriz":
        table[f"flux_{band}"][3] = np.nan * u.nmgy
    table.write(tmp_path / "in.ecsv")

    def refuse(*_, **__):
        raise AssertionError("the weights were loaded")

    with monkeypatch.context() as patched:
        patched.setattr(PropertyEstimator, "from_pretrained", refuse)
        status, _, err = infer(str(tmp_path / "in.ecsv"), output="out.fits")
    assert status == 2 and "galaxy 3" in err and "--on-error flag" in err
    more = ("--on-error", "flag")
    assert infer(str(tmp_path / "in.ecsv"), *more, output="out.fits")[0] == 3
    more = (*more, "--flagged-ok", "--overwrite")
    assert infer(str(tmp_path / "in.ecsv"), *more, output="out.fits")[0] == 0


def test_control_characters_are_escaped_on_the_terminal(infer, tmp_path):
    table = make_photometry()
    table["name"] = [f"\x1b[31mgalaxy {k}" for k in range(N)]
    table.write(tmp_path / "in.ecsv")
    status, out, err = infer(str(tmp_path / "in.ecsv"), output="out.fits")
    assert status == 0
    assert "\x1b" not in out + err
    assert "\\x1b[31mgalaxy 0" in out


def test_files_of_single_bands_are_one_galaxy(infer, tmp_path):
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:64, :64] - 31.5
    files = []
    for band, level in zip("gri", (1.0, 2.0, 2.6), strict=True):
        image = level * 50 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, 1, (64, 64))
        header = fits.Header({"PIXSCALE": 0.396, "BUNIT": "adu"})
        files.append(str(tmp_path / f"ngc-{band}.fits"))
        fits.PrimaryHDU(image.astype(np.float32), header).writeto(files[-1])
    options = ("--ebv", "0.02", "--zero-point", "26")
    status, out, err = infer(*files, *options, output="out.fits")
    assert status in (0, 3) and "bands g, r, i of one galaxy" in err
    table = QTable.read(tmp_path / "out.fits")
    assert len(table) == 1
    assert infer(*files, "--ebv", "0.02", output="other.fits")[0] == 2


def test_repeated_names_cannot_be_evaluated(infer, folder, tmp_path, capsys):
    drawn, truth = tmp_path / "drawn.fits", tmp_path / "truth.ecsv"
    assert infer("galaxies.ecsv", "--save-draws", output="drawn.fits")[0] == 0
    names = list(Posterior.read(drawn).names)
    QTable({"name": [*names, names[0]], "redshift": np.full(len(names) + 1, 0.1)}).write(truth)
    assert main(["evaluate", str(drawn), str(truth)]) == 2
    assert f"several galaxies named '{names[0]}'" in capsys.readouterr().err


def test_python_m_runs_command_line(folder, tmp_path):
    command = [sys.executable, "-m", "astrogenspec", "infer", str(folder / "galaxies.ecsv")]
    command += ["--model", str(folder / "tiny.safetensors"), "-o", str(tmp_path / "out.fits"), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(QTable.read(tmp_path / "out.fits")) == N


def test_parser_imports_nothing_heavy():
    code = (
        "import sys; from astrogenspec.cli.commands import make_parser; make_parser();"
        "print(*({'torch', 'numpy', 'specutils', 'photutils', 'pooch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert cli.__all__ == ["main"]
