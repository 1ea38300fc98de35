"""Polite downloads: few connections, a limited rate, pauses, a user agent with a contact.

A request that fails because of the network or a busy server (status 429 and 5xx) is repeated after
the time that the server names (``Retry-After``), or after 2, 4, 8, ... seconds.  Other refusals are
final.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__
from ..downloads import DownloadError, download

__all__ = ["Client", "NotFoundError"]

#: Longest pause between two attempts (s).
_MAX_PAUSE = 600.0
_MAX_SECONDS = 900.0


class NotFoundError(DownloadError):
    """The server does not have the file, or does not give it: another attempt is useless."""


@dataclass
class Client:
    """Downloads from one server.

    Attributes
    ----------
    per_second : float
        Maximum number of requests per second.
    attempts : int
        Number of attempts for a file.
    first_pause : float
        Pause after the first failed attempt (s); it doubles each time.
    contact : str
        Address (e-mail or web page) of the user, for the user agent.
    n_requests, n_bytes : int
        Requests so far, and bytes that arrived.
    """

    per_second: float = 4.0
    attempts: int = 6
    first_pause: float = 2.0
    contact: str = ""
    n_requests: int = 0
    n_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _next: float = field(default=0.0, repr=False)

    @property
    def user_agent(self) -> str:
        """User agent of the requests."""
        contact = f" ({self.contact})" if self.contact else ""
        return f"astrogenspec/{__version__}{contact}"

    def fetch(self, url: str, path: Path, *, max_bytes: int) -> None:
        """Download a file.

        Parameters
        ----------
        url : str
            Address.
        path : Path
            File to write.
        max_bytes : int
            Maximum size.

        Raises
        ------
        NotFoundError
            If the server does not have the file.
        DownloadError
            If all attempts failed.
        """
        for attempt in range(1, self.attempts + 1):
            self._wait_for_turn()
            try:
                download(
                    url,
                    path,
                    max_bytes=max_bytes,
                    max_seconds=_MAX_SECONDS,
                    headers={"User-Agent": self.user_agent},
                    quiet=True,
                )
            except DownloadError as error:
                path.unlink(missing_ok=True)
                busy = error.status in (None, 408, 425, 429) or error.status >= 500
                # The query may be long.
                text = f"{url.partition('?')[0]} could not be downloaded: {error}"
                if not busy:
                    raise NotFoundError(text, error.status) from error
                if attempt == self.attempts:
                    text = f"{text} (after {attempt} attempts)"
                    raise DownloadError(text, error.status, error.retry_after) from error
                time.sleep(self._pause(attempt, error.retry_after))
            else:
                with self._lock:
                    self.n_bytes += path.stat().st_size
                return

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, _MAX_PAUSE)
        # Without jitter, clients that failed together would return together.
        jitter = random.uniform(0.8, 1.2)  # noqa: S311
        return min(self.first_pause * 2 ** (attempt - 1), _MAX_PAUSE) * jitter

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + 1 / self.per_second
            self.n_requests += 1
        if start > now:
            time.sleep(start - now)
