"""Makes the pictures in images/ from real runs against the embedded endpoint: `python docs/make_screenshots.py`.

It takes some minutes and Chromium. The pictures are light and small; look at each before you keep it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

import pacemark
from pacemark.runs.viewer import Viewer
from pacemark.runs.watching import run_now
from pacemark.simulator import EngineSpec, named, serving

IMAGES = Path(__file__).with_name("images")
WIDTH = 960
BUDGET = "ttft p95 < 200ms, tpot p95 < 20ms"
LEVELS = (1, 2, 4, 8, 16, 32, 64)
LENGTHS: dict[str, Any] = {"input_tokens": 256, "output_tokens": 64, "seed": 7}


def main() -> None:
    """Measure, and take every picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium on this machine")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as out, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        before, after = (sweep(Path(out) / name, slower) for name, slower in (("before", 1.0), ("after", 1.15)))
        page.goto((before / "report.html").as_uri())
        page.wait_for_selector("svg")
        taken(page, "report", above="section.others")
        page.locator("summary", has_text="Distributions").click()
        page.locator("#spread-part svg").first.wait_for()
        page.locator("#spread-part figure").screenshot(path=IMAGES / "distributions.png")
        page.goto(Path(pacemark.together([before, after], output=Path(out) / "together.html")).as_uri())
        page.wait_for_selector("svg")
        taken(page, "together", above="#unfold")
        live(page, Path(out) / "search")
        browser.close()
    for path in sorted(IMAGES.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def sweep(out: Path, slower: float) -> Path:
    """The folder of a sweep of the demo endpoint, on which every step takes so many times as long."""
    spec = named("demo").timeline
    assert isinstance(spec, EngineSpec)
    costs = {cost: getattr(spec, cost) * slower for cost in ("base_ms", "per_decode_ms", "per_prefill_token_ms")}
    with serving("demo", **costs) as served:
        run = pacemark.sweep(served.url, concurrency=LEVELS, duration=6, budget=BUDGET, out=out, **LENGTHS)
    return run.path


def taken(page: Page, name: str, above: str) -> None:
    """A picture of the page down to what it holds no more."""
    end = page.locator(above).first.bounding_box()
    assert end is not None
    page.screenshot(path=IMAGES / f"{name}.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": end["y"] - 4})


def live(page: Page, out: Path) -> None:
    """The live page of a search, once it has met a load that is too much."""
    options = {"budget": BUDGET, "out": out, "allowance": pacemark.Allowance(seconds=90.0)}
    running = threading.Thread(target=pacemark.find, args=("sim:demo",), kwargs=options | LENGTHS)
    running.start()
    while not (found := sorted(out.glob("*/run.db"))):
        time.sleep(0.2)
    time.sleep(2.0)
    viewer = Viewer(found[0].parent, port=0)
    serving_page = threading.Thread(target=viewer.serve)
    serving_page.start()
    page.goto(viewer.url)
    while running.is_alive():
        search = run_now(found[0].parent).search
        if search is not None and "missed" in [status for _, status in search.tried]:
            break
        time.sleep(0.5)
    page.wait_for_selector("#search svg")
    page.wait_for_timeout(8000)  # a level further, there are figures
    taken(page, "live", above="main > section:last-child")
    running.join()
    viewer.close()
    serving_page.join()


if __name__ == "__main__":
    main()
