"""Size of a page of 2,000 galaxies, and the time of each interaction in a real browser.

    python benchmarks/page_interaction.py
    python benchmarks/page_interaction.py --galaxies 500 --page page.html

The galaxies are those of the demonstration with other magnitudes; their images, spectra and noise
are those of its four simulated galaxies. Times are from an action to the end of the frame that
shows its result: on the clock, and as processor time of the page, which other programs of the
machine do not change. Chromium or Chrome must be installed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable, vstack

from astrogenspec import Posterior, PropertyEstimator, SpectrumDraws, SpectrumEstimator
from astrogenspec.demo import load_cutouts, load_galaxies

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Actions by name, as scripts that use `pick`, different for each repetition.
ACTIONS = {
    "select in a plot": """
        const chosen = [];
        for (let k = pick; k < total; k += 2) chosen.push(k);
        Bokeh.documents[0].get_model_by_name('galaxies').selected.indices = chosen;""",
    "search": """
        const box = document.getElementById('search');
        box.value = String(pick + 1);
        box.dispatchEvent(new Event('input', { bubbles: true }));""",
    "sort": """
        const heads = document.querySelectorAll('#table th button');
        heads[2 + pick % 9].click();""",
    "filter by flag": """
        const select = document.getElementById('flag-filter');
        select.value = pick % 2 ? 'any' : 'none';
        select.dispatchEvent(new Event('input', { bubbles: true }));""",
    "show all": "document.getElementById('clear').click();",
    "next page of the table": "document.getElementById('next-page').click();",
    "open a galaxy": """
        document.getElementById('galaxy').close();
        document.querySelectorAll('#table tbody .link')[pick].click();""",
    "next galaxy": "document.getElementById('next-galaxy').click();",
    "other quantities of the corner": """
        const select = document.querySelector('#galaxy .choices select');
        select.value = String(pick % 9);
        select.dispatchEvent(new Event('change'));""",
}
RUN = """async ([script, pick, total]) => {
  const start = performance.now();
  new Function('pick', 'total', script)(pick, total);
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}"""


def many_galaxies(n: int, seed: int) -> QTable:
    """Return photometry of n galaxies: those of the demonstration, brighter or fainter."""
    rng = np.random.default_rng(seed)
    base = load_galaxies()
    table = vstack([base] * -(-n // len(base)))[:n]
    factor = 10 ** (0.4 * rng.normal(0, 0.5, n))
    for name in table.colnames:
        if name.startswith("flux_") and not name.startswith("flux_err_"):
            error = table[f"flux_err_{name[5:]}"]
            table[name] = table[name] * factor + rng.normal(size=n) * error
    table["name"] = [f"galaxy {k}" for k in range(n)]
    return table


def with_noise(cutout: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the images with more noise, so that every picture differs."""
    made = {}
    for band, image in cutout.items():
        copy = image.copy()
        scatter = float(np.median(np.abs(np.diff(image.data, axis=1))))
        copy.data = image.data + rng.normal(0, scatter, image.data.shape).astype(image.data.dtype)
        made[band] = copy
    return made


def make_content(n: int, seed: int) -> tuple[Posterior, list[dict[str, Any]], SpectrumDraws]:
    """Return posterior, images and spectra of n galaxies."""
    posterior = PropertyEstimator.from_pretrained().predict(
        photometry=many_galaxies(n, seed), n_draws=200, seed=seed
    )
    cutouts, _ = load_cutouts()
    spectra = SpectrumEstimator.from_pretrained().predict(cutouts, n_draws=4, seed=seed, ebv=0.0)
    rng = np.random.default_rng(seed)
    images = [with_noise(cutouts[k % len(cutouts)], rng) for k in range(n)]
    return posterior, images, spectra[np.arange(n) % len(spectra)]


def measure(path: Path, n: int, repeats: int) -> None:
    """Open the page and print the time of each action."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        start = time.perf_counter()
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        print(f"open the page: {time.perf_counter() - start:.1f} s")
        client = page.context.new_cdp_session(page)
        client.send("Performance.enable", {"timeDomain": "threadTicks"})

        def processor_time() -> float:
            metrics = client.send("Performance.getMetrics")["metrics"]
            return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

        print(f"{'action':32s} {'ms':>6s} {'largest':>8s} {'processor':>10s}")
        for name, script in ACTIONS.items():
            times, busy = [], []
            for pick in range(repeats):
                before = processor_time()
                times.append(page.evaluate(RUN, [script, pick, n]))
                busy.append(1000 * (processor_time() - before))
            print(
                f"{name:32s} {statistics.median(times):6.0f} {max(times):8.0f} "
                f"{statistics.median(busy):10.0f}"
            )
        browser.close()


def main() -> None:
    """Write the page and measure it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="keep the page under this name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.page or Path(folder) / "page.html"
        if not path.exists():
            posterior, images, spectra = make_content(options.galaxies, options.seed)
            start = time.perf_counter()
            posterior.to_html(path, cutouts=images, spectra=spectra)
            print(f"write the page: {time.perf_counter() - start:.1f} s")
        print(f"{options.galaxies} galaxies: {path.stat().st_size / 1e6:.1f} MB")
        measure(path, options.galaxies, options.repeats)


if __name__ == "__main__":
    main()
