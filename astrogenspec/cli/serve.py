"""``astrogenspec serve``: a web application on this machine, or behind a proxy."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_serve"]

_EXAMPLES = """\
examples:
  astrogenspec serve
      on this machine only; open the address that is printed
  astrogenspec serve --port 8050 --prefix /galaxies --origin https://astro.example.edu
      behind the proxy of a department, which passes https://astro.example.edu/galaxies/ on to
      http://127.0.0.1:8050/galaxies/ and adds its own login if there is one
"""


def add_serve(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec serve``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "serve",
        parents=[common],
        help="start a web application for magnitudes, tables and images",
        description="Start a web application: type magnitudes or drop a table or images, and see "
        "image,\nposterior, spectrum and what-if answers. Ctrl-C stops it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8050, metavar="N", help="port (default 8050; 0: any free one)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1, which other machines cannot reach)",
    )
    add("--prefix", default="", metavar="PATH", help="path of the application behind a proxy")
    add(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="address of the proxy, as browsers see it; may be repeated",
    )
    add(
        "--max-upload",
        type=float,
        default=30,
        metavar="MB",
        help="maximum size of the files of one request (default 30)",
    )
    add(
        "--max-galaxies",
        type=int,
        default=500,
        metavar="N",
        help="maximum number of galaxies of one request (default 500)",
    )
    add("--model", metavar="NAME", help="weights of the properties")
    add("--spectrum-model", metavar="NAME", help="weights of the spectra")
    add("--spectra", type=int, default=4, metavar="N", help="draws of a spectrum (default 4)")
    add("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=_serve, parser=parser)


def _serve(options: argparse.Namespace) -> int:
    from ..serve import Analyst, ServerSettings, run_server
    from ..view.figures import view_package

    view_package("tornado.web")
    settings = ServerSettings(
        host=options.host,
        port=options.port,
        prefix=options.prefix,
        origins=tuple(options.origin),
        max_upload=options.max_upload,
        max_galaxies=options.max_galaxies,
    )
    if not options.quiet:
        print("Loading the networks ...", flush=True)
    analyst = Analyst(options.model, options.spectrum_model, n_spectra=options.spectra)

    def ready(address: str) -> None:
        print(f"Open {address} in a browser; Ctrl-C stops the server.", flush=True)
        if options.open:
            import webbrowser

            webbrowser.open(address)

    try:
        run_server(analyst, settings, ready=ready)
    except KeyboardInterrupt:
        if not options.quiet:
            print("Stopped.")
    return 0
