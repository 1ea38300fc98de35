"""Write the curves of Roman and VISTA that are part of the package from those of sedpy.

    pip install astro-sedpy==0.4.1
    python recipes/filter_curves.py

The package ``astro-sedpy`` (MIT licence) has the effective areas of the Roman Wide Field Instrument
of 2024-03-01, the mean of its 18 detectors, and the curves of VISTA/VIRCAM with the atmosphere.
Each becomes an ECSV file with a maximum of 1, without the weak leaks outside of the band.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

FOLDER = Path(__file__).parents[1] / "astrogenspec" / "surveys" / "curves"
SOURCES = {
    "roman": (
        "roman_wfi_f{}.par",
        {f"F{name}": name for name in ("062", "087", "106", "129", "158", "184", "213")},
        "Roman technical information, effective areas of 2024-03-01, mean of 18 detectors",
    ),
    "kids": (
        "vista_vircam_{}.par",
        {name: name for name in ("Z", "Y", "J", "H", "Ks")},
        "ESO, VIRCAM filters with mirrors, detectors and atmosphere (1 mm of water, airmass 1)",
    ),
}
#: Responses relative to the maximum: the band reaches from the first to the last point above the
#: former, and its tails to where they fall below the latter.
IN_BAND, MIN_TAIL = 1e-2, 1e-3


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the files")
    out: Path = parser.parse_args().out
    for survey, (pattern, bands, source) in SOURCES.items():
        for band, name in bands.items():
            path = files("sedpy") / "data" / "filters" / pattern.format(name)
            wavelength, response = np.loadtxt(str(path), usecols=(0, 1), unpack=True)
            table = trimmed(wavelength, response / response.max())
            table.meta = {
                "group_name": survey,
                "band_name": band,
                "source": source,
                "package": f"astro-sedpy {version('astro-sedpy')}, MIT licence",
            }
            table.write(out / f"{survey}-{band}.ecsv", overwrite=True)


def trimmed(wavelength: np.ndarray, response: np.ndarray) -> QTable:
    """Return the part of a curve in the band, zero at both ends.

    Parameters
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        Angstrom.
    response : ndarray, shape (n_wavelength,)
        Response relative to its maximum.

    Returns
    -------
    QTable
    """
    first, last = np.flatnonzero(response > IN_BAND)[[0, -1]]
    while first > 0 and response[first] > MIN_TAIL:
        first -= 1
    while last < len(response) - 1 and response[last] > MIN_TAIL:
        last += 1
    part = slice(first, last + 1)
    x, y = wavelength[part], response[part].clip(0).round(5)
    y[[0, -1]] = 0
    return QTable({"wavelength": x * u.AA, "response": y})


if __name__ == "__main__":
    main()
