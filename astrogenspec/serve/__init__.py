"""A web application for one machine or one department: ``astrogenspec serve``.

`Analyst` infers what a visitor gives and remembers the results for a while, `read_upload` reads
files of visitors, and `run_server` answers the browser with the packages of the extra ``view``.
"""

from __future__ import annotations

from .analyst import Analyst
from .uploads import read_upload, typed_photometry
from .web import ServerSettings, run_server

__all__ = ["Analyst", "ServerSettings", "read_upload", "run_server", "typed_photometry"]
