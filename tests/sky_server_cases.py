"""A loopback server with the layout of SDSS: catalogue, frames and spectra of a small survey.

    python tests/sky_server_cases.py --port 8123 --runs 8 --fields 6

serves it until it is interrupted; ``astrogenspec dataset sdss --mirror http://127.0.0.1:8123``
downloads from it.
"""

import argparse
import bz2
import io
import re
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits
from dataset_cases import BANDS, COLOUR, SIGMA, blob, spectrum_columns, wcs_at

from astrogenspec.datasets.sdss_catalogue import COLUMNS, run_range
from astrogenspec.surveys import SDSS

SHAPE = (160, 240)
PIXEL = 0.396 / 3600
#: Counts per nanomaggy such that the noise of the sky is about `SIGMA`.
CALIBRATION = {"u": 0.008, "g": 0.004, "r": 0.005, "i": 0.007, "z": 0.03}


def make_frame(run, camcol, band, ra, dec, galaxies):
    """Corrected frame (bytes of a FITS file) with galaxies of given flux at given positions."""
    rng = np.random.default_rng(run)
    wcs = wcs_at(ra, dec, SHAPE)
    image = SIGMA[band] * rng.standard_normal(SHAPE)
    for galaxy in galaxies:
        x, y = wcs.all_world2pix([[galaxy["ra"], galaxy["dec"]]], 0)[0]
        image += galaxy["flux"] * COLOUR[band] * blob(SHAPE, x, y, 3.0)
    header = wcs.to_header()
    header["FILTER"], header["RUN"], header["CAMCOL"], header["BUNIT"] = band, run, camcol, "nmgy"
    calibration = np.full(SHAPE[1], CALIBRATION[band], "f4")
    sky = fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", "12E", dim="(4,3)", array=np.full((1, 3, 4), 100.0)),
            fits.Column("XINTERP", f"{SHAPE[1]}E", array=np.linspace(0, 3, SHAPE[1])[None]),
            fits.Column("YINTERP", f"{SHAPE[0]}E", array=np.linspace(0, 2, SHAPE[0])[None]),
        ]
    )
    hdus = fits.HDUList(
        [fits.PrimaryHDU(image.astype("f4"), header), fits.ImageHDU(calibration), sky]
    )
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def make_spectrum(redshift, seed):
    """A ``spec`` file (bytes)."""
    loglam, flux, ivar, mask = spectrum_columns(redshift, seed)
    columns = [
        fits.Column("flux", "E", array=flux),
        fits.Column("loglam", "E", array=loglam),
        fits.Column("ivar", "E", array=ivar),
        fits.Column("and_mask", "J", array=mask),
    ]
    stream = io.BytesIO()
    table = fits.BinTableHDU.from_columns(columns, name="COADD")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream)
    return stream.getvalue()


def catalogue_row(rng, run, field, k, ra, dec, field_position):
    """One galaxy as the catalogue server lists it."""
    flux = 10 ** rng.uniform(1.7, 2.3)
    row = dict.fromkeys(COLUMNS, 0.0)
    row |= {
        "objID": run_range(run)[0] + (1 << 29) + (field << 16) + k,
        "specObjID": 10**18 + run * 10**6 + field * 10**3 + k,
        "ra": ra,
        "dec": dec,
        "run": run,
        "camcol": 1,
        "field": field,
        "plate": run,
        "mjd": 51602,
        "fiberID": field * 10 + k,
        "run2d": "26",
        "z": rng.uniform(0.06, 0.14),
        "velDisp": 150.0,
        "velDispErr": 10.0,
        "bptclass": 1 if k % 2 else -1,
        "oh_p50": 9.0 if k % 2 else -9999.0,
        "lgm_tot_p50": rng.normal(10.5, 0.2),
        "sfr_tot_p50": rng.normal(0, 0.3),
        "petroR50_r": 3.0,
        "petroR90_r": 7.0,
        "deVAB_r": 0.5,
        "expAB_r": 0.7,
        "fracDeV_r": 0.5,
        "field_ra": field_position[0],
        "field_dec": field_position[1],
    }
    for band in BANDS:
        row[f"modelFlux_{band}"] = flux * COLOUR[band]
        row[f"modelFluxIvar_{band}"] = (0.02 * flux * COLOUR[band]) ** -2
        row[f"extinction_{band}"] = SDSS.extinction_coefficient[band] * 0.03
    for line, strength in {"h_alpha": 100, "h_beta": 30, "nii_6584": 40, "oiii_5007": 4}.items():
        row[f"{line}_flux"], row[f"{line}_flux_err"] = strength, 1.0
    return row, flux


class SkyCase:
    """Contents of the server, faults to come, and the requests so far.

    Parameters
    ----------
    n_runs, n_fields, n_galaxies : int
        Runs, fields of a run, galaxies of a field.
    """

    def __init__(self, n_runs=3, n_fields=2, n_galaxies=2):
        rng = np.random.default_rng(0)
        self.rows, self.files = [], {}
        self.faults: dict[str, list] = {}
        self.requests: list[tuple[str, str]] = []
        self.always: dict[str, object] = {}
        for r in range(n_runs):
            run = 756 + 100 * r
            for f in range(n_fields):
                ra, dec = 150.0 + 7.3 * r + 3.1 * f, 2.0 + 11.0 * r
                galaxies = []
                for k in range(n_galaxies):
                    offset = ((k - (n_galaxies - 1) / 2) * 70 * PIXEL, 0.0)
                    row, flux = catalogue_row(
                        rng, run, 10 + f, k, ra + offset[0], dec + offset[1], (ra, dec)
                    )
                    self.rows.append(row)
                    galaxies.append({"ra": row["ra"], "dec": row["dec"], "flux": flux})
                    name = f"spec-{row['plate']:04d}-51602-{row['fiberID']:04d}.fits"
                    folder = f"/sas/dr17/sdss/spectro/redux/26/spectra/lite/{row['plate']:04d}"
                    self.files[f"{folder}/{name}"] = make_spectrum(row["z"], k)
                for band in BANDS:
                    content = make_frame(run, 1, band, ra, dec, galaxies)
                    path = f"/sas/dr17/eboss/photoObj/frames/301/{run}/1"
                    path += f"/frame-{band}-{run:06d}-1-{10 + f:04d}.fits.bz2"
                    self.files[path] = bz2.compress(content, 1)

    def answer(self, sql):
        """Comma-separated answer of the catalogue server."""
        if "COUNT(*)" in sql:
            runs = sorted({row["run"] for row in self.rows})
            lines = [f"{run},{sum(r['run'] == run for r in self.rows)}" for run in runs]
            return "#Table1\nrun,n\n" + "\n".join(lines) + "\n"
        low, high = map(int, re.search(r"BETWEEN (\d+) AND (\d+)", sql).groups())
        lines = [
            ",".join(str(row[name]) for name in COLUMNS)
            for row in self.rows
            if low <= row["objID"] <= high
        ]
        return "#Table1\n" + ",".join(COLUMNS) + "\n" + "\n".join(lines) + "\n"


class _Handler(BaseHTTPRequestHandler):
    case: SkyCase

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        parts = urlsplit(self.path)
        self.case.requests.append((parts.path, self.headers.get("User-Agent", "")))
        waiting = self.case.faults.get(parts.path, [])
        fault = waiting.pop(0) if waiting else self.case.always.get(parts.path)
        if parts.path == "/SqlSearch":
            content = self.case.answer(parse_qs(parts.query)["cmd"][0]).encode()
        else:
            content = self.case.files.get(parts.path)
        if isinstance(fault, tuple):
            status, after = fault
            self.send_response(status)
            self.send_header("Retry-After", str(after))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif isinstance(fault, int) or content is None:
            self.send_error(fault or 404)
        else:
            self.send_content(content, fault)

    def send_content(self, content, fault):
        if isinstance(fault, bytes):
            content = fault
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), 4000):
                self.wfile.write(content[start : start + 4000])
                time.sleep(0.02)
        else:
            self.wfile.write(content)


@contextmanager
def served(case, port=0):
    """Serve a `SkyCase`; yield the address."""
    handler = type("Handler", (_Handler,), {"case": case})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--runs", type=int, default=8, help="runs of three galaxies per field")
    parser.add_argument("--fields", type=int, default=6, help="fields of a run")
    options = parser.parse_args()
    with served(SkyCase(options.runs, options.fields, 3), options.port) as address:
        sys.stdout.write(f"{3 * options.runs * options.fields} galaxies at {address}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
