"""Images and spectra in HDF5 files and zarr groups."""

import h5py
import numpy as np
import pytest
from astropy.io import fits
from dataset_cases import spectrum_columns, write_survey

from astrogenspec.datasets.array_stores import ArrayStore, is_store
from astrogenspec.datasets.folders import read_columns
from astrogenspec.datasets.local_files import LocalFiles
from astrogenspec.datasets.sources import build_dataset


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    return folder, write_survey(folder, 12)


def arrays_of(folder, table):
    """Arrays of images and of spectra with the content of the FITS files, in another order."""
    order = np.arange(len(table))[::-1]
    flux, ivar, spectra = [], [], []
    for k in order:
        with fits.open(folder / "images" / f"{table['name'][k]}.fits") as hdus:
            flux.append([hdus[band].data for band in "GRI"])
            ivar.append([hdus[f"IVAR_{band}"].data for band in "GRI"])
        spectra.append(spectrum_columns(float(table["redshift"][k]), int(k)))
    names = np.array([str(table["name"][k]) for k in order])
    # FITS files have single precision.
    wavelength = 10 ** spectra[0][0].astype("f4").astype(float)
    good = np.stack([np.where(each[3] > 0, 0, each[2]) for each in spectra])
    images = {"flux": np.array(flux), "ivar": np.array(ivar)}
    return (
        names,
        images,
        {
            "wavelength": wavelength,
            "flux": np.stack([each[1] for each in spectra]).astype("f4"),
            "ivar": good,
        },
    )


def write_hdf5(path, names, arrays, **attributes):
    with h5py.File(path, "w") as file:
        file["name"] = names.astype("S")
        for key, values in arrays.items():
            file[key] = values
        for key, value in attributes.items():
            file.attrs[key] = value


def write_zarr(path, names, arrays, **attributes):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w")
    for key, values in {"name": names.astype("S"), **arrays}.items():
        array = group.create_array(key, shape=values.shape, dtype=values.dtype)
        array[:] = values
    group.attrs.update(attributes)


@pytest.mark.parametrize(("write", "ending"), [(write_hdf5, "h5"), (write_zarr, "zarr")])
@pytest.mark.filterwarnings("ignore:The data type")
def test_shards_are_those_of_the_fits_files(survey, tmp_path, write, ending):
    folder, table = survey
    names, images, spectra = arrays_of(folder, table)
    write(tmp_path / f"images.{ending}", names, images, bands=list("gri"), pixel_scale=0.396)
    write(tmp_path / f"spectra.{ending}", names, spectra)
    stores = {kind: tmp_path / f"{kind}.{ending}" for kind in ("images", "spectra")}
    assert all(is_store(path) for path in stores.values()) and not is_store(folder / "images")
    folders = {kind: folder / kind for kind in stores}
    results = []
    for number, paths in enumerate((stores, folders)):
        out = tmp_path / f"out{number}"
        manifest = build_dataset(LocalFiles(table, **paths), out, progress=False)
        assert manifest["failed"] == 0
        results.append(read_columns(out / "train")[0])
    one, other = results
    np.testing.assert_array_equal(one["name"], other["name"])
    for column in ("image", "ivar", "spectrum", "spectrum_ivar", "theta"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-5)


def test_units_of_a_store(tmp_path):
    names = np.array(["a"])
    flux = np.ones((1, 2, 8, 8))
    write_hdf5(
        tmp_path / "a.h5", names, {"flux": flux}, bands=list("gr"), pixel_scale=0.2, unit="uJy"
    )
    image = ArrayStore(tmp_path / "a.h5").image("a")
    assert list(image) == ["g", "r"] and str(image["r"].unit) == "uJy"
    assert image["g"].uncertainty is None and image["g"].meta["PIXSCALE"] == 0.2
    spectra = {"wavelength": np.arange(4000.0, 4003), "flux": [[1.0, 2, 3]], "ivar": [[4.0, 4, 0]]}
    write_hdf5(tmp_path / "s.h5", names, spectra, unit="1e-16 erg / (s cm2 AA)")
    spectrum = ArrayStore(tmp_path / "s.h5").spectrum("a")
    np.testing.assert_allclose(spectrum.flux, [10, 20, 0])
    np.testing.assert_allclose(spectrum.ivar, [0.04, 0.04, 0])


@pytest.mark.parametrize(
    ("arrays", "attributes", "text"),
    [
        ({}, {}, "no array flux"),
        ({"flux": np.ones((2, 1, 8, 8))}, {}, "1 names, but 2 rows"),
        ({"flux": np.ones((1, 1, 8, 8))}, {"bands": ["q"], "pixel_scale": 1}, "as many bands"),
        ({"flux": np.ones((1, 1, 8, 8))}, {"bands": ["g"]}, "no attribute pixel_scale"),
    ],
)
def test_unusable_stores(tmp_path, arrays, attributes, text):
    write_hdf5(tmp_path / "a.h5", np.array(["a"]), arrays, **attributes)
    with pytest.raises(ValueError, match=text):
        ArrayStore(tmp_path / "a.h5").image("a")


def test_galaxies_that_the_store_lacks(tmp_path):
    write_hdf5(tmp_path / "a.h5", np.array(["a"]), {"flux": np.ones((1, 1, 8, 8))})
    with pytest.raises(FileNotFoundError, match="has no galaxy b"):
        ArrayStore(tmp_path / "a.h5").image("b")
    with pytest.raises(ValueError, match="no array wavelength"):
        ArrayStore(tmp_path / "a.h5").spectrum("a")
