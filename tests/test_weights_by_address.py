"""Weights of others: loaded by the address of a card, or from a registry file."""

import hashlib
import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from astrogenspec import weights
from astrogenspec.weights import (
    WeightsError,
    fetch_weights,
    list_models,
    register_weights,
    save_weights,
)


class Quiet(SimpleHTTPRequestHandler):
    requests: list

    def log_message(self, *args):
        """Record the request."""
        self.requests.append(self.path)


@contextmanager
def served(folder):
    handler = type("Handler", (Quiet,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A model on a web server; the cache is empty."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.setattr(weights, "_cache_folder", lambda: tmp_path / "cache")
    save_weights(folder / "mine.safetensors", {"a": torch.ones(3)}, {}, {"licence": "CC-BY-4.0"})
    with served(folder) as (address, requests):
        yield folder, address, requests


def test_model_is_loaded_by_the_address_of_its_card(published):
    folder, address, requests = published
    found = fetch_weights(f"{address}/mine.json")
    assert found.path.read_bytes() == (folder / "mine.safetensors").read_bytes()
    assert found.card["licence"] == "CC-BY-4.0"
    fetch_weights(f"{address}/mine.json")
    # The weights are downloaded once, the card each time.
    assert requests.count("/mine.safetensors") == 1 and requests.count("/mine.json") == 2


def test_hash_in_the_address(published):
    folder, address, requests = published
    digest = hashlib.sha256((folder / "mine.json").read_bytes()).hexdigest()
    found = fetch_weights(f"{address}/mine.json#sha256={digest}")
    assert fetch_weights(f"{address}/mine.json#sha256={digest}").path == found.path
    assert requests.count("/mine.json") == 1
    with pytest.raises(WeightsError, match="SHA-256 is"):
        fetch_weights(f"{address}/mine.json#sha256={'0' * 64}")


def test_weights_of_another_version_are_refused(published, tmp_path):
    folder, address, _ = published
    path = folder / "mine.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(WeightsError, match="truncated, damaged or of another version"):
        fetch_weights(f"{address}/mine.json")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["../mine.safetensors", "mine.txt", 7, None])
def test_cards_that_name_no_weights(published, name):
    folder, address, _ = published
    card = json.loads((folder / "mine.json").read_text()) | {"filename": name}
    (folder / "mine.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="does not name its weights file"):
        fetch_weights(f"{address}/mine.json")


def test_without_network_the_copy_is_used(published, monkeypatch):
    _, address, _ = published
    first = fetch_weights(f"{address}/mine.json")
    monkeypatch.setattr(weights, "download", _offline)
    assert fetch_weights(f"{address}/mine.json").path == first.path
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch_weights(f"{address}/other.json")


def _offline(*_, **__):
    raise weights.DownloadError("no network")


@pytest.mark.parametrize("address", ["https://a.org/mine.safetensors", "https://a.org/c.json#x"])
def test_addresses_that_are_no_card(address):
    with pytest.raises(ValueError, match="is not the address of a card"):
        fetch_weights(address)


def test_registry_file_of_a_user(published, tmp_path, monkeypatch):
    folder, address, _ = published
    registry = tmp_path / "registry.json"
    register_weights(
        folder / "mine.safetensors",
        "mine",
        lane="properties",
        description="Mine.",
        registry=registry,
        mirror=address,
    )
    with pytest.raises(ValueError, match="no model is named 'mine'"):
        fetch_weights("mine")
    monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_REGISTRY", str(registry))
    models = list_models()
    assert "mine" in models["name"] and "astrogenspec-properties" in models["name"]
    assert fetch_weights("mine").card["licence"] == "CC-BY-4.0"


def test_registry_file_needs_a_mirror(published, tmp_path):
    options = {"lane": "properties", "description": "Mine."}
    path = published[0] / "mine.safetensors"
    with pytest.raises(ValueError, match="give the address of the folder"):
        register_weights(path, "mine", registry=tmp_path / "r.json", **options)
    with pytest.raises(ValueError, match="give the registry file"):
        register_weights(path, "mine", mirror="https://a.org", **options)


def test_damaged_and_missing_registry_files(tmp_path, monkeypatch):
    path = tmp_path / "registry.json"
    monkeypatch.setenv("ASTROGENSPEC_WEIGHTS_REGISTRY", str(path))
    with pytest.raises(WeightsError, match="does not exist"):
        fetch_weights("mine")
    path.write_text('{"mine": {"filename": "a"}}')
    with pytest.raises(WeightsError, match="is no registry of models"):
        fetch_weights("mine")
