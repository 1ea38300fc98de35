"""Time of the answers of ``astrogenspec serve`` in a real browser.

    python benchmarks/web_application.py

Starts the server, opens the page in Chromium or Chrome, and prints the time until the first answer
is shown and of each kind of question: on the clock, and as processor time of server and page, which
other programs of the machine do not change.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MOVE = """() => {
  const range = document.querySelector('#sliders input[type=range]');
  range.value = 0.05 + 0.2 * Math.random();
  range.dispatchEvent(new Event('input'));
}"""


def measure(address: str, server: psutil.Process) -> None:
    """Print the time of each question."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        client = page.context.new_cdp_session(page)
        client.send("Performance.enable", {"timeDomain": "threadTicks"})

        def used() -> tuple[float, float]:
            times = server.cpu_times()
            metrics = client.send("Performance.getMetrics")["metrics"]
            busy = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
            return times.user + times.system, busy

        def show(name: str, action: Callable[[], object]) -> None:
            before, start = used(), time.perf_counter()
            action()
            clock = time.perf_counter() - start
            at_server, in_page = (b - a for a, b in zip(before, used(), strict=True))
            print(f"{name:34s} {clock:8.2f} {at_server:8.2f} {in_page:8.2f}", flush=True)

        def opened() -> None:
            page.goto(address)
            page.locator("#histograms svg").nth(8).wait_for()

        def typed() -> None:
            page.click("#infer")
            page.locator("#name", has_text="my galaxy").wait_for()

        def moved() -> None:
            page.evaluate(MOVE)
            page.locator("#legend", has_text="before").wait_for()

        def spectrum() -> None:
            page.click("#spectrum-button")
            page.locator("#spectrum svg").wait_for()

        print(f"{'seconds':34s} {'clock':>8s} {'server':>8s} {'page':>8s}")
        show("open the page, first answer shown", opened)
        show("first typed magnitudes", typed)
        show("what if, first", moved)
        page.click("#example")
        page.locator("#name", has_text="demo").wait_for()
        show("magnitudes again", typed)
        show("what if, again", moved)
        show("spectrum of four draws", spectrum)
        browser.close()


def main() -> None:
    """Start the server and measure it."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    command = [sys.executable, "-m", "astrogenspec", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        start = time.perf_counter()
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        lines = (re.search(r"Open (\S+) in a browser", line) for line in process.stdout)
        address = next(found[1] for found in lines if found)
        used = psutil.Process(process.pid).cpu_times()
        print(
            f"start of the server: {time.perf_counter() - start:.1f} s on the clock, "
            f"{used.user + used.system:.1f} s of processor time"
        )
        measure(address, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
