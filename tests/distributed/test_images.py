"""Images of survey runs: all formats give the numbers of `PropertyEstimator.predict`."""

import astropy.units as u
import h5py
import numpy as np
import pyarrow as pa
import pytest
from estimator_cases import make_cutouts, make_estimator
from pyarrow import parquet
from survey_run_cases import SETTINGS, make_catalogue, make_weights, read_result, write_parquet

from astrogenspec.distributed import ManifestError, predict_table, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.images import ImageFormat, image_reader
from astrogenspec.flags import Flag
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts

N, NO_IMAGE = 9, 4
CUTOUTS = make_cutouts(N)
FLUX = np.stack([cutout.data for cutout in CUTOUTS])
IVAR = np.full(FLUX.shape, 400.0, np.float32)
FORMATS = ("hdf5", "multimodal-hdf5", "zarr", "parquet", "fits", "column")


def structures(rows):
    """Return images as structures of the Multimodal Universe."""
    return [
        {
            "band": [f"sdss-{band}" for band in "ugriz"],
            "flux": FLUX[k].tolist(),
            "ivar": IVAR[k].tolist(),
            "scale": [0.396] * 5,
        }
        for k in rows
    ]


def write_images(folder, ids, kind):
    """Write the images in another order than the catalogue, without one; return the source."""
    rows = np.random.default_rng(5).permutation(np.delete(np.arange(N), NO_IMAGE))
    path = folder / f"images-{kind}"
    if kind == "hdf5":
        with h5py.File(path.with_suffix(".hdf5"), "w") as file:
            file["object_id"], file["flux"], file["ivar"] = ids[rows], FLUX[rows], IVAR[rows]
            file.attrs.update({"bands": "ugriz", "pixel_scale": 0.396, "unit": "nmgy"})
        return path.with_suffix(".hdf5")
    path.mkdir()
    if kind == "multimodal-hdf5":
        for k, part in enumerate(np.array_split(rows, 2)):
            with h5py.File(path / f"{k}.hdf5", "w") as file:
                file["object_id"], file["image_array"] = ids[part].astype("S"), FLUX[part]
                file["image_ivar"] = IVAR[part]
                file["image_scale"] = np.full((len(part), 5), 0.396)
                names = np.array([f"sdss-{band}" for band in "ugriz"], dtype="S")
                file["image_band"] = np.tile(names, (len(part), 1))
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="w")
        for name, values in (("id", ids[rows]), ("flux", FLUX[rows]), ("ivar", IVAR[rows])):
            group.create_array(name, data=values)
        group.attrs.update({"bands": list("ugriz"), "pixel_scale": 0.396})
    elif kind == "parquet":
        content = pa.table({"object_id": ids[rows], "image": structures(rows)})
        parquet.write_table(content, path / "a.parquet", row_group_size=3)
    elif kind == "fits":
        batch = coerce_cutouts(CUTOUTS)
        for k in rows:
            write_cutout_fits(path / f"{ids[k]}.fits", batch, k)
    return path


def write_catalogue(folder, kind):
    """Write a catalogue; return it, its file, and the source of its images."""
    table = make_catalogue(N)
    path = folder / "in.parquet"
    write_parquet(table, path)
    ids = np.asarray(table["object_id"])
    if kind == "multimodal-hdf5":
        table["object_id"] = ids.astype(str)
        write_parquet(table, path)
    if kind == "column":
        content = parquet.read_table(path)
        images = structures(range(N))
        images[NO_IMAGE] = None
        parquet.write_table(content.append_column("image", [images]), path, row_group_size=4)
        return table, path, "column:image"
    return table, path, write_images(folder, ids, kind)


def expected(table, photometry=True):
    """Return the posterior of the images and of the one galaxy without image."""
    cutouts = [None if k == NO_IMAGE else CUTOUTS[k] for k in range(N)]
    return make_estimator().predict(
        cutouts,
        table if photometry else None,
        ebv=None if photometry else table["ebv"],
        n_draws=20,
        seed=3,
        ids=np.asarray(table["object_id"]),
        on_error="flag",
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_images_are_joined_by_identifier(tmp_path, kind):
    table, path, images = write_catalogue(tmp_path, kind)
    settings = {**SETTINGS, "weights": make_weights(tmp_path), "rows": 4, "workers": 1}
    report = run_survey(path, tmp_path / "out", images=images, **settings)
    assert report.finished and report.rows == N
    found = read_result(tmp_path / "out")
    order = np.argsort(np.asarray(table["object_id"]))
    assert found["has_image"].to_pylist() == [k != NO_IMAGE for k in order]
    wanted = expected(table)
    for name in ("redshift", "stellar_mass", "halpha_flux"):
        np.testing.assert_allclose(
            found[f"{name}_median"], wanted[name].median().value[order], rtol=2e-4
        )
    # The image changes the result.
    alone = predict_table(table, **SETTINGS, weights=settings["weights"])
    changed = alone["redshift_median"][order] != found["redshift_median"].to_numpy()
    assert changed.tolist() == found["has_image"].to_pylist()
    assert check_survey(path, tmp_path / "out") == []


def images_of(ids):
    """Return the images of identifiers."""
    order = np.argsort(make_catalogue(N)["object_id"])
    rows = order[np.searchsorted(np.asarray(make_catalogue(N)["object_id"])[order], ids)]
    return [None if k == NO_IMAGE else CUTOUTS[int(k)] for k in rows]


def images_too_few(ids):
    """Return one image too few."""
    return images_of(ids)[:-1]


@pytest.mark.filterwarnings("ignore")
def test_images_of_a_function(tmp_path):
    table, weights = make_catalogue(N), make_weights(tmp_path)
    found = predict_table(table, **SETTINGS, weights=weights, images=images_of)
    assert found["has_image"].tolist() == [k != NO_IMAGE for k in range(N)]
    with pytest.raises(ValueError, match="returned 8 for 9 identifiers"):
        predict_table(table, **SETTINGS, weights=weights, images=images_too_few)
    with pytest.raises(TypeError, match="which other processes cannot import"):
        predict_table(table, **SETTINGS, weights=weights, images=lambda ids: ids)


@pytest.mark.filterwarnings("ignore")
def test_photometry_is_measured_on_images(tmp_path):
    table, path, images = write_catalogue(tmp_path, "hdf5")
    bare = table["object_id", "ra", "dec", "ebv"]
    write_parquet(bare, path)
    settings = {**SETTINGS, "weights": make_weights(tmp_path), "workers": 1}
    run_survey(path, tmp_path / "out", images=images, images_only=True, **settings)
    found = read_result(tmp_path / "out")
    order = np.argsort(np.asarray(table["object_id"]))
    wanted = expected(table, photometry=False)["redshift"].median().value[order]
    np.testing.assert_allclose(found["redshift_median"], wanted, rtol=2e-4)
    assert np.isnan(wanted).tolist() == (order == NO_IMAGE).tolist()
    with pytest.raises(ValueError, match="images_only is set, but there are no images"):
        predict_table(bare, **SETTINGS, images_only=True)


@pytest.mark.filterwarnings("ignore")
def test_other_images_are_refused_by_name(tmp_path):
    _, path, images = write_catalogue(tmp_path, "hdf5")
    settings = {**SETTINGS, "weights": make_weights(tmp_path), "rows": 4, "workers": 1}
    run_survey(path, tmp_path / "out", images=images, shard=(1, 3), **settings)
    with pytest.raises(ManifestError, match="the option pixel-scale none, but now it is 0.4"):
        run_survey(path, tmp_path / "out", pixel_scale=0.4, workers=1)
    # Close the file.
    image_reader.cache_clear()
    with h5py.File(images, "r+") as file:
        file["flux"][2, 1, 30, 30] += 1e-6
    with pytest.raises(ManifestError, match="the images with SHA-256"):
        run_survey(path, tmp_path / "out", workers=1)


def test_sources_that_cannot_be_used(tmp_path):
    form = ImageFormat()
    with pytest.raises(FileNotFoundError, match="'nothing' do not exist"):
        image_reader("nothing", form)
    with pytest.raises(FileNotFoundError, match="the function of images nothing:f is not there"):
        image_reader("nothing:f", form)
    with pytest.raises(FileNotFoundError, match="has no HDF5, zarr, parquet or FITS files"):
        image_reader(str(tmp_path), form)
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["object_id"] = np.arange(3)
    with pytest.raises(ValueError, match="the images have no data set flux or image_array"):
        image_reader(str(path), form)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["object_id"], file["flux"] = np.arange(N), FLUX
    bare = image_reader(str(tmp_path / "b.hdf5"), form)
    with pytest.raises(ValueError, match="do not name their bands; give image_bands"):
        list(bare.read(np.array([1]), np.array([0])))
    with pytest.raises(ValueError, match="identifiers of the images are of type int64"):
        list(bare.read(np.array(["1"]), np.array([0])))
    named = image_reader(str(tmp_path / "b.hdf5"), ImageFormat(tuple("grizy"), 0.2, "nJy"))
    (cutout, missing) = named.read(np.array([8, 99]), np.array([0, 1]))
    assert missing is None and cutout.unit == u.nJy and cutout.meta["bands"] == list("griz")
    np.testing.assert_array_equal(cutout.data, FLUX[8, :4])


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_read_is_flagged_and_listed(tmp_path):
    table, path, images = write_catalogue(tmp_path, "fits")
    ids, cut = np.asarray(table["object_id"]), 2
    file = images / f"{ids[cut]}.fits"
    file.write_bytes(file.read_bytes()[:3000])
    settings = {**SETTINGS, "weights": make_weights(tmp_path), "workers": 1}
    report = run_survey(path, tmp_path / "out", images=images, **settings)
    assert report.finished and report.bad_rows == 1
    found = read_result(tmp_path / "out")
    order = np.argsort(ids)
    assert found["has_image"].to_pylist() == [k not in (cut, NO_IMAGE) for k in order]
    unread = (found["flags"].to_numpy() & Flag.FILE_NOT_READ) != 0
    assert unread.tolist() == [k == cut for k in order]
    # The galaxy has a result, from its photometry.
    assert np.isfinite(found["redshift_median"].to_numpy()).all()
    bad = parquet.read_table(tmp_path / "out" / "bad_rows").to_pylist()
    assert [row["object_id"] for row in bad] == [ids[cut]]
    assert bad[0]["reason"].startswith("the image cannot be read: ")


def test_large_identifiers_without_sign_are_found_exactly(tmp_path):
    ids = 2**60 + np.arange(N)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["object_id"], file["flux"] = ids.astype(np.uint64), FLUX
    reader = image_reader(str(tmp_path / "a.hdf5"), ImageFormat(tuple("ugriz"), 0.4))
    found = list(reader.read(np.append(ids, 2**60 + N), np.arange(N + 1)))
    for cutout, flux in zip(found[:N], FLUX, strict=True):
        np.testing.assert_array_equal(cutout.data, flux)
    assert found[N] is None
