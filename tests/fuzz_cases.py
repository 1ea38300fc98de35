"""Random inputs of the fuzz test, and what may become of them."""

import os
import warnings

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.uncertainty import Distribution
from astropy.utils.exceptions import AstropyWarning
from astropy.utils.masked import Masked
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from specutils import Spectrum

from astrogenspec import AstroGenSpecWarning
from astrogenspec.surveys import survey_names

#: Number of cases of each entry; they are the same in every run unless this variable is set.
VARIABLE = "ASTROGENSPEC_FUZZ_CASES"
CASES = int(os.environ.get(VARIABLE, "200"))
fuzz = settings(
    max_examples=CASES,
    derandomize=VARIABLE not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: Settings of slow entries.
slow_fuzz = settings(fuzz, max_examples=max(1, CASES // 20))

#: What an unusable input may raise.
ERRORS = (ValueError, TypeError, u.UnitsError, OSError, KeyError, MemoryError, ImportError)
MAX_MESSAGE = 700


def check_message(error):
    """Check that a message consists of complete sentences on one line, of reasonable length."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    assert 15 <= len(text) <= MAX_MESSAGE, (type(error), text[:MAX_MESSAGE])
    assert text.rstrip().endswith((".", ")")), text
    assert text.isprintable(), text
    assert not isinstance(error, UnicodeError | np.linalg.LinAlgError), text


def outcome(function, *args, **kwargs):
    """Return the result, or None if the input was refused in one clear sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in (AstroGenSpecWarning, AstropyWarning):
            warnings.simplefilter("ignore", category)
        try:
            return function(*args, **kwargs)
        except ERRORS as error:
            check_message(error)
            return None


def quietly(function, *args, **kwargs):
    """Make an input without warnings; None if its own package refuses it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return function(*args, **kwargs)
        except Exception:  # of any package
            return None


NUMBERS = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, 17.3, -1.0, 99.0, 99.99, -99.0, -999.0, -9999.0, 30.0, 1e10, 9.9e99]
        + [1e300, -1e300, 1e-300, 1e-30, np.nan, np.inf, -np.inf, 50.0, 22.5, 0.02]
    ),
    st.floats(min_value=10, max_value=25),
    st.floats(allow_nan=True, allow_infinity=True),
)
DTYPES = st.sampled_from(["f8", "f4", "f2", ">f4", "i8", "i2", "?", "c16", "U9", "S9", "O"])
UNITS = st.sampled_from(
    [None, u.nmgy, u.uJy, u.nJy, u.Jy, u.ABmag, u.mag, u.dimensionless_unscaled, u.m, u.STmag]
    + [u.erg / u.s / u.cm**2 / u.Hz, u.nmgy / u.arcsec**2, u.ct, u.adu, u.Msun, u.dex(u.Msun)]
)
NAMES = st.sampled_from(
    [f"{prefix}{band}" for band in "ugriz" for prefix in ("flux_", "flux_err_", "flux_ivar_")]
    + [f"{prefix}{band}" for band in "ugriz" for prefix in ("mag_", "mag_err_", "extinction_", "")]
    + [f"{band}{suffix}" for band in "gri" for suffix in ("_err", "mag", "_ivar")]
    + ["modelMag_r", "modelMagErr_r", "modelFlux_g", "modelFluxIvar_g", "e_rmag", "ebv", "EBV"]
    + ["err_u", "Err_g", "dered_r", "petroMag_r", "petroFlux_g", "petroFluxIvar_g"]
    + ["name", "objID", "r50", "r90", "axis_ratio", "petroR50_r"]
    + ["\x00", "<script>", "é", "x" * 300]
)
SURVEY_NAMES = st.sampled_from(
    [f"{kind}{band}" for band in "gyYJ" for kind in ("flux_", "flux_err_", "flux_ivar_", "mag_")]
    + ["FLUX_G", "FLUX_IVAR_G", "MW_TRANSMISSION_G", "maskbits", "FLUX_AUTO_R", "FLUXERR_AUTO_R"]
    + [
        "MAG_AUTO_R",
        "MAGERR_AUTO_R",
        "EBV_SFD98",
        "gKronMag",
        "gKronMagErr",
        "a_g",
        "g_cmodel_flux",
    ]
    + ["g_cmodel_fluxerr", "g_cModelFlux", "g_cModelFluxErr", "mag_r_lsst", "mag_err_r_lsst"]
    + ["FLUX_VIS_SERSIC", "FLUXERR_VIS_SERSIC", "GAL_EBV", "j_m_ext", "j_msig_ext", "objectId"]
    + ["decamDR1-g", "decamDR1-g_err", "flux_twomass-J", "flux_err_twomass-J", "mag_des-r"]
    + ["mag_err_des-r", "extinction_y", "nuv_mag", "nuv_magerr", "e_bv", "MAG_GAAP_r"]
)
#: The argument ``survey``.
SURVEYS = st.one_of(
    st.none(),
    st.sampled_from(["sdss", "DES", "lsst", "2mass", "nonsense", "", 3, [], ["lsst", None]]),
    st.lists(st.sampled_from(survey_names()), min_size=1, max_size=3),
)
FORMS = st.sampled_from(
    ["array", "quantity", "masked", "masked array", "masked quantity", "list", "column"]
    + ["distribution", "two-dimensional"]
)


@st.composite
def columns(draw, n):
    """Draw n values in one of the forms that columns have."""
    values = np.array(draw(st.lists(NUMBERS, min_size=n, max_size=n)), dtype=float)
    dtype, form, unit = draw(DTYPES), draw(FORMS), draw(UNITS)
    mask = draw(st.lists(st.booleans(), min_size=n, max_size=n))

    def make():
        array = values.astype(dtype)
        if form == "list":
            return array.tolist()
        if form == "masked":
            return MaskedColumn(array, mask=mask, unit=unit)
        if form == "masked array":
            return np.ma.MaskedArray(array, mask)
        if form == "column":
            return Column(array, unit=unit)
        if form == "two-dimensional":
            return np.stack([array, array], 1)
        if form == "array":
            return array
        quantity = u.Quantity(array.astype(float), unit, subok=True)
        if form == "masked quantity":
            return Masked(quantity, mask)
        if form == "distribution":
            return Distribution(u.Quantity(np.stack([quantity, quantity], -1)))
        return quantity

    made = quietly(make)
    return values if made is None else made


@st.composite
def catalogues(draw):
    """Draw a table or mapping of up to four galaxies; in half of them the r band is usable."""
    n = draw(st.integers(min_value=0, max_value=4))
    known = st.one_of(NAMES, SURVEY_NAMES)
    names = draw(st.lists(known, min_size=0, max_size=8, unique=True))
    content = {name: draw(columns(n)) for name in names}
    if draw(st.booleans()) and n:
        content |= {"mag_r": np.full(n, 17.0), "mag_err_r": np.full(n, 0.02), "ebv": np.zeros(n)}
    table = quietly(draw(st.sampled_from([dict, Table, QTable])), content)
    return content if table is None else table


@st.composite
def cutouts(draw):
    """Draw images of one or several bands in one of the forms that images have."""
    shape = draw(
        st.sampled_from([(64, 64), (5, 64, 64), (3, 9, 9), (1, 1), (0, 4), (2, 5, 8, 8), (200,)])
    )
    rng = np.random.default_rng(draw(st.integers(min_value=0, max_value=9)))
    dtype = draw(st.sampled_from(["f4", "f8", ">f4", "i2", "c8"]))
    image = quietly(rng.normal(0, 1, shape).astype, dtype)
    some = [
        (rng.integers(max(1, image.size)), draw(NUMBERS)) for _ in range(draw(st.integers(0, 3)))
    ]
    everywhere = draw(st.one_of(st.none(), NUMBERS))

    def change():
        for index, value in some:
            image.flat[index] = value
        if everywhere is not None:
            image[...] = everywhere

    if image.size and image.dtype.kind == "f":
        quietly(change)
    unit, form = draw(UNITS), draw(st.sampled_from(["array", "quantity", "one", "list", "bands"]))
    if form == "array":
        return image
    if form == "quantity":
        quantity = quietly(u.Quantity, image, unit, subok=True)
        return image if quantity is None else quantity
    kinds = [None, StdDevUncertainty, VarianceUncertainty, InverseVariance]
    uncertainty, offset = draw(st.sampled_from(kinds)), draw(NUMBERS)
    masks = [None, np.ones(shape, bool), rng.random(shape) < 0.5, np.ones(3)]
    mask = masks[draw(st.integers(0, 3))]
    meta = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "PIXSCALE": st.one_of(NUMBERS, st.sampled_from(["wide", 0.396])),
                "BANDS": st.sampled_from(["gri", "ugriz", "g", "gg", "xyz", "", 5, None]),
                "NAME": st.sampled_from(["a", "", 5, None, "\x1b[31m", "é" * 100]),
            },
        )
    )

    def make():
        error = None if uncertainty is None else uncertainty(np.abs(image) + offset)
        return NDData(image, unit=unit, uncertainty=error, mask=mask, meta=meta)

    data = quietly(make)
    if data is None:
        return image
    if form == "one":
        return data
    if form == "list":
        return [data] * draw(st.integers(0, 2))
    return dict.fromkeys(draw(st.lists(st.sampled_from([*"ugrizy", "", 3]), max_size=4)), data)


@st.composite
def spectra(draw):
    """Draw a spectrum with bad pixels, gaps, any order and any unit."""
    n = draw(st.sampled_from([1, 2, 3, 50, 400]))
    rng = np.random.default_rng(draw(st.integers(min_value=0, max_value=9)))
    axes = {"random": np.sort(rng.uniform(3500, 9500, n)), "regular": np.linspace(3800, 9000, n)}
    wavelength = axes[draw(st.sampled_from(["random", "regular"]))][
        :: draw(st.sampled_from([1, -1]))
    ]
    flux = rng.normal(20, 1, n)
    for _ in range(draw(st.integers(0, 3))):
        flux[rng.integers(n)] = draw(NUMBERS)
    factor = draw(st.sampled_from([1.0, 1.0, 0.0, 1e-300, 1e-17, 1e300, -1.0]))
    unit = draw(
        st.sampled_from(
            ["1e-17 erg / (s cm2 AA)", "mJy", "", "nmgy", "MJy / sr", "ph / (s cm2 AA)", "m", "adu"]
        )
    )
    error = draw(st.one_of(st.none(), NUMBERS))
    masked = draw(st.sampled_from([None, 0.0, 0.3, 1.0]))
    redshift = draw(st.sampled_from([None, 0.0, 0.05, 3.0]))

    def make():
        return Spectrum(
            flux=flux * factor * u.Unit(unit),
            spectral_axis=wavelength * u.AA,
            uncertainty=None if error is None else StdDevUncertainty(np.full(n, error)),
            mask=None if masked is None else rng.random(n) < masked,
            redshift=redshift,
        )

    spectrum = quietly(make)
    if spectrum is None:
        spectrum = Spectrum(flux=np.ones(n) * u.Jy, spectral_axis=np.arange(1, n + 1) * u.um)
    return spectrum


_KEYS = [b"NAXIS1", b"NAXIS2", b"NAXIS3", b"BITPIX", b"NAXIS ", b"PCOUNT", b"GCOUNT", b"TFIELDS"]
_KEYS += [b"BUNIT", b"XTENSION", b"TFORM1", b"TTYPE1", b"EXTNAME", b"SIMPLE", b"BSCALE"]
_VALUES = [b"-720", b"0", b"-1", b"999999999999", b"'x'", b"1e9", b"NaN"]


@st.composite
def damages(draw):
    """Draw a function that damages the content of a file."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "header", "zero"]))
    place, value = draw(st.floats(0, 1)), draw(st.integers(0, 255))
    key, number = draw(st.sampled_from(_KEYS)), draw(st.sampled_from(_VALUES))

    def damage(content):
        k = int(place * (len(content) - 1))
        if kind == "cut":
            return content[:k]
        if kind == "zero":
            return content[:k] + bytes(len(content) - k)
        if kind == "insert":
            return content[:k] + bytes([value]) * 7 + content[k:]
        if kind == "header" and (at := content.find(key)) >= 0:
            card = key.ljust(8) + b"= " + number.rjust(20)
            return content[:at] + card + content[at + len(card) :]
        return content[:k] + bytes([value]) + content[k + 1 :]

    return damage


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)

CELLS = st.sampled_from(
    ["17.2", "0.02", "", "nan", "null", "N/A", "-", "99.99", "-9999", "1e400", "inf", "abc", '"']
    + ["<b>", "0x10", "\x1b[31m", "é"]
)
HEADS = st.sampled_from(
    ["mag_g", "mag_err_g", "mag_r", "mag_err_r", "u", "err_u", "Err_g", "name", "ebv", "z"]
    + ["flux_i", "modelMag_r", "redshift", "mag_y", "mag_err_y", "flux_g", "flux_ivar_g", "type"]
)
OPTIONS = st.sampled_from(
    ["--on-error", "flag", "--bands", "gri", "--flux-unit", "nmgy", "--draws", "2", "-q"]
    + ["--survey", "lsst", "--survey", "legacy-dr10,2mass"]
)


@st.composite
def csv_files(draw):
    """Draw the text of a table."""
    heads = draw(st.lists(HEADS, max_size=6, unique=True))
    rows = draw(st.lists(st.lists(CELLS, min_size=6, max_size=6), max_size=3))
    lines = [",".join(heads), *(",".join(row[: len(heads)]) for row in rows)]
    return "\n".join(lines) + "\n"
