"""Observations: flags of images and photometry, errors that name their galaxy, batches."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty

from astrogenspec import coerce_cutouts, coerce_photometry, decode_flags
from astrogenspec.flags import Flag
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.errors import INPUT_ERRORS, InputLog, galaxy_of, rewrite_error
from astrogenspec.inputs.observations import InputOptions, ObservationBatches, observe

G = {"g": [10, -1, np.nan] * u.nmgy, "g_err": [1, 0, 1] * u.nmgy, "ebv": 0.0}


def image(good=True):
    """A noisy image of a galaxy, or one without finite pixels."""
    rng = np.random.default_rng(3)
    y, x = np.indices((64, 64)) - 31.5
    flux = 3 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, 0.02, x.shape)
    return CCDData(
        flux if good else np.full_like(flux, np.nan),
        unit=u.nmgy,
        uncertainty=StdDevUncertainty(np.full(flux.shape, 0.02)),
        meta={"PIXSCALE": 0.396},
    )


def test_flag_codes_of_records():
    batch = coerce_photometry(G | {"r50": [1, 1, -1] * u.arcsec}, on_error="flag")
    assert batch.flag_codes.tolist() == [0, Flag.PHOTOMETRY_NOT_USED, Flag.PHOTOMETRY_NOT_USED]
    assert batch.morphology.flag_codes.tolist() == [0, 0, Flag.MORPHOLOGY_NOT_USED]
    assert batch[1:].flag_codes.tolist() == batch.flag_codes[1:].tolist()
    cutouts = coerce_cutouts([{"r": image()}, {"r": image(False)}, None], on_error="flag")
    assert cutouts.flag_codes.tolist() == [0, Flag.IMAGE_NOT_USED, 0]
    given = CutoutBatch(cutouts.flux, cutouts.ivar, problems=("", "bad", ""))
    assert given.flag_codes.tolist() == [0, Flag.IMAGE_NOT_USED, 0]
    with pytest.raises(ValueError, match=r"flag_codes has shape \(2,\), but it must be \(3,\)"):
        CutoutBatch(cutouts.flux, cutouts.ivar, flag_codes=np.zeros(2, int))


def test_flag_codes_of_observations():
    cutouts = coerce_cutouts([{"r": image()}, {"r": image()}, {"r": image(False)}], on_error="flag")
    seen = observe(cutouts, coerce_photometry(G, on_error="flag"), on_error="flag")
    assert decode_flags(seen.flag_codes) == [
        [],
        ["photometry_not_used", "photometry_replaced"],
        ["image_not_used", "photometry_not_used", "no_data"],
    ]
    assert [bool(text) for text in seen.flags] == [False, True, True]
    assert seen.usable.tolist() == [True, True, False]
    nothing = observe(coerce_cutouts([None]), None, ebv=0.0, on_error="flag")
    assert decode_flags(nothing.flag_codes) == [["no_data"]]
    assert nothing.flags == ("neither an image nor photometry is available",)


def test_unmeasurable_photometry_is_flagged():
    blank = image()
    blank.data = np.random.default_rng(4).normal(0, 0.02, blank.data.shape)
    seen = observe(coerce_cutouts([{"r": blank}]), None, ebv=0.0)
    assert decode_flags(seen.flag_codes) == [["photometry_not_measured"]]


@pytest.mark.parametrize("as_iterator", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_errors_have_the_index_of_the_galaxy(as_iterator, batch_size):
    galaxies = [{"r": image(k != 3)} for k in range(5)]
    options = InputOptions(ebv=0.0)
    given = iter(galaxies) if as_iterator else galaxies
    batches = ObservationBatches(given, None, options, batch_size=batch_size)
    with pytest.raises(ValueError, match="^galaxy 3: no band has a usable pixel") as error:
        list(batches)
    assert galaxy_of(error.value) == 3


def test_names_are_indices_of_the_whole_input():
    galaxies = [{"r": image()} for _ in range(3)]
    batches = ObservationBatches(galaxies, None, InputOptions(ebv=0.0), batch_size=2)
    assert [name for batch in batches for name in batch.names] == ["0", "1", "2"]


def test_errors_of_photometry_have_the_index_of_the_galaxy():
    with pytest.raises(ValueError, match="galaxy 1: g_err is 0") as error:
        coerce_photometry(G)
    assert galaxy_of(error.value) == 1
    rows = [{"g": 1 * u.nmgy, "g_err": 1 * u.nmgy, "ebv": 0}, {"g": 1, "g_err": 1}]
    with pytest.raises(u.UnitTypeError, match="galaxy 1: g has no unit") as error:
        coerce_photometry(rows)
    assert galaxy_of(error.value) == 1


def test_errors_of_the_call_have_no_galaxy():
    with pytest.raises(ValueError, match="ebv was given both") as error:
        coerce_photometry(G, ebv=0.1)
    assert galaxy_of(error.value) is None


@pytest.mark.parametrize("kind", [*INPUT_ERRORS, u.UnitConversionError, u.UnitTypeError])
def test_errors_keep_their_type(kind):
    error = InputLog(2, "raise", first=5).error(1, kind("wrong"))
    assert type(error) is kind and str(error) == "galaxy 6: wrong"
    again = rewrite_error(error, "file: wrong")
    assert type(again) is kind and galaxy_of(again) == 6


def test_a_special_error_becomes_its_parent_type():
    error = UnicodeDecodeError("utf8", b"", 0, 1, "wrong")
    assert type(rewrite_error(error, "wrong")) is ValueError


def named_image(name):
    picture = image()
    picture.meta["NAME"] = name
    return {"r": picture}


@pytest.mark.parametrize("ids", [["1", "0", "2"], [1, 0, 2], ["10", "11", "12"]])
def test_numbers_given_as_names_are_compared(ids):
    cutouts = [named_image(name) for name in ids]
    table = G | {"name": ["0", "1", "2"]}
    for size in (1, 256):
        batches = ObservationBatches(cutouts, table, InputOptions(on_error="flag"), batch_size=size)
        with pytest.raises(ValueError, match=f"the name is '{ids[0]}' in cutouts but '0' in phot"):
            list(batches)


@pytest.mark.parametrize("size", [1, 2, 256])
@pytest.mark.parametrize("as_iterator", [False, True])
def test_integer_names_of_images_are_kept(size, as_iterator):
    given = [named_image(k) for k in (2, 3, 0, 1)]
    for table in (None, {"r": [17.0] * 4 * u.ABmag, "r_err": 0.1 * u.mag, "ebv": 0.0}):
        batches = ObservationBatches(
            iter(given) if as_iterator else given,
            table,
            InputOptions(ebv=0.0 if table is None else None),
            batch_size=size,
        )
        parts = list(batches)
        assert [name for part in parts for name in part.names] == ["2", "3", "0", "1"]
        assert all(part.named.all() for part in parts)


def test_unnamed_galaxies_take_the_name_of_the_other_input():
    table = G | {"name": ["7", "", "9"]}
    cutouts = [{"r": image()}, named_image("a"), None]
    (seen,) = ObservationBatches(cutouts, table, InputOptions(on_error="flag"))
    assert seen.names == ("7", "a", "9") and seen.named.all()
    (seen,) = ObservationBatches([{"r": image()}] * 3, G, InputOptions(on_error="flag"))
    assert seen.names == ("0", "1", "2") and not seen.named.any()
    masked = np.ma.array(["a", "b", "c"], mask=[0, 1, 0])
    names = coerce_photometry(G | {"name": masked}, on_error="flag")
    assert names.names == ("a", "1", "c") and names.named.tolist() == [True, False, True]
    assert names[1:].named.tolist() == [False, True]


@pytest.mark.parametrize("argument", ["ebv", "photometry", "required"])
@pytest.mark.parametrize("n", [2, 4])
def test_iterators_of_another_length_are_errors(argument, n):
    table = {"r": [17.0] * 3 * u.ABmag, "r_err": 0.1 * u.mag, "ebv": 0.0}
    options = InputOptions(ebv=None if argument == "photometry" else [0.1] * 3)
    given = iter([{"r": image()}] * n)
    batches = ObservationBatches(
        given, table if argument == "photometry" else None, options, batch_size=2
    )
    if argument == "required":
        batches = ObservationBatches(
            iter([{"r": image()}] * n), None, InputOptions(ebv=0.0), batch_size=2
        )
        batches.require(3, "theta")
    with pytest.raises(ValueError, match=r"theta has 3 rows|ebv has shape \(3,\)|photometry 3"):
        list(batches)
