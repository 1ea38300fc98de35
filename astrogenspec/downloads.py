"""Download one file, with limits on its size, on the total time and on the speed.

The transfer runs in a thread of its own, because the time limits of sockets restart with each byte:
a server that sends one byte per second would never be stopped.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

__all__ = ["DownloadError", "download"]

#: Time (s) to connect, and between two packets.
_SOCKET_TIMEOUT = (10.0, 30.0)
#: Minimum mean speed (bytes per second), and the time (s) after which it is required.
_MIN_SPEED, _START_TIME = 1000, 20.0
_CHUNK = 16384


class DownloadError(OSError):
    """A download failed; the message is the reason.

    Parameters
    ----------
    reason : str
        The reason.
    status : int, optional
        Status with which the server refused the request.
    retry_after : float, optional
        Time (s) after which the server accepts another request, if it said so.
    """

    def __init__(
        self, reason: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


def download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    max_seconds: float,
    headers: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Download a file.

    Parameters
    ----------
    url : str
        Address with the scheme http, https, doi or file.
    path : Path
        File to write.
    max_bytes : int
        Maximum size of the file.
    max_seconds : float
        Maximum duration of the download.
    headers : mapping, optional
        Headers of the request.
    quiet : bool
        Show no progress bar.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or exceeds a limit; what was written so far stays in
        ``path``.
    """
    if urlsplit(url).scheme == "file":
        _copy(Path(url2pathname(urlsplit(url).path)), path, max_bytes)
        return
    transfer = _Transfer(url, path, max_bytes, dict(headers or {}), quiet)
    start = time.monotonic()
    transfer.start()
    try:
        while transfer.is_alive():
            transfer.join(0.2)
            elapsed = time.monotonic() - start
            if elapsed > max_seconds:
                raise DownloadError(f"it takes longer than {max_seconds:.0f} s")
            if elapsed > _START_TIME and transfer.n_bytes < _MIN_SPEED * elapsed:
                raise DownloadError(f"only {transfer.n_bytes} bytes arrived in {elapsed:.0f} s")
    finally:
        transfer.stopped.set()
    if transfer.error is not None:
        raise _explained(transfer.error) from transfer.error


class _Transfer(threading.Thread):
    """Thread that downloads a file until the event ``stopped`` is set."""

    def __init__(
        self, url: str, path: Path, max_bytes: int, headers: dict[str, str], quiet: bool
    ) -> None:
        super().__init__(daemon=True)
        self._headers = headers
        self._quiet = quiet or _is_quiet()
        self._url = url
        self._path = path
        self._max_bytes = max_bytes
        self.stopped = threading.Event()
        self.n_bytes = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._transfer()
        except Exception as error:
            self.error = error

    def _transfer(self) -> None:
        import requests

        headers = {"Accept-Encoding": "identity", **self._headers}
        address = _resolved(self._url)
        with requests.get(
            address, stream=True, timeout=_SOCKET_TIMEOUT, headers=headers
        ) as response:
            response.raise_for_status()
            declared = response.headers.get("Content-Length", "")
            total = int(declared) if declared.isdigit() else None
            if total is not None:
                self._check_size(total)
            with (
                self._path.open("wb") as stream,
                tqdm(total=total, unit="B", unit_scale=True, disable=self._quiet) as bar,
            ):
                for chunk in response.iter_content(_CHUNK):
                    if self.stopped.is_set():
                        return
                    self.n_bytes += len(chunk)
                    self._check_size(self.n_bytes)
                    stream.write(chunk)
                    bar.update(len(chunk))
        if total is not None and self.n_bytes < total:
            raise DownloadError(f"the transfer ended after {self.n_bytes} of {total} bytes")

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise DownloadError(f"it is larger than {self._max_bytes} bytes")


def _copy(source: Path, path: Path, max_bytes: int) -> None:
    """Copy a local file."""
    try:
        if source.exists() and not source.is_file():
            raise DownloadError("it is not a file")
        if source.stat().st_size > max_bytes:
            raise DownloadError(f"it is larger than {max_bytes} bytes")
        shutil.copyfile(source, path)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(_reason(error)) from error


def _resolved(url: str) -> str:
    """Return the http address of a file in an archive given by its DOI, else the same address."""
    if urlsplit(url).scheme != "doi":
        return url
    import pooch

    parts = pooch.utils.parse_url(url)
    repository = pooch.downloaders.doi_to_repository(parts["netloc"])
    return repository.download_url(parts["path"].rsplit("/", 1)[-1])


def _reason(error: Exception) -> str:
    """Return the reason of an error in a few words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"status {status}"
    if isinstance(error, DownloadError):
        return str(error)
    return getattr(error, "strerror", None) or type(error).__name__


def _explained(error: Exception) -> DownloadError:
    """Return the error with its reason, and with what the server said."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    after = getattr(response, "headers", {}).get("Retry-After", "") if status else ""
    return DownloadError(_reason(error), status, _seconds(after))


def _seconds(text: str) -> float | None:
    """Return the seconds of a header Retry-After, a number or a date; None if it has neither."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _is_quiet() -> bool:
    return not sys.stderr.isatty()
