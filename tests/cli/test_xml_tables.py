"""XML tables that refer to other files or addresses are refused without opening them."""

import bz2
import contextlib
import gzip
import socket
import threading
import urllib.request

import pytest
from astropy.table import QTable

from astrogenspec.cli import main
from astrogenspec.cli.tables import read_table

VOTABLE = """<?xml version="1.0" encoding="{encoding}"?>
{doctype}<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
 <RESOURCE><TABLE><FIELD name="mag_r" datatype="float"/><DATA>{data}</DATA></TABLE></RESOURCE>
</VOTABLE>
"""
ROW = "<TABLEDATA><TR><TD>17.5</TD></TR></TABLEDATA>"
STREAM = '<BINARY><STREAM href="{}" encoding="base64"/></BINARY>'


def votable(data=ROW, doctype="", encoding="UTF-8"):
    return VOTABLE.format(data=data, doctype=doctype, encoding=encoding).encode(encoding)


@pytest.fixture(autouse=True)
def no_requests(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail(f"an address was opened: {args[0]}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", ["t.xml", "t.vot", "t.votable", "t.xml.gz", "t.txt"])
@pytest.mark.parametrize("form", ["BINARY", "BINARY2", "FITS"])
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/t",
        "https://example.org/t",
        "ftp://example.org/t",
        "file:///etc/hostname",
        "t.bin",
    ],
)
def test_data_at_another_address_are_refused(tmp_path, name, form, address):
    path = tmp_path / name
    content = votable(STREAM.format(address).replace("BINARY", form))
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(
        OSError, match=f"{name} has its data at another address .'{address}'.*never opened"
    ):
        read_table(path)


@pytest.mark.parametrize("encoding", ["UTF-16", "ISO-8859-1"])
def test_other_encodings_are_checked(tmp_path, encoding):
    path = tmp_path / "t.xml"
    path.write_bytes(votable(STREAM.format("http://127.0.0.1:9/t"), encoding=encoding))
    with pytest.raises(OSError, match="has its data at another address"):
        read_table(path)


def test_addresses_in_the_document_type_are_refused(tmp_path):
    path = tmp_path / "t.xml"
    declared = '<!DOCTYPE VOTABLE [<!ATTLIST STREAM href CDATA "http://127.0.0.1:9/t">]>\n'
    path.write_bytes(votable('<BINARY><STREAM encoding="base64"/></BINARY>', declared))
    with pytest.raises(OSError, match="has its data at another address"):
        read_table(path)


@pytest.mark.parametrize(
    "entity",
    ['a "1"', 'a SYSTEM "file:///etc/hostname"', 'a SYSTEM "http://127.0.0.1:9/"', '% a "1"'],
)
def test_entities_are_refused(tmp_path, entity):
    path = tmp_path / "t.xml"
    path.write_bytes(
        votable(
            ROW.replace("17.5", "&a;" if entity[0] == "a" else "17.5"),
            f"<!DOCTYPE VOTABLE [<!ENTITY {entity}>]>\n",
        )
    )
    with pytest.raises(OSError, match="declares XML entities, which are never expanded"):
        read_table(path)


def test_entities_that_expand_without_limit_are_refused(tmp_path):
    path = tmp_path / "t.xml"
    lines = [f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12)]
    declared = '<!DOCTYPE VOTABLE [<!ENTITY a0 "1">' + "".join(lines) + "]>\n"
    path.write_bytes(votable(ROW.replace("17.5", "&a11;"), declared))
    with pytest.raises(OSError, match="declares XML entities"):
        read_table(path)


def test_ordinary_tables_are_read(tmp_path):
    system = '<!DOCTYPE VOTABLE SYSTEM "http://us-vo.org/xml/VOTable.dtd">\n'
    for name, content in (
        ("a.xml", votable()),
        ("b.vot", votable(doctype=system)),
        ("c.xml", b"\xef\xbb\xbf" + votable()),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_table(tmp_path / name)["mag_r"][0] == 17.5
    for k, form in enumerate(("tabledata", "binary", "binary2")):
        path = tmp_path / f"d{k}.xml"
        QTable({"mag_r": [17.5, 18.0]}).write(path, format="votable", tabledata_format=form)
        assert list(read_table(path)["mag_r"]) == [17.5, 18.0]
    QTable({"mag_r": [17.5]}).write(tmp_path / "e.csv")
    (tmp_path / "e.csv.bz2").write_bytes(bz2.compress((tmp_path / "e.csv").read_bytes()))
    assert len(read_table(tmp_path / "e.csv")) == 1


def test_malformed_tables_are_refused_by_the_reader(tmp_path):
    path = tmp_path / "t.xml"
    path.write_bytes(votable()[:200])
    with pytest.raises(OSError, match="cannot be read as a table"):
        read_table(path)


def test_the_command_line_makes_no_connection(tmp_path, capsys):
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)

        def accept():
            with contextlib.suppress(TimeoutError):
                connections.append(server.accept())

        thread = threading.Thread(target=accept)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/t"
        (tmp_path / "t.xml").write_bytes(votable(STREAM.format(address)))
        status = main(["infer", str(tmp_path / "t.xml"), "-o", str(tmp_path / "out.ecsv")])
        thread.join()
    assert status == 2
    assert "has its data at another address" in capsys.readouterr().err
    assert not connections
