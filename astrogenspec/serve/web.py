"""The web server: pages, requests of the browser, and what protects the machine.

The server answers on 127.0.0.1 unless told otherwise. It serves a fixed set of files that are read
at the start, never a path. A request must name this server in ``Host`` and, if it changes anything,
come from its own page: other pages in the same browser cannot use it. Uploads have a size limit,
and are deleted once they are read. The browser loads nothing from anywhere else
(``Content-Security-Policy``).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from .. import __version__
from ..inputs.errors import INPUT_ERRORS
from ..surveys import survey_names
from ..surveys.registry import get_survey
from ..view.figures import view_package
from ..view.page import page_file
from .analyst import DOWNLOADS, Analyst, UnknownResultError
from .uploads import ENDINGS, read_upload, typed_photometry

__all__ = ["ServerSettings", "make_application", "run_server"]

_LOG = logging.getLogger(__name__)
_MEGABYTE = 1_000_000
#: Requests that wait for the networks; further ones are asked to come back.
_MAX_WAITING = 16
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "astrogenspec",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "html": "text/html"}


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the server.

    Attributes
    ----------
    host : str
        Address to listen on.
    port : int
        Port; 0 for any free one.
    prefix : str
        Path under which a proxy passes requests on, such as ``/galaxies``.
    origins : tuple of str
        Addresses of the proxy that the browser sees, such as ``https://astro.example.edu``.
    max_upload : float
        Maximum size of the files of one request, megabytes.
    max_galaxies : int
        Maximum number of galaxies of one request.

    Raises
    ------
    ValueError
        If a setting cannot be used.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    prefix: str = ""
    origins: tuple[str, ...] = ()
    max_upload: float = 30
    max_galaxies: int = 500

    def __post_init__(self) -> None:
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise ValueError(
                f"prefix is {self.prefix!r}; it must begin with a slash and not end with one, as "
                "in /galaxies."
            )
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
                raise ValueError(
                    f"origin is {origin!r}; it must be an address without a path, as in "
                    "https://astro.example.edu."
                )
        for name in ("max_upload", "max_galaxies"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")

    def hosts(self, port: int) -> frozenset[str]:
        """Return the values of the header ``Host`` that are answered."""
        names = {self.host, "127.0.0.1", "localhost", "[::1]"}
        local = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        return frozenset(local | {urlsplit(origin).netloc for origin in self.origins})


class _Service:
    """What the handlers share: the analyst, one thread for the networks, and the fixed files."""

    def __init__(self, analyst: Analyst, settings: ServerSettings) -> None:
        self.analyst = analyst
        self.settings = settings
        self.hosts: frozenset[str] = frozenset()
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.waiting = 0
        self.start: dict[str, Any] = {}
        self.files = {
            "": _file("app.html").encode(),
            "app.js": _file("app.js").encode(),
            "app.css": _file("app.css").encode(),
            "page.css": page_file("page.css").encode(),
            "charts.js": page_file("charts.js").encode(),
        }

    def prepare(self) -> None:
        """Infer the example, which also loads everything that the first visitor needs."""
        self.start = {
            "surveys": _surveys(),
            "endings": list(ENDINGS),
            "max_upload": self.settings.max_upload * _MEGABYTE,
            "max_galaxies": self.settings.max_galaxies,
            "software": __version__,
            "example": self.analyst.infer(_example(), ebv=0.0),
        }

    async def compute(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of the analyst in the thread of the networks."""
        if self.waiting >= _MAX_WAITING:
            raise _BusyError
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, function, *arguments)
        finally:
            self.waiting -= 1


class _BusyError(Exception):
    """Too many requests are waiting."""


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _surveys() -> list[dict[str, Any]]:
    """Return the surveys whose filters are available."""
    found = []
    for name in survey_names():
        survey = get_survey(name)
        try:
            _ = survey.filters
        except ValueError:
            continue
        found.append({"name": name, "title": survey.title or name, "bands": list(survey.bands)})
    return sorted(found, key=lambda entry: (entry["name"] != "sdss", entry["title"]))


def _example() -> Any:
    from ..cli.inputs import Galaxies
    from ..demo import load_cutouts

    cutouts, _ = load_cutouts()
    return Galaxies(cutouts[:1], None)  # type: ignore[arg-type]  # a list of cutouts instead of their files


def make_application(service: _Service) -> Any:
    """Return the application of tornado.

    Parameters
    ----------
    service : _Service
        What the handlers share.

    Returns
    -------
    `tornado.web.Application`
    """
    base = _guarded_handler(service)
    download, pages, start = _readers(base, service)
    infer, ask = _askers(base, service)
    routes: Sequence[tuple[str, Any]] = (
        (r"/api/start", start),
        (r"/api/infer", infer),
        (r"/api/(what-if|spectrum|traverse)", ask),
        (r"/api/result/([\w-]+)/([\w.]+)", download),
        (r"/([\w.]*)", pages),
    )
    prefix = service.settings.prefix
    # A proxy may remove the prefix or not.
    patterns = [(prefix + path, handler) for path, handler in routes] if prefix else []
    web = view_package("tornado.web")
    return web.Application([*patterns, *routes], log_function=_log)


def _guarded_handler(service: _Service) -> Any:
    """Return the parent of all handlers: headers, checks of host and origin, errors."""
    web: Any = view_package("tornado.web")
    parent: Any = web.RequestHandler

    class Guarded(parent):
        def set_default_headers(self) -> None:
            for name, value in _HEADERS.items():
                self.set_header(name, value)

        def prepare(self) -> None:
            if self.request.host not in service.hosts:
                raise web.HTTPError(403, reason="Unknown host")
            origin = self.request.headers.get("Origin")
            if self.request.method == "POST" and not _is_own(origin, service):
                raise web.HTTPError(403, reason="Other origin")

        def write_error(self, status_code: int, **more: Any) -> None:
            self.finish({"error": f"{self._reason}."})

        async def answer(self, function: Callable[..., Any], *arguments: Any) -> None:
            """Write the result of a function, or its error in one sentence."""
            try:
                self.finish(json.dumps(await service.compute(function, *arguments)))
            except _BusyError:
                self.set_header("Retry-After", "10")
                self._fail(503, "the server is busy; try again in a moment.")
            except UnknownResultError as error:
                self._fail(404, str(error))
            except (OSError, *INPUT_ERRORS) as error:
                self._fail(400, " ".join(str(error).split()))

        def _fail(self, status: int, sentence: str) -> None:
            self.set_status(status)
            self.finish({"error": sentence})

    return Guarded


def _readers(base: Any, service: _Service) -> tuple[Any, Any, Any]:
    """Return the handlers of downloads, of the fixed files and of the start."""
    web: Any = view_package("tornado.web")

    class Files(base):
        def get(self, name: str) -> None:
            if name not in service.files:
                raise web.HTTPError(404)
            kind = _TYPES[name.rpartition(".")[2] or "html"]
            self.set_header("Content-Type", f"{kind}; charset=utf-8")
            self.finish(service.files[name])

    class Start(base):
        def get(self) -> None:
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps(service.start))

    class Download(base):
        async def get(self, token: str, name: str) -> None:
            if name not in DOWNLOADS:
                raise web.HTTPError(404)
            try:
                content = await service.compute(service.analyst.download, token, name)
            except UnknownResultError as error:
                raise web.HTTPError(404, reason="Not in memory any more") from error
            except _BusyError as error:
                raise web.HTTPError(503, reason="Busy") from error
            self.set_header("Content-Type", DOWNLOADS[name])
            self.set_header("Content-Disposition", f'attachment; filename="{name}"')
            self.finish(content)

    return Download, Files, Start


def _askers(base: Any, service: _Service) -> tuple[Any, Any]:
    """Return the handlers of inferences and of questions about their results."""

    class Infer(base):
        async def post(self) -> None:
            uploads = [
                (file["filename"], file["body"])
                for group in self.request.files.values()
                for file in group
            ]
            fields = {key: values[-1].decode() for key, values in self.request.arguments.items()}
            await self.answer(_infer, service, uploads, fields)

    class Ask(base):
        async def post(self, name: str) -> None:
            await self.answer(_ask, service.analyst, name, self.request.body)

    return Infer, Ask


def _is_own(origin: str | None, service: _Service) -> bool:
    """Return whether a request comes from the page of this server."""
    if origin is None:
        # Browsers always send it; programs of the machine need not.
        return True
    return urlsplit(origin).netloc in service.hosts


def _log(handler: Any) -> None:
    request = handler.request
    _LOG.info("%s %s %d", request.method, request.path, handler.get_status())


def _infer(
    service: _Service, uploads: Sequence[tuple[str, bytes]], fields: Mapping[str, str]
) -> dict[str, Any]:
    """Infer typed magnitudes, or files."""
    survey = fields.get("survey") or None
    ebv = _read_ebv(fields.get("ebv"))
    if "magnitudes" in fields:
        typed = _json(fields["magnitudes"].encode())
        return service.analyst.infer(
            typed_photometry(survey or "sdss", typed, ebv or 0.0, fields.get("name", ""))
        )
    galaxies = read_upload(uploads, survey=survey, max_galaxies=service.settings.max_galaxies)
    return service.analyst.infer(galaxies, ebv=ebv)


def _read_ebv(text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"E(B-V) is {text!r}; it must be a number.") from None


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        raise ValueError("the request is not JSON.") from None
    if not isinstance(found, dict):
        raise TypeError("the request is not a JSON object.")
    return found


def _ask(analyst: Analyst, name: str, body: bytes) -> dict[str, Any]:
    """Answer a question about a result in memory."""
    asked = _json(body)
    token, row = asked.get("result"), asked.get("row", 0)
    if not isinstance(token, str) or not isinstance(row, int):
        raise TypeError("the request has no result and row.")
    if name == "traverse":
        return analyst.traverse(token, row, str(asked.get("quantity")))
    known = asked.get("known") or {}
    if not isinstance(known, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known.values()
    ):
        raise TypeError("known must map names of quantities to numbers.")
    return (analyst.what_if if name == "what-if" else analyst.spectrum)(token, row, known)


def run_server(
    analyst: Analyst, settings: ServerSettings, *, ready: Callable[[str], None] | None = None
) -> None:
    """Answer requests until interrupted.

    Parameters
    ----------
    analyst : Analyst
        What infers.
    settings : ServerSettings
        Settings.
    ready : callable, optional
        Called with the address once the server answers.

    Raises
    ------
    OSError
        If the address or port cannot be used.
    ImportError
        If a package of the extra ``view`` is not installed.
    """
    view_package("tornado.web")
    asyncio.run(_run(analyst, settings, ready))


async def _run(
    analyst: Analyst, settings: ServerSettings, ready: Callable[[str], None] | None
) -> None:
    httpserver = view_package("tornado.httpserver")
    netutil = view_package("tornado.netutil")
    # First, so that a port in use is reported at once.
    sockets = netutil.bind_sockets(settings.port, settings.host)
    service = _Service(analyst, settings)
    service.prepare()
    port = sockets[0].getsockname()[1]
    service.hosts = settings.hosts(port)
    limit = int(settings.max_upload * _MEGABYTE)
    server = httpserver.HTTPServer(
        make_application(service), max_body_size=limit, max_buffer_size=limit, xheaders=False
    )
    server.add_sockets(sockets)
    try:
        if ready is not None:
            name = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host
            ready(f"http://{name}:{port}{settings.prefix}/")
        await asyncio.Event().wait()
    finally:
        server.stop()
        service.pool.shutdown(wait=False, cancel_futures=True)
