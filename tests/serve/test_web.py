"""Tests of the server over HTTP: answers, downloads, and what protects the machine."""

import http.client
import json
import re
from contextlib import closing
from urllib.parse import urlsplit

import numpy as np
import pytest
from astropy.io import ascii as astropy_ascii

from astrogenspec import Posterior
from astrogenspec.serve.web import ServerSettings

MAGNITUDES = {"g": [17.8, 0.03], "r": [17.1, 0.03], "i": [16.8, 0.03]}


class Client:
    """Requests with any header and path, which a browser would not send."""

    def __init__(self, address):
        self.place = urlsplit(address)

    def send(self, method, path, body=None, *, prefix=None, **headers):
        connection = http.client.HTTPConnection(self.place.hostname, self.place.port, timeout=120)
        prefix = self.place.path.rstrip("/") if prefix is None else prefix
        with closing(connection):
            connection.request(method, prefix + path, body, headers)
            reply = connection.getresponse()
            return reply, reply.read()

    def ask(self, path, **asked):
        reply, content = self.send("POST", path, json.dumps(asked).encode())
        return reply.status, json.loads(content)

    def infer(self, fields=(), files=()):
        parts = []
        for key, value in dict(fields).items():
            parts.append(f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n')
        for name, text in files:
            parts.append(
                f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
                f"Content-Type: application/octet-stream\r\n\r\n{text}\r\n"
            )
        body = ("".join(parts) + "--x--\r\n").encode()
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        reply, content = self.send("POST", "/api/infer", body, **kind)
        return reply.status, json.loads(content)


@pytest.fixture(scope="module")
def client(address):
    return Client(address)


@pytest.fixture(scope="module")
def answer(client):
    fields = {"survey": "sdss", "ebv": 0.03, "magnitudes": json.dumps(MAGNITUDES), "name": "mine"}
    status, found = client.infer(fields)
    assert status == 200
    return found


def test_typed_magnitudes_are_inferred(answer):
    galaxies = answer["content"]["galaxies"]
    assert galaxies["name"] == ["mine"]
    assert 0.02 < galaxies["redshift"][0] < 0.25
    assert answer["images"] == []
    assert answer["sliders"][0]["key"] == "redshift"


def test_downloads_hold_the_same_posterior(client, answer, tmp_path):
    place = f"/api/result/{answer['result']}"
    reply, content = client.send("GET", f"{place}/posterior.fits")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="posterior.fits"'
    (tmp_path / "posterior.fits").write_bytes(content)
    posterior = Posterior.read(tmp_path / "posterior.fits")
    median = posterior["stellar_mass"].median().value[0]
    shown = answer["content"]["galaxies"]["stellar_mass"][0]
    assert median == pytest.approx(shown, rel=1e-5)
    _, content = client.send("GET", f"{place}/galaxies.csv")
    table = astropy_ascii.read(content.decode(), format="csv")
    column = next(name for name in table.colnames if name.startswith("stellar_mass_median"))
    assert "dex(solMass)" in column
    assert table[column][0] == pytest.approx(median, rel=1e-5)
    reply, content = client.send("GET", f"{place}/galaxies.html")
    assert reply.status == 200 and b"mine" in content


def test_fixed_redshift_moves_the_mass(client, answer):
    asked = {"result": answer["result"], "row": 0}
    masses = {}
    for z in (0.04, 0.2):
        status, found = client.ask("/api/what-if", known={"redshift": z}, **asked)
        assert status == 200
        galaxies = found["content"]["galaxies"]
        np.testing.assert_allclose(
            [galaxies[f"redshift{end}"][0] for end in ("_low", "", "_high")], z, rtol=1e-5
        )
        masses[z] = galaxies["stellar_mass"][0]
    # Five times the distance, and about 25 times the luminosity.
    assert masses[0.2] - masses[0.04] == pytest.approx(2 * np.log10(5), abs=0.4)


def test_spectrum_has_the_fixed_redshift(client, answer):
    status, found = client.ask(
        "/api/spectrum", result=answer["result"], row=0, known={"redshift": 0.1}
    )
    assert status == 200
    assert found["content"]["spectra"]["redshift"][0] == pytest.approx(0.1, abs=1e-5)
    assert client.send("GET", f"/api/result/{answer['result']}/spectra.fits")[0].status == 404


def test_image_is_decoded_for_other_values(client):
    _, content = client.send("GET", "/api/start")
    example = json.loads(content)["example"]
    status, found = client.ask("/api/traverse", result=example["result"], row=0, quantity="sfr")
    assert status == 200
    assert found["values"] == sorted(found["values"]) and len(set(found["values"])) == 9
    assert len({picture["data"] for picture in found["pictures"]}) == 9


@pytest.mark.parametrize(
    ("path", "asked", "status", "message"),
    [
        ("/api/what-if", {"result": "unknown"}, 404, "not in memory"),
        ("/api/what-if", {"row": 7}, 404, "number 7"),
        ("/api/what-if", {"known": {"sfr": 1.0}}, 400, "gap|first|redshift"),
        ("/api/what-if", {"known": {"redshift": 7.0}}, 400, "redshift"),
        ("/api/what-if", {"known": {"redshift": "x"}}, 400, "known must map"),
        ("/api/what-if", {"result": None}, 400, "no result and row"),
        ("/api/traverse", {"quantity": "sfr"}, 400, "no image"),
    ],
)
def test_questions_are_checked(client, answer, path, asked, status, message):
    found, reply = client.ask(path, **({"result": answer["result"]} | asked))
    assert found == status
    assert re.search(message, reply["error"])


def test_errors_are_sentences_without_folders(client):
    status, reply = client.infer(files=[("a.csv", "x,y\n1,2\n")])
    assert status == 400
    assert "/tmp" not in reply["error"] and reply["error"].endswith(".")
    assert client.infer(files=[("a.h5", "x")])[0] == 400
    status, reply = client.infer({"ebv": "much"}, [("a.csv", "x\n1\n")])
    assert status == 400 and "E(B-V) is 'much'" in reply["error"]
    rows = "".join(f"{18 + k / 10},0.1\n" for k in range(6))
    status, reply = client.infer(files=[("a.csv", f"mag_r,mag_err_r\n{rows}")])
    assert status == 400 and "6 galaxies, more than the 5" in reply["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/web.py",
        "/api/result/x/../../web.py",
    ],
)
def test_no_file_of_the_machine_is_served(client, path):
    reply, content = client.send("GET", path)
    assert reply.status == 404
    assert b"root:" not in content and b"import" not in content


def test_only_this_server_is_answered(client, answer):
    assert client.send("GET", "/", Host="evil.example")[0].status == 403
    assert client.send("GET", "/", Host="astro.example.edu")[0].status == 200
    body = json.dumps({"result": answer["result"], "known": {"redshift": 0.1}}).encode()
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("https://astro.example.edu", 200),
    ):
        assert client.send("POST", "/api/what-if", body, Origin=origin)[0].status == status


def test_headers_keep_everything_else_out(client):
    reply, content = client.send("GET", "/")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert b"http" not in content
    assert client.send("GET", "/", prefix="")[0].status == 200


def test_large_uploads_are_refused(client):
    body = b"x" * 1_200_000
    try:
        reply, _ = client.send("POST", "/api/infer", body)
        assert reply.status >= 400
    except (BrokenPipeError, ConnectionResetError):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix": "galaxies"}, "prefix"),
        ({"prefix": "/galaxies/"}, "prefix"),
        ({"origins": ("astro.example.edu",)}, "origin"),
        ({"max_upload": 0}, "max_upload"),
        ({"max_galaxies": -1}, "max_galaxies"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ServerSettings(**settings)


def test_default_address_is_local():
    assert ServerSettings().host == "127.0.0.1"
    assert ServerSettings().hosts(8050) == {"127.0.0.1:8050", "localhost:8050", "[::1]:8050"}
