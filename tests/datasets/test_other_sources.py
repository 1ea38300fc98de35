"""Cutouts of the Legacy Surveys, and images of the Multimodal Universe."""

import io
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from dataset_cases import blob

from astrogenspec.datasets.folders import read_columns
from astrogenspec.datasets.legacy import LegacySurvey
from astrogenspec.datasets.multimodal import MultimodalUniverse
from astrogenspec.datasets.sources import build_dataset
from astrogenspec.datasets.transfers import Client

SCALE = 0.262
NOISE = 0.004


def make_table(n=3):
    """Galaxies close together, with the columns of the Legacy Surveys."""
    table = QTable(
        {
            "name": [f"{1000 + k}" for k in range(n)],
            "ra": 230.3 + 0.01 * np.arange(n),
            "dec": np.full(n, 15.0),
            "ebv": np.zeros(n),
            "redshift": np.linspace(0.05, 0.1, n) * u.one,
        }
    )
    for band, flux in {"g": 60.0, "r": 100.0, "i": 130.0, "z": 150.0}.items():
        table[f"flux_{band}"] = np.full(n, flux)
        table[f"flux_ivar_{band}"] = np.full(n, (0.02 * flux) ** -2)
    return table


def cube(seed, size):
    """Images in g, r, i, z of a round galaxy."""
    rng = np.random.default_rng(seed)
    planes = [
        flux * blob((size, size), (size - 1) / 2, (size - 1) / 2, 6.0)
        + NOISE * rng.standard_normal((size, size))
        for flux in (60.0, 100.0, 130.0, 150.0)
    ]
    return np.array(planes, dtype="f4")


class Viewer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        self.server.queries.append(query)
        if abs(float(query["ra"]) - 230.31) < 1e-4:
            self.send_error(404)
            return
        size = int(query["size"])
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [float(query["ra"]), float(query["dec"])]
        wcs.wcs.crpix = [(size + 1) / 2] * 2
        wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
        header = wcs.to_header()
        header["BANDS"] = query["bands"]
        stream = io.BytesIO()
        fits.PrimaryHDU(cube(0, size), header).writeto(stream)
        self.send_response(200)
        self.send_header("Content-Length", str(len(stream.getvalue())))
        self.end_headers()
        self.wfile.write(stream.getvalue())


@contextmanager
def viewer():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Viewer)
    server.queries = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.queries
    finally:
        server.shutdown()
        server.server_close()


def test_cutouts_of_the_legacy_surveys(tmp_path):
    with viewer() as (address, queries):
        source = LegacySurvey(make_table(), Client(per_second=1000), viewer=address)
        assert source.cost().n_requests == 3
        manifest = build_dataset(source, tmp_path / "out", progress=False)
    assert manifest["failed"] == 1 and manifest["requests"] == 3
    assert queries[0]["layer"] == "ls-dr10" and queries[0]["bands"] == "griz"
    assert float(queries[0]["pixscale"]) == SCALE and int(queries[0]["size"]) == 109
    columns, filters = read_columns(tmp_path / "out" / "train")
    assert filters == ("decamDR1-g", "decamDR1-r", "decamDR1-i", "decamDR1-z")
    np.testing.assert_allclose(columns["flux"][:, 1], 100, rtol=1e-5)
    rows = {name.decode(): k for k, name in enumerate(columns["name"])}
    has_image = (columns["ivar"] > 0).any((2, 3))
    assert list(has_image[rows["1000"]]) == [False, True, True, True, True]
    assert not has_image[rows["1001"]].any()
    # In the filters of SDSS and 25 arcsec: r differs from that of DECam by a few hundredths of a
    # magnitude.
    total = columns["image"][rows["1000"], 2].sum(dtype=float)
    assert total == pytest.approx(100, rel=0.1)
    assert abs(total - 100) > 0.1
    # As deep as SDSS, not deeper.
    noise = columns["ivar"][rows["1000"], 2].max() ** -0.5
    assert noise == pytest.approx(0.029, rel=0.1)


def write_universe(path, names, size=112):
    images = np.array([cube(k, size) for k in range(len(names))])
    with h5py.File(path, "w") as file:
        file["object_id"] = np.array([int(name) for name in names])
        file["image_band"] = np.array([[b"DES-G", b"DES-R", b"DES-I", b"DES-Z"]] * len(names))
        file["image_array"] = images
        file["image_ivar"] = np.full(images.shape, NOISE**-2, "f4")
        file["image_scale"] = np.full((len(names), 4), SCALE, "f4")
    return images


def test_images_of_the_multimodal_universe(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = make_table(4)
    names = list(table["name"][:3])
    (tmp_path / "healpix=1").mkdir()
    images = write_universe(tmp_path / "healpix=1" / "001.hdf5", names[:2])
    image = {
        "band": ["DES-G", "DES-R", "DES-I", "DES-Z"],
        "flux": cube(0, 112).tolist(),
        "ivar": np.full((4, 112, 112), NOISE**-2).tolist(),
        "scale": [SCALE] * 4,
    }
    content = pa.table({"object_id": [names[2]], "image": [image]})
    parquet.write_table(content, tmp_path / "part.parquet")
    source = MultimodalUniverse(table, [tmp_path])
    first = source.image(names[0], 0)
    np.testing.assert_array_equal(first["r"].data, images[0, 1])
    np.testing.assert_allclose(source.image(names[2], 2)["r"].data, images[0, 1], rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="no file has the image of the object 1003"):
        source.image("1003", 3)
    manifest = build_dataset(source, tmp_path / "out", progress=False)
    assert manifest["failed"] == 1 and sum(manifest["galaxies"].values()) == 4
    columns, _ = read_columns(tmp_path / "out" / "train")
    rows = {name.decode(): k for k, name in enumerate(columns["name"])}
    # The same galaxy from both kinds of file; noise was added up to that of SDSS.
    totals = columns["image"].sum((2, 3), dtype=float)[:, 1:]
    np.testing.assert_allclose(totals[rows["1002"]], totals[rows["1000"]], rtol=0.3)
    assert not (columns["ivar"][rows["1003"]] > 0).any()
    assert (columns["ivar"][rows["1001"], 1:] > 0).mean() > 0.99


def test_no_files_of_the_multimodal_universe(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no files"):
        MultimodalUniverse(make_table(), [tmp_path])


def spectrum_of(k, n=3000):
    """Wavelength, flux, inverse variance and mask of a spectrum, with padding at the end."""
    wavelength = 10 ** (3.58 + 1e-4 * np.arange(n))
    flux, ivar = np.full(n, 5.0 + k), np.full(n, 4.0)
    mask = np.zeros(n, bool)
    mask[100:110] = True
    wavelength[-50:], ivar[-50:] = -1, 0
    return wavelength, flux, ivar, mask


def test_spectra_of_the_multimodal_universe(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = make_table(5)
    names = list(table["name"])
    parts = [spectrum_of(k) for k in range(2)]
    with h5py.File(tmp_path / "sdss.hdf5", "w") as file:
        file["object_id"] = np.array([int(name) + 500 for name in names[:2]])
        for k, column in enumerate(("lambda", "flux", "ivar", "mask")):
            file[f"spectrum_{column}"] = np.stack([part[k] for part in parts])
    wavelength, flux, ivar, mask = spectrum_of(2)
    entry = {"lambda": wavelength, "flux": flux, "ivar": ivar, "mask": mask}
    entry = {key: values.tolist() for key, values in entry.items()}
    content = pa.table({"object_id": [f"{int(names[2]) + 500}"], "spectrum": [entry]})
    parquet.write_table(content, tmp_path / "part.parquet")
    with h5py.File(tmp_path / "desi.hdf5", "w") as file:
        file["object_id"] = np.array([int(names[3]) + 500])
        file["spectrum_flux"], file["spectrum_ivar"] = np.full((2, 1, 6001), 8.0)
        file["spectrum_lambda_min"], file["spectrum_lambda_max"] = [3600.0], [9600.0]
    table["spectrum"] = [f"{int(name) + 500}" for name in names]
    source = MultimodalUniverse(table, [tmp_path])
    assert source.has_spectra and not source.has_images
    first = source.spectrum(names[1], 1)
    assert len(first.flux) == 2950 and (first.flux[:100] == 6).all()
    assert (first.ivar[100:110] == 0).all() and (first.ivar[:100] == 4).all()
    assert source.spectrum(names[2], 2).flux[0] == 7
    np.testing.assert_allclose(source.spectrum(names[3], 3).wavelength[:2], [3600, 3601])
    manifest = build_dataset(source, tmp_path / "out", progress=False)
    assert sum(manifest["galaxies"].values()) == 5 and manifest["failed"] == 1
    columns, _ = read_columns(tmp_path / "out" / "train")
    rows = {name.decode(): k for k, name in enumerate(columns["name"])}
    seen = columns["spectrum"][rows[names[0]]]
    np.testing.assert_allclose(seen[columns["spectrum_ivar"][rows[names[0]]] > 0], 5.0, rtol=1e-6)
    assert not columns["spectrum_ivar"][rows[names[4]]].any()


def test_files_that_are_not_of_the_multimodal_universe(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = [1]
    with pytest.raises(ValueError, match="has no object_id"):
        MultimodalUniverse(make_table(), [tmp_path])
    with h5py.File(tmp_path / "other.hdf5", "a") as file:
        file["object_id"] = [1]
    with pytest.raises(ValueError, match="neither images nor spectra"):
        MultimodalUniverse(make_table(), [tmp_path])
