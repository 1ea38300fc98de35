"""Reading, writing, locating, downloading and checking the files of a model."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from astropy.config import create_config_file, reload_config, set_temp_config

from astrogenspec import weights
from astrogenspec.weights import (
    WeightsError,
    conf,
    fetch_weights,
    list_models,
    load_card,
    read_weights,
    register_weights,
    save_weights,
)

CONFIG = {"latent": 16, "blocks": [1, 2]}


@pytest.fixture
def state():
    return {
        "net.weight": torch.randn(5, 3),
        "net.steps": torch.tensor([7]),
        "net.location": torch.tensor([70000.25, 1.0 / 3.0]),
    }


@pytest.fixture
def saved(tmp_path, state):
    path = tmp_path / "model-v1.safetensors"
    return save_weights(path, state, CONFIG, {"licence": "BSD-3-Clause"}, keep=["location"])


@pytest.fixture
def mirror(tmp_path, monkeypatch, state):
    """A registry with one model that is not bundled; its files are on a mirror."""
    data, folder, cache = tmp_path / "data", tmp_path / "mirror", tmp_path / "cache"
    data.mkdir()
    folder.mkdir()
    monkeypatch.setattr(weights, "_data_folder", lambda: data)
    monkeypatch.setattr(weights, "_cache_folder", lambda: cache)
    path = folder / "big-v1.safetensors"
    save_weights(path, {"a": state["net.weight"]}, CONFIG, {"licence": "BSD-3-Clause"})
    register_weights(path, "big", lane="spectra", description="A big model.", bundled=False)
    monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_URL", folder.as_uri())
    return folder


@pytest.fixture
def web(mirror, monkeypatch):
    """The same mirror, served over http."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with _served(partial(Quiet, directory=mirror)) as address:
        monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_URL", address)
        yield mirror


@contextmanager
def _served(handler):
    """Run a server on this computer; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_round_trip_in_half_precision(saved, state):
    read, config = read_weights(saved.path)
    assert config == CONFIG
    assert list(read) == sorted(state)
    assert {t.dtype for t in read.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(read["net.weight"], state["net.weight"], rtol=5e-4, atol=1e-7)
    assert not torch.equal(read["net.weight"], state["net.weight"])
    assert torch.equal(read["net.steps"], state["net.steps"])
    assert torch.equal(read["net.location"], state["net.location"])


def test_full_precision_and_shared_memory(tmp_path):
    tied = torch.randn(4, 4)
    state = {"a": tied, "b": tied, "c": tied.T}
    path = save_weights(tmp_path / "tied.safetensors", state, {}, {}, half=False).path
    read, _ = read_weights(path)
    assert all(torch.equal(read[key], state[key]) for key in state)


def _resaved(source, path, **metadata):
    """Copy a weights file with changed metadata; None removes an entry."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(source, framework="pt") as opened:
        header = {**opened.metadata(), **metadata}
    save_file(load_file(source), path, {k: v for k, v in header.items() if v is not None})
    return path


def test_format_number_is_written(saved):
    from safetensors import safe_open

    with safe_open(saved.path, framework="pt") as opened:
        assert opened.metadata()["astrogenspec_format"] == "1"
        assert opened.metadata()["format"] == "pt"


def test_file_without_format_number_is_read_as_format_1(saved, tmp_path):
    old = _resaved(saved.path, tmp_path / "old.safetensors", astrogenspec_format=None)
    state, config = read_weights(old)
    assert config == CONFIG
    assert all(torch.equal(state[key], value) for key, value in read_weights(saved.path)[0].items())


def test_bundled_models_have_format_1():
    for name in list_models()["name"]:
        assert read_weights(fetch_weights(name).path)[1]


def test_unknown_format_raises_one_sentence(saved, tmp_path):
    new = _resaved(saved.path, tmp_path / "new.safetensors", astrogenspec_format="2")
    message = (
        r"new\.safetensors has weights format 2, but .* reads format 1; upgrade astrogenspec\.$"
    )
    with pytest.raises(WeightsError, match=message):
        read_weights(new)


def test_card_has_file_name_and_is_written_beside_the_tensors(saved):
    assert saved.card["filename"] == "model-v1.safetensors"
    assert saved.card["licence"] == "BSD-3-Clause"
    assert json.loads(saved.path.with_suffix(".json").read_text()) == saved.card


def test_half_precision_overflow_raises_and_writes_no_file(tmp_path, state):
    with pytest.raises(ValueError, match=r"'net.location' reaches 7e\+04.*name it in keep"):
        save_weights(tmp_path / "m.safetensors", state, {}, {})
    assert not list(tmp_path.iterdir())


def test_unserialisable_config_or_card_raises_and_writes_no_file(tmp_path, state):
    with pytest.raises(TypeError, match="card is not JSON-serialisable"):
        save_weights(tmp_path / "m.safetensors", state, {}, {"x": float("nan")}, half=False)
    with pytest.raises(TypeError, match="config is not JSON-serialisable"):
        save_weights(tmp_path / "m.safetensors", state, {"x": object()}, {}, half=False)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept_without_overwrite(saved, state):
    before = saved.path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_weights(saved.path, {"a": state["net.weight"]}, {}, {})
    assert saved.path.read_bytes() == before
    again = save_weights(saved.path, {"a": state["net.weight"]}, {}, {}, overwrite=True)
    assert fetch_weights(saved.path).card == again.card


def test_other_suffixes_raise(tmp_path, state):
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_weights(tmp_path / "model.pt", state, {}, {})
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"is not a .safetensors file"):
        fetch_weights(tmp_path / "model.pt")


def test_missing_folder_raises(tmp_path, state):
    with pytest.raises(FileNotFoundError, match=r"the folder .*none' does not exist"):
        save_weights(tmp_path / "none" / "m.safetensors", state, {}, {}, half=False)


def test_interrupted_write_keeps_the_old_file(saved, state, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.path.parent.iterdir()}

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("astrogenspec.weights.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved.path, {"a": state["net.weight"]}, {}, {}, overwrite=True)
    assert {path.name: path.read_bytes() for path in saved.path.parent.iterdir()} == before


def test_files_have_default_permissions(saved):
    (saved.path.parent / "plain").touch()
    wanted = (saved.path.parent / "plain").stat().st_mode
    assert saved.path.stat().st_mode == saved.path.with_suffix(".json").stat().st_mode == wanted


@pytest.mark.parametrize("convert", [str, lambda path: path])
def test_local_file_can_be_fetched_by_path(saved, convert):
    assert fetch_weights(convert(saved.path)) == saved
    saved.path.with_suffix(".json").unlink()
    assert load_card(convert(saved.path)) == saved.card


def test_files_of_older_versions_have_no_card_in_the_metadata(saved, tmp_path, caplog):
    old = _resaved(
        saved.path,
        tmp_path / "old.safetensors",
        astrogenspec_card=None,
        astrogenspec_checksum=None,
    )
    assert load_card(old) == {}
    card = saved.card | {"sha256": weights.file_sha256(old)}
    old.with_suffix(".json").write_text(json.dumps(card))
    assert load_card(old) == card
    old.with_suffix(".json").write_text(json.dumps(saved.card))
    with pytest.raises(WeightsError, match="does not match its weights file"):
        load_card(old)
    assert not caplog.records


def test_changed_bytes_are_found_without_the_card_file(saved):
    saved.path.with_suffix(".json").unlink()
    content = saved.path.read_bytes()
    for k in (content.index(b"licence"), content.index(b"latent"), len(content) - 1):
        damaged = bytearray(content)
        damaged[k] ^= 1
        saved.path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="is truncated or damaged: its checksum is wrong"):
            fetch_weights(saved.path)


def _value_and_card(path):
    """Return a number in the weights and the one in the card, which belong together."""
    found = fetch_weights(path)
    assert found.card["sha256"] == weights.file_sha256(path)
    return float(read_weights(path)[0]["a"][0]), found.card["value"]


def _save_value(path, value, **options):
    save_weights(path, {"a": torch.full((3,), float(value))}, {}, {"value": value}, **options)


@pytest.mark.parametrize("step", [1, 2])
def test_weights_and_card_match_after_an_error_in_either_step(tmp_path, monkeypatch, step):
    path, real, calls = tmp_path / "m.safetensors", os.replace, []
    _save_value(path, 1)

    def fail(source, target):
        calls.append(target)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="cannot write .*No space left on device"):
            _save_value(path, 2, overwrite=True)
    assert _value_and_card(path) == (step, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


_KILLED_SAVE = """
import os, pathlib, signal, sys
import torch
from astrogenspec.weights import save_weights
path, name, step = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
overwrite = sys.argv[4] == "True"
real, calls = getattr(os, name), []
def killed(*arguments, **options):
    calls.append(arguments)
    if len(calls) == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(os, name, killed)
save_weights(path, {"a": torch.full((3,), 2.0)}, {}, {"value": 2}, overwrite=overwrite)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and locks of POSIX")
@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [("mkdir", 1, 1), ("replace", 1, 1), ("replace", 2, 2), ("rmdir", 1, 2)],
)
def test_weights_and_card_match_after_a_kill_at_any_step(tmp_path, name, step, expected):
    path = tmp_path / "m.safetensors"
    _save_value(path, 1)
    command = [sys.executable, "-c", _KILLED_SAVE, path, name, str(step), "True"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert _value_and_card(path) == (expected, expected)
    _save_value(path, 3, overwrite=True)
    assert _value_and_card(path) == (3, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and locks of POSIX")
def test_new_weights_can_be_read_after_a_kill_before_the_card(tmp_path):
    path = tmp_path / "m.safetensors"
    command = [sys.executable, "-c", _KILLED_SAVE, path, "link", "2", "False"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert _value_and_card(path) == (2, 2)


def test_one_of_two_writers_of_new_weights_fails(tmp_path):
    path, outcomes = tmp_path / "m.safetensors", []
    start = threading.Barrier(4)

    def save(value):
        start.wait()
        try:
            _save_value(path, value)
            outcomes.append(value)
        except FileExistsError:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [value for value in outcomes if value is not None]
    assert _value_and_card(path) == (winner, winner)
    assert json.loads(path.with_suffix(".json").read_text())["value"] == winner


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "it is a JSON list, not an object"),
        ("null", "it is a JSON null, not an object"),
        ("3", "it is a JSON int, not an object"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ('{"a": NaN}', "it has the number NaN"),
        ('{"a": -Infinity}', "it has the number -Infinity"),
        ("[" * 100_000 + "]" * 100_000, "it is nested too deeply"),
        ('{"a": ' * 10_000 + "1" + "}" * 10_000, "it is nested too deeply"),
        ('{"a": [' * 100 + "1" + "]}" * 100, "it is nested too deeply"),
    ],
)
def test_cards_of_another_shape_raise(saved, text, reason):
    saved.path.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match=f"the card .*json is damaged .{reason}") as caught:
        fetch_weights(saved.path)
    assert "\n" not in str(caught.value)


def test_cards_in_another_encoding_raise(saved):
    saved.path.with_suffix(".json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(WeightsError, match="is damaged .it is not UTF-8 text"):
        fetch_weights(saved.path)


@pytest.mark.parametrize("config", ["[]", "{", "[" * 100_000])
def test_invalid_configurations_raise(saved, tmp_path, config):
    path = _resaved(saved.path, tmp_path / "other.safetensors", config=config)
    with pytest.raises(WeightsError, match="the configuration in .* is damaged"):
        read_weights(path)


def test_missing_file_raises(tmp_path):
    for read in (fetch_weights, read_weights):
        with pytest.raises(
            FileNotFoundError, match=r"the weights file .*none\.safetensors does not exist"
        ):
            read(tmp_path / "none.safetensors")


@pytest.mark.parametrize("length", [0, 4, 60, -1])
def test_truncated_file_raises(saved, length):
    content = saved.path.read_bytes()
    saved.path.write_bytes(content[:length])
    with pytest.raises(WeightsError, match=f"{len(content[:length])} bytes.* is truncated"):
        read_weights(saved.path)
    with pytest.raises(WeightsError, match="does not match its weights file"):
        fetch_weights(saved.path)


def test_file_without_configuration_raises(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="no configuration in its metadata"):
        read_weights(tmp_path / "foreign.safetensors")


def test_unknown_name_lists_registered_models(mirror):
    with pytest.raises(ValueError, match="no model is named 'bigg'; choose one of big,"):
        fetch_weights("bigg")


def test_models_are_listed(mirror, state):
    path = weights._data_folder() / "small-v1.safetensors"
    save_weights(path, {"a": state["net.weight"]}, CONFIG, {})
    register_weights(path, "small", lane="properties", description="A small model.")
    table = list_models()
    assert list(table["name"]) == ["big", "small"]
    assert list(table["where"]) == ["mirror", "bundled"]
    fetch_weights("big")
    assert list(list_models()["where"]) == ["cached", "bundled"]
    assert fetch_weights("small").path == path


def test_empty_registry_gives_an_empty_table(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_data_folder", lambda: tmp_path)
    assert len(list_models()) == 0
    assert "lane" in list_models().colnames


def test_invalid_registration_raises(mirror):
    path = mirror / "big-v1.safetensors"
    with pytest.raises(ValueError, match="move the bundled file to"):
        register_weights(path, "big", lane="spectra", description="")
    with pytest.raises(ValueError, match="lane is 'c'"):
        register_weights(path, "big", lane="c", description="", bundled=False)


@pytest.mark.parametrize("damage", ["missing", "truncated", "card", "no card"])
def test_damaged_installation_raises(mirror, state, damage):
    path = weights._data_folder() / "small.safetensors"
    save_weights(path, {"a": state["net.weight"]}, CONFIG, {})
    register_weights(path, "small", lane="properties", description="")
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "card":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").unlink()
    word = {"missing": "missing", "truncated": "truncated", "card": "damaged", "no card": "missing"}
    with pytest.raises(WeightsError, match=f"{word[damage]}.*Reinstall astrogenspec"):
        fetch_weights("small")


def test_model_is_downloaded_once(mirror, monkeypatch):
    found = fetch_weights("big")
    assert found.path.parent == weights._cache_folder()
    assert found.card["licence"] == "BSD-3-Clause"
    assert read_weights(found.path)[1] == CONFIG
    monkeypatch.delenv("ASTROGENSPEC_WEIGHTS_URL")
    assert fetch_weights("big") == found


def test_configuration_item_sets_the_mirror(mirror, monkeypatch):
    monkeypatch.delenv("ASTROGENSPEC_WEIGHTS_URL")
    with weights.conf.set_temp("weights_url", mirror.as_uri()):
        assert fetch_weights("big").path.exists()


def test_configuration_file_is_written_and_read(tmp_path):
    """The configuration file is in the folder of astropy, is complete, and its values are used."""
    with set_temp_config(tmp_path):
        assert create_config_file("astrogenspec")
        (path,) = tmp_path.rglob("astrogenspec.cfg")
        text = path.read_text()
        assert "Address of a folder with the files of registered models" in text
        assert "\n# weights_url =" in text
        path.write_text('weights_url = "https://mirror.example/weights"\n')
        reload_config("astrogenspec")
        assert conf.weights_url == "https://mirror.example/weights"
    assert conf.weights_url == ""


def test_downloads_and_paths_are_logged(mirror, caplog):
    with caplog.at_level("INFO", logger="astrogenspec"):
        path = fetch_weights("big").path
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3  # two downloads and the path
    assert messages[-1] == f"model 'big' is the file {path}"
    assert {record.name for record in caplog.records} == {"astrogenspec.weights"}


def test_model_is_downloaded_by_http(web):
    assert read_weights(fetch_weights("big").path)[1] == CONFIG


def test_mirror_without_the_file_raises(web):
    (web / "big-v1.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"http://127.0.0.1:\d+/big-v1.safetensors \(status 404\)"
    ):
        fetch_weights("big")
    assert not list(weights._cache_folder().iterdir())


def test_missing_mirror_raises(mirror, monkeypatch):
    monkeypatch.delenv("ASTROGENSPEC_WEIGHTS_URL")
    with pytest.raises(WeightsError, match="no mirror is set; set ASTROGENSPEC_WEIGHTS_URL"):
        fetch_weights("big")


def test_unsupported_mirror_scheme_raises(mirror, monkeypatch):
    monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_URL", "ftp://example.org")
    with pytest.raises(WeightsError, match="must begin with one of http, https, doi, file"):
        fetch_weights("big")


@pytest.mark.parametrize("which", ["big-v1.safetensors", "big-v1.json"])
def test_truncated_download_is_discarded(mirror, which):
    (mirror / which).write_bytes((mirror / which).read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{which} .*truncated.*was discarded"):
        fetch_weights("big")
    assert which not in [path.name for path in weights._cache_folder().iterdir()]


def test_damaged_cache_is_downloaded_again(mirror):
    found = fetch_weights("big")
    good = found.path.read_bytes()
    found.path.write_bytes(good[:50])
    assert fetch_weights("big").path.read_bytes() == good


def test_damaged_cache_is_removed_when_offline(mirror, monkeypatch):
    found = fetch_weights("big")
    found.path.write_bytes(b"damaged")
    monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_URL", "http://127.0.0.1:9")
    message = "was damaged and has been removed; .* could not be downloaded .*check the network"
    with pytest.raises(WeightsError, match=message):
        fetch_weights("big")
    assert not found.path.exists()
    with pytest.raises(WeightsError, match=r"^big-v1.safetensors could not be downloaded"):
        fetch_weights("big")


def test_interrupted_download_leaves_no_file(mirror, monkeypatch):
    def interrupted(source, target):
        with open(target, "wb") as opened:
            opened.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_weights("big")
    assert not list(weights._cache_folder().iterdir())
    assert fetch_weights("big").path.exists()


def test_two_processes_can_download_at_once(mirror):
    code = (
        "import pathlib, sys\n"
        "from astrogenspec import weights\n"
        "data, cache = map(pathlib.Path, sys.argv[1:])\n"
        "weights._data_folder, weights._cache_folder = (lambda: data), (lambda: cache)\n"
        "print(weights.fetch_weights('big').path.name)\n"
    )
    command = [sys.executable, "-c", code, weights._data_folder(), weights._cache_folder()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert printed == ["big-v1.safetensors"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    names = sorted(path.name for path in weights._cache_folder().iterdir())
    assert names == ["big-v1.json", "big-v1.safetensors"]


# ---- hostile mirrors


class _Broken(BaseHTTPRequestHandler):
    """A server that answers with other headers, and any number of blocks."""

    headers_sent: dict = {}
    status, block, blocks, pause = 200, b"", 0, 0.0

    def do_GET(self):
        try:
            self.send_response(self.status)
            for key, value in self.headers_sent.items():
                self.send_header(key, value)
            self.end_headers()
            for _ in range(self.blocks):
                self.wfile.write(self.block)
                time.sleep(self.pause)
        except OSError:
            pass  # the client has gone

    def log_message(self, *args):
        pass


def _fetch_from(monkeypatch, **behaviour):
    """Fetch the model from a broken server; return the message of the error."""
    with _served(type("Handler", (_Broken,), behaviour)) as address:
        monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_URL", address)
        with pytest.raises(WeightsError) as caught:
            fetch_weights("big")
    assert not list(weights._cache_folder().iterdir())
    message = str(caught.value)
    assert "\n" not in message
    return message


def _forget_sizes():
    path = weights._data_folder() / "registry.json"
    registry = json.loads(path.read_text())
    registry["big"] = {k: v for k, v in registry["big"].items() if not k.endswith("size")}
    path.write_text(json.dumps(registry))


def test_stream_without_end_is_stopped_at_the_registered_size(mirror, monkeypatch):
    size = (mirror / "big-v1.safetensors").stat().st_size
    message = _fetch_from(monkeypatch, block=bytes(65536), blocks=10**9)
    assert f"(it is larger than {size} bytes)" in message


def test_stream_without_end_is_stopped_without_a_registered_size(mirror, monkeypatch):
    _forget_sizes()
    monkeypatch.setitem(weights._MAX_BYTES, ".safetensors", 1_000_000)
    message = _fetch_from(monkeypatch, block=bytes(65536), blocks=10**9)
    assert "(it is larger than 1000000 bytes)" in message


def test_declared_size_is_checked_before_the_transfer(mirror, monkeypatch):
    _forget_sizes()
    message = _fetch_from(monkeypatch, headers_sent={"Content-Length": str(10**15)})
    assert "(it is larger than 200000000 bytes)" in message


@pytest.mark.parametrize("pause", [0.02, 30.0])
def test_slow_transfer_is_stopped_after_the_maximum_duration(mirror, monkeypatch, pause):
    start = time.monotonic()
    with conf.set_temp("download_seconds", 1.0):
        message = _fetch_from(monkeypatch, block=b"a", blocks=10**9, pause=pause)
    assert "(it takes longer than 1 s)" in message
    assert time.monotonic() - start < 10


def test_transfer_below_the_minimum_speed_is_stopped(mirror, monkeypatch):
    monkeypatch.setattr("astrogenspec.downloads._START_TIME", 0.5)
    message = _fetch_from(monkeypatch, block=b"a", blocks=10**9, pause=0.02)
    assert "bytes arrived in" in message


def test_wrong_length_is_reported(mirror, monkeypatch):
    message = _fetch_from(monkeypatch, headers_sent={"Content-Length": "100"}, block=b"a", blocks=7)
    assert "big-v1.safetensors could not be downloaded" in message


def test_redirect_to_a_local_file_is_refused(mirror, monkeypatch):
    location = (mirror / "big-v1.safetensors").as_uri()
    message = _fetch_from(monkeypatch, status=302, headers_sent={"Location": location})
    assert "(InvalidSchema)" in message


def test_redirect_without_end_is_refused(mirror, monkeypatch):
    message = _fetch_from(monkeypatch, status=302, headers_sent={"Location": "/big"})
    assert "(status 302)" in message


def test_special_files_are_not_copied(mirror, monkeypatch):
    (mirror / "big-v1.safetensors").unlink()
    (mirror / "big-v1.safetensors").mkdir()
    with pytest.raises(WeightsError, match="could not be downloaded .*it is not a file"):
        fetch_weights("big")


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and locks of POSIX")
def test_leftovers_of_a_killed_download_are_removed(mirror):
    code = (
        "import os, pathlib, shutil, signal, sys\n"
        "from astrogenspec import weights\n"
        "data, cache = map(pathlib.Path, sys.argv[1:])\n"
        "weights._data_folder, weights._cache_folder = (lambda: data), (lambda: cache)\n"
        "shutil.copyfile = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)\n"
        "weights.fetch_weights('big')\n"
    )
    cache = weights._cache_folder()
    command = [sys.executable, "-c", code, weights._data_folder(), cache]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert len(list(cache.iterdir())) == 1
    for name, age in (("tmpold", 7200), ("tmpnew", 60)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - age,) * 2)
    fetch_weights("big")
    names = sorted(path.name for path in cache.iterdir())
    assert names == ["big-v1.json", "big-v1.safetensors", "tmpnew"]
