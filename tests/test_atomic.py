"""Files appear complete or not at all, whatever interrupts the writer."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest
from estimator_cases import make_cutouts
from posterior_cases import gaussian_posterior
from spectrum_cases import some_spectra

from astrogenspec import (
    Posterior,
    SpectrumDraws,
    coerce_cutouts,
    read_cutout_fits,
    write_cutout_fits,
)
from astrogenspec.atomic import atomic_write, save_figure, temporary_folder, write_bytes

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and locks of POSIX")
NAMES = ["out.fits", "out.ecsv", "out.parquet", "out.hdf5", "spectra.fits", "cutout.fits"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, n=3, **options):
    """Write a result with n galaxies."""
    if path.name.startswith("cutout"):
        write_cutout_fits(path, coerce_cutouts(make_cutouts(n)), n - 1, **options)
    elif path.name.startswith("spectra"):
        some_spectra()[:n].write(path, **options)
    else:
        gaussian_posterior(n, 20)[0].write(path, draws=True, **options)


def read(path):
    """Read a result; a file of a cutout has one galaxy."""
    if path.name.startswith("cutout"):
        return coerce_cutouts(read_cutout_fits(path))
    return (SpectrumDraws if path.name.startswith("spectra") else Posterior).read(path)


def test_content_is_written(tmp_path):
    write_bytes(tmp_path / "a", b"one")
    write_bytes(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_bytes(tmp_path / "a", b"three", overwrite=False)
    assert names(tmp_path) == ["a"]


def test_an_incomplete_figure_leaves_the_old_one(tmp_path):
    class Figure:
        def savefig(self, path, dpi):
            assert path.name == "figure.png" and dpi == 90
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        save_figure(Figure(), path, dpi=90)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    writer = atomic_write(tmp_path / "a", overwrite=False)
    writer.__enter__().write_text("mine")
    (tmp_path / "a").write_text("other")
    with pytest.raises(FileExistsError, match="'.*a' already exists; pass overwrite=True"):
        writer.__exit__(None, None, None)
    assert (tmp_path / "a").read_text() == "other"
    assert names(tmp_path) == ["a"]


def test_file_systems_without_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_bytes(tmp_path / "a", b"one", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_bytes(tmp_path / "a", b"two", overwrite=False)


@pytest.mark.parametrize("name", NAMES)
def test_one_of_several_writers_succeeds(tmp_path, name):
    path, start, outcomes = tmp_path / name, threading.Barrier(3), []

    def run(n):
        start.wait()
        try:
            write(path, n)
            outcomes.append(n)
        except FileExistsError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (n,) = [value for value in outcomes if isinstance(value, int)]
    assert len(outcomes) == 3
    assert len(read(path)) == (1 if name == "cutout.fits" else n)
    assert names(tmp_path) == [name]


_KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[3:]
from test_atomic import write
path = pathlib.Path(sys.argv[1])
setattr(os, sys.argv[2], lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
write(path, 2, overwrite=True)
"""


@posix
@pytest.mark.parametrize("name", ["out.fits", "out.hdf5", "spectra.fits"])
def test_a_kill_leaves_the_old_file_and_the_next_run_cleans(tmp_path, name):
    path = tmp_path / name
    write(path, 3)
    before = path.read_bytes()
    command = [sys.executable, "-c", _KILLED, path, "replace", os.path.dirname(__file__)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert path.read_bytes() == before
    assert len(names(tmp_path)) == 2
    write(path, 1, overwrite=True)
    assert len(read(path)) == 1
    assert names(tmp_path) == [name]


@posix
def test_folders_of_living_writers_are_kept(tmp_path):
    with temporary_folder(tmp_path) as one:
        with temporary_folder(tmp_path) as two:
            assert one.exists() and two.exists()
        assert not two.exists()
        os.utime(one, (0, 0))
        write_bytes(tmp_path / "a", b"")
        assert one.exists()
    assert names(tmp_path) == ["a"]


def test_without_locks_old_folders_are_removed(tmp_path, monkeypatch):
    def no_lock(folder, *, wait):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("astrogenspec.atomic._lock", no_lock)
    for name, age in (("old", 2 * 86400), ("new", 60)):
        folder = tmp_path / f".astrogenspec-{name}.partial"
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    write_bytes(tmp_path / "a", b"")
    assert names(tmp_path) == [".astrogenspec-new.partial", "a"]


_FULL = """
import pathlib, resource, sys
sys.path[:0] = sys.argv[2:3]
from test_atomic import write
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for name in sys.argv[3:]:
    try:
        write(pathlib.Path(sys.argv[1], name), 3, overwrite=True)
    except OSError as error:
        print(error)
"""


@posix
def test_a_file_that_becomes_too_large_leaves_the_old_one(tmp_path):
    for name in NAMES:
        write(tmp_path / name, 2)
    before = {name: (tmp_path / name).read_bytes() for name in NAMES}
    command = [sys.executable, "-c", _FULL, tmp_path, os.path.dirname(__file__), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == len(NAMES)
    for name, message in zip(NAMES, messages, strict=True):
        assert message.startswith(f"cannot write '{tmp_path / name}': ")
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == before
    assert names(tmp_path) == sorted(NAMES)
