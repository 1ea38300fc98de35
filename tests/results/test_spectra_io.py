import os
import stat

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from spectrum_cases import assert_same, log_grid, some_spectra
from specutils import Spectrum

from astrogenspec.flags import Flag
from astrogenspec.results.spectra import FLUX_UNIT, SpectrumDraws
from astrogenspec.results.spectra_io import SpectrumWriter

META = {"seed": 3, "model": "a 'quoted' & \"ünusual\"\nname " * 20, "levels": [0.5, None]}


@pytest.fixture
def spectra():
    return some_spectra(names=["NGC 1", "ÅΩ 星", "", "x" * 300], meta=META)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spectra.fits"


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def write_blocks(path, blocks, *, then=None, **kwargs):
    """Write blocks; before the end, raise the error ``then`` or call it."""
    with SpectrumWriter(path, **kwargs) as writer:
        for block in blocks:
            writer.append(block)
        if isinstance(then, type):
            raise then
        if then is not None:
            then()


# ---- round trips


def test_round_trip(spectra, path):
    spectra.write(path)
    again = SpectrumDraws.read(path)
    assert type(again) is SpectrumDraws
    assert_same(again, spectra)
    assert again.flux.value.dtype == np.dtype("=f4")
    assert files(path.parent) == [path.name]


def test_round_trip_without_optional_data(path):
    plain = SpectrumDraws(np.ones((2, 1, 5)) * u.Jy, [4, 5, 6, 7, 9] * u.um, [[0.1], [0.2]])
    plain.write(path)
    again = SpectrumDraws.read(str(path))
    assert_same(again, plain)
    assert again.photometric_residual is None


def test_files_without_numbers_of_posterior_draws_are_read(spectra, path, monkeypatch):
    from astrogenspec.results import spectra_io as spectrum_io

    monkeypatch.setattr(spectrum_io, "_NUMBERS", {"redshift": "D", "weight": "D"})
    spectra.write(path)
    with fits.open(path) as units:
        assert "posterior_draw" not in units["GALAXIES"].columns.names
    again = SpectrumDraws.read(path)
    assert (again.posterior_draw == -1).all()
    np.testing.assert_array_equal(again.redshift, spectra.redshift)


def test_round_trip_without_galaxies(spectra, path):
    spectra[:0].write(path)
    again = SpectrumDraws.read(path)
    assert again.flux.shape == (0, 6, 300)
    assert again.names == ()


@pytest.mark.parametrize("galaxies", [1, slice(1, 3), [3, 0], np.array([True, False, True, False])])
def test_selected_galaxies_are_read(spectra, path, galaxies):
    spectra.write(path)
    assert_same(SpectrumDraws.read(path, galaxies), spectra[galaxies])


def test_reading_galaxies_that_do_not_exist_raises_an_error(spectra, path):
    spectra.write(path)
    with pytest.raises(IndexError, match="galaxy 4 does not exist: there are 4"):
        SpectrumDraws.read(path, 4)
    with pytest.raises(TypeError, match="cannot be selected by 'galaxy 1'"):
        SpectrumDraws.read(path, "galaxy 1")


def test_the_file_is_standard_fits(spectra, path):
    spectra.write(path)
    with fits.open(path) as units:
        units.verify("exception")
        assert [unit.name for unit in units] == ["PRIMARY", "BEST", "DRAWS", "GALAXIES", "DOCUMENT"]
        assert u.Unit(units["DRAWS"].header["BUNIT"]) == FLUX_UNIT
        assert_array_equal(units["DRAWS"].data, spectra.flux.value)
        wcs = WCS(units["DRAWS"].header).spectral
        at = wcs.pixel_to_world(np.arange(300)).to_value(u.AA)
        assert_allclose(at, spectra.wavelength.value, rtol=1e-9)
    table = Table.read(path, hdu="GALAXIES")
    assert_array_equal(table["redshift"], spectra.redshift)
    assert table["residual"].shape == (4, 6, 5)
    assert_array_equal(table["trusted"], spectra.trusted)


# ---- specutils


def test_specutils_reads_the_best_spectrum(spectra, path):
    spectra[1].write(path)
    best, found = spectra[1].best, Spectrum.read(path)
    assert_array_equal(found.spectral_axis.value, best.spectral_axis.value)
    assert found.spectral_axis.unit == u.AA
    assert found.flux.unit == FLUX_UNIT
    assert_allclose(found.flux.value, best.flux.value, rtol=1e-6)
    assert_allclose(found.uncertainty.array, best.uncertainty.array, rtol=1e-6)
    assert_array_equal(Spectrum.read(path, format="tabular-fits").flux, found.flux)
    assert_array_equal(Table.read(path, hdu=1)["mask"], best.mask)


def test_specutils_reads_the_first_galaxy_of_several(spectra, path):
    spectra.write(path)
    assert_allclose(Spectrum.read(path).flux.value, spectra[0].best.flux.value, rtol=1e-6)


# ---- blocks


def test_writing_in_blocks_gives_the_same_file(spectra, path, tmp_path):
    with SpectrumWriter(path) as writer:
        for number in (0, 1):
            writer.append(spectra[number])
        writer.append(spectra[2:2])
        writer.append(spectra[2:])
        assert writer.n_galaxies == 4
        assert not path.exists()
    spectra.write(tmp_path / "whole.fits")
    assert path.read_bytes() == (tmp_path / "whole.fits").read_bytes()


def test_blocks_may_differ_in_residuals_and_meta(path):
    one = some_spectra(2, bad=None, meta={"seed": 1, "model": "a"}, photometric_residual=None)
    other = some_spectra(3, bad=None, meta={"seed": 2, "model": "a"})
    with SpectrumWriter(path) as writer:
        writer.append(one)
        writer.append(other)
    assert_same(SpectrumDraws.read(path), SpectrumDraws.concatenate([one, other]))


def test_a_block_is_not_kept_in_memory(path):
    import gc
    import weakref

    with SpectrumWriter(path) as writer:
        block = some_spectra()
        base = weakref.ref(block.flux)
        writer.append(block)
        del block
        gc.collect()
        assert base() is None


@pytest.mark.parametrize(
    ("block", "kind", "message"),
    [
        (
            some_spectra(n_draws=3),
            ValueError,
            "spectra has 3 draws per galaxy, but the first part has 6",
        ),
        (some_spectra(n_pixels=200), ValueError, "another wavelength grid .200 pixels"),
        ("spectra", TypeError, "spectra is of type str; a SpectrumDraws is expected"),
        (some_spectra(meta={"f": print}), TypeError, r"meta\['f'\] is of type builtin_function"),
    ],
)
def test_incompatible_blocks_raise_an_error(spectra, path, block, kind, message):
    with pytest.raises(kind, match=message):
        write_blocks(path, [spectra, block])
    assert files(path.parent) == []


def test_appending_to_a_closed_writer_raises_an_error(spectra, path):
    writer = SpectrumWriter(path)
    with pytest.raises(RuntimeError, match="the writer is not open; use it in a with"):
        writer.append(spectra)


def test_a_writer_without_spectra_raises_an_error(path):
    with pytest.raises(ValueError, match="no spectra were appended"), SpectrumWriter(path):
        pass
    assert files(path.parent) == []


# ---- errors in writing


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_no_file(spectra, path, error):
    with pytest.raises(error):
        write_blocks(path, [spectra], then=error)
    assert files(path.parent) == []


def test_an_interruption_preserves_an_existing_file(spectra, path):
    spectra.write(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_blocks(path, [spectra[0]], then=RuntimeError, overwrite=True)
    assert path.read_bytes() == before
    assert files(path.parent) == [path.name]


def test_existing_files_are_replaced_only_with_overwrite(spectra, path):
    spectra.write(path)
    with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
        spectra[0].write(path)
    assert len(SpectrumDraws.read(path)) == 4
    spectra[0].write(path, overwrite=True)
    assert len(SpectrumDraws.read(path)) == 1


def test_a_file_created_during_writing_is_preserved(spectra, path):
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_blocks(path, [spectra], then=lambda: path.write_text("mine"))
    assert path.read_text() == "mine"
    assert files(path.parent) == [path.name]


def test_a_full_disk_is_reported(spectra, path, monkeypatch):
    def full(template, n_galaxies):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("astrogenspec.results.spectra_io._draws_header", full)
    with pytest.raises(
        OSError, match=r"cannot write .*No space left on device; check that the folder"
    ):
        spectra.write(path)
    assert files(path.parent) == []


@pytest.mark.parametrize("name", ["spectra.ecsv", "spectra", "spectra.fits.gz"])
def test_unknown_endings_raise_an_error(spectra, tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in none of \.fits, \.fit"):
        spectra.write(tmp_path / name)


def test_missing_folders_raise_an_error(spectra, tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist"):
        spectra.write(tmp_path / "no" / "spectra.fits")
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        spectra.write(tmp_path / "folder.fits", overwrite=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs permissions")
def test_a_folder_without_permission_is_reported(spectra, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(PermissionError, match="cannot write"):
            spectra.write(tmp_path / "spectra.fits")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_symbolic_links_are_followed(spectra, tmp_path):
    (tmp_path / "real.fits").write_text("old")
    (tmp_path / "link.fits").symlink_to(tmp_path / "real.fits")
    spectra.write(tmp_path / "link.fits", overwrite=True)
    assert (tmp_path / "link.fits").is_symlink()
    assert len(SpectrumDraws.read(tmp_path / "real.fits")) == 4


# ---- errors in reading


def test_a_missing_file_raises_an_error():
    with pytest.raises(FileNotFoundError, match="the file 'no.fits' does not exist"):
        SpectrumDraws.read("no.fits")


@pytest.mark.parametrize("fraction", [0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_raise_an_error(spectra, path, fraction):
    spectra.write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(OSError, match=f"cannot read '{path}': it is damaged or not a FITS file"):
        SpectrumDraws.read(path)


@pytest.mark.parametrize("name", ["BEST", "DRAWS", "GALAXIES"])
def test_a_changed_bit_raises_an_error(spectra, path, name):
    spectra.write(path)
    content = bytearray(path.read_bytes())
    with fits.open(path) as units:
        at = units[name].fileinfo()["datLoc"]
    content[at + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="damaged.* the checksum of the .* is wrong"):
        SpectrumDraws.read(path)


def test_added_header_keywords_are_ignored(spectra, path):
    spectra.write(path)
    for extension in range(5):
        fits.setval(path, "OBSERVER", value="somebody", ext=extension)
    assert_same(SpectrumDraws.read(path), spectra)


@pytest.mark.parametrize("name", ["BEST", "DRAWS", "GALAXIES", "DOCUMENT"])
def test_a_missing_extension_raises_an_error(spectra, path, name):
    spectra.write(path)
    with fits.open(path) as units:
        rest = fits.HDUList([unit.copy() for unit in units if unit.name != name])
        rest.writeto(path.with_name("part.fits"))
    with pytest.raises(OSError, match="damaged"):
        SpectrumDraws.read(path.with_name("part.fits"))


def test_files_of_other_programs_raise_an_error(path, tmp_path):
    Spectrum(flux=np.ones(10) * FLUX_UNIT, spectral_axis=log_grid(10)).write(path)
    with pytest.raises(ValueError, match="was not made by SpectrumDraws.write"):
        SpectrumDraws.read(path)
    (tmp_path / "text.fits").write_text("some text")
    with pytest.raises(OSError, match="damaged or not a FITS file"):
        SpectrumDraws.read(tmp_path / "text.fits")


def test_files_of_newer_versions_raise_an_error(spectra, path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr("astrogenspec.results.spectra_io.LAYOUT", 99)
        spectra.write(path)
    with pytest.raises(ValueError, match="newer version of astrogenspec .layout 99"):
        SpectrumDraws.read(path)


# ---- flags


def test_round_trip_of_flag_codes(path):
    spectra = some_spectra(flag_codes=[0, Flag.SATURATED, Flag.NO_DATA, 0])
    spectra.write(path)
    assert_array_equal(SpectrumDraws.read(path).flag_codes, spectra.flag_codes)
    assert_array_equal(SpectrumDraws.read(path, [2, 0]).flag_codes, [Flag.NO_DATA, 0])
    table = Table.read(path, hdu="GALAXIES")
    assert list(table[table["flags"] == 0]["name"]) == ["galaxy 0", "galaxy 3"]


def test_files_without_flag_codes_are_read(spectra, path, monkeypatch):
    from astrogenspec.results import spectra_io

    def without_codes(blocks, template):
        table = galaxies_table(blocks, template)
        table.columns.del_col("flags")
        return fits.BinTableHDU.from_columns(table.columns, name="GALAXIES")

    galaxies_table = spectra_io._galaxies_table
    monkeypatch.setattr(spectra_io, "_galaxies_table", without_codes)
    spectra.write(path)
    with fits.open(path) as units:
        assert "flags" not in units["GALAXIES"].columns.names
    again = SpectrumDraws.read(path)
    assert_array_equal(again.flag_codes, [0, 0, Flag.TEXT_ONLY, 0])
    assert again.flags == spectra.flags
