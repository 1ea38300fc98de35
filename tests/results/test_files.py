"""Documents of the files of results: damaged or hostile ones end in one sentence."""

import json
import warnings
import zlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from posterior_cases import gaussian_posterior
from spectrum_cases import some_spectra

from astrogenspec import Posterior, SpectrumDraws
from astrogenspec.results.files import encoded_document, parsed_document

DEEP = "[" * 5_000 + "]" * 5_000
TEXTS = [
    "[]",
    "null",
    "3",
    '"x"',
    "",
    "{",
    "{}",
    DEEP,
    '{"layout": null}',
    '{"layout": "1"}',
    "\xff",
]


def with_checksum(document):
    document = {key: value for key, value in document.items() if key != "crc32"}
    return json.dumps(document | {"crc32": zlib.crc32(json.dumps(document).encode())})


def check_error(read, path):
    with pytest.raises((OSError, ValueError)) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(("cannot read", repr(str(path))))
    assert message.isprintable()
    assert len(message) < 500


def test_documents_round_trip():
    meta = {"a": np.float32(0.1), 3: [1.5, np.nan], "3": {"b": None}, "ü": "\n"}
    document = {"layout": 1, "meta": meta}
    again = parsed_document(encoded_document(document))
    assert again["meta"]["a"] == float(np.float32(0.1))
    assert np.isnan(again["meta"]["3"]["b"] or np.nan)
    assert parsed_document('{"layout": 1}') == {"layout": 1}


def test_a_changed_document_is_refused():
    text = encoded_document({"layout": 1, "meta": {"seed": 17}})
    with pytest.raises(ValueError, match="the checksum of the description is wrong"):
        parsed_document(text.replace("17", "18"))


# ---- posteriors


@pytest.fixture
def table(tmp_path):
    """Table of a file of a posterior, and its document."""
    gaussian_posterior(3, 20)[0].write(tmp_path / "a.ecsv", draws=True)
    table = QTable.read(tmp_path / "a.ecsv")
    return table, json.loads(table.meta["AGSPEC"])


def rewritten(table, path, text):
    table.meta["AGSPEC"] = text
    table.write(path, format="ascii.ecsv", overwrite=True)
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_posteriors_with_another_document_are_refused(table, tmp_path, text):
    check_error(Posterior.read, rewritten(table[0], tmp_path / "b.ecsv", text))


@pytest.mark.parametrize("value", [None, 3, [], {"redshift": 3}, -1])
@pytest.mark.parametrize("key", ["draws", "photometry", "meta", "n_draws", "n_galaxies", "layout"])
def test_posteriors_with_invalid_entries_are_refused(table, tmp_path, key, value):
    table, document = table
    path = rewritten(table, tmp_path / "b.ecsv", with_checksum(document | {key: value}))
    if (key, str(value)) in {("meta", "{'redshift': 3}"), ("layout", "-1")}:
        Posterior.read(path)
        return
    if (key, value) == ("n_galaxies", 3):
        assert len(Posterior.read(path)) == 3
        return
    check_error(Posterior.read, path)


@pytest.mark.parametrize(
    "population", [[], 3, "x", {"redshift": []}, {"redshift": ["a", 1]}, [["a"]]]
)
def test_posteriors_with_an_invalid_population_have_no_information(population):
    posterior = gaussian_posterior(3, 20, meta={"population": population})[0]
    with pytest.raises(ValueError, match="population"):
        posterior.information("redshift")


def test_missing_galaxies_are_found(table, tmp_path):
    path = rewritten(table[0][:2], tmp_path / "b.ecsv", table[0].meta["AGSPEC"])
    with pytest.raises(OSError, match="it has 2 galaxies instead of 3"):
        Posterior.read(path)


def test_missing_columns_are_found(table, tmp_path):
    table, _ = table
    for name in ("name", "flag", "redshift_draws"):
        part = table.copy()
        part.remove_column(name)
        check_error(Posterior.read, rewritten(part, tmp_path / "b.ecsv", table.meta["AGSPEC"]))


@pytest.mark.parametrize("ending", [".fits", ".fits.gz"])
def test_changed_bytes_of_fits_files_are_found(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    gaussian_posterior(3, 20)[0].write(path, draws=True)
    assert len(Posterior.read(path)) == 3
    with fits.open(path) as units:
        units[1].data["redshift_draws"][1, 2] += 0.01
        units.writeto(path, overwrite=True)
    with pytest.raises(OSError, match="cannot read .*do not match DATASUM"):
        Posterior.read(path)


def test_files_copied_by_astropy_are_read(tmp_path):
    gaussian_posterior(3, 20)[0].write(tmp_path / "a.fits", draws=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        QTable.read(tmp_path / "a.fits").write(tmp_path / "b.fits")
    assert len(Posterior.read(tmp_path / "b.fits")) == 3


# ---- spectra


def replace_document(path, text):
    with fits.open(path) as units:
        content = np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
        rest = [unit.copy() for unit in units if unit.name != "DOCUMENT"]
        fits.HDUList([*rest, fits.ImageHDU(content, name="DOCUMENT")]).writeto(path, overwrite=True)


def document_of(path):
    with fits.open(path) as units:
        return json.loads(units["DOCUMENT"].data.tobytes())


@pytest.mark.parametrize("text", ["[]", "{", "{}", DEEP, "\xff"])
def test_spectra_with_another_document_are_refused(tmp_path, text):
    path = tmp_path / "s.fits"
    some_spectra().write(path)
    replace_document(path, text)
    check_error(SpectrumDraws.read, path)


@pytest.mark.parametrize("value", [None, [], {"x": "m"}, [10**12, 2, 3]])
@pytest.mark.parametrize("key", ["shape", "checksums", "meta"])
def test_spectra_with_invalid_entries_are_refused(tmp_path, key, value):
    path = tmp_path / "s.fits"
    some_spectra().write(path)
    replace_document(path, with_checksum(document_of(path) | {key: value}))
    if key == "meta" and isinstance(value, dict):
        SpectrumDraws.read(path)
        return
    check_error(SpectrumDraws.read, path)


@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [
        ("posterior", "NAXIS1", "-1"),
        ("posterior", "NAXIS2", "999999999999"),
        ("posterior", "PCOUNT", "-1"),
        ("spectra", "NAXIS2", "-1"),
        ("spectra", "NAXIS3", "-1"),
        ("spectra", "NAXIS1", "999999999999"),
        ("spectra", "BITPIX", "'x'"),
    ],
)
def test_invalid_sizes_in_headers_are_refused(tmp_path, kind, name, number):
    path = tmp_path / "a.fits"
    if kind == "posterior":
        gaussian_posterior(3, 20)[0].write(path, draws=True)
    else:
        some_spectra().write(path)
    content = path.read_bytes()
    at = content.index(f"{name:8}=".encode(), 2880)
    card = f"{name:8}= {number:>20}".encode()
    path.write_bytes(content[:at] + card + content[at + len(card) :])
    check_error((Posterior if kind == "posterior" else SpectrumDraws).read, path)
