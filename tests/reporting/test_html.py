"""The HTML report: what it holds, and that a real browser shows it without a network."""

import functools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from pacemark.answers.curve import operating_points
from pacemark.figures.picture import pictured
from pacemark.pace import Concurrency, Rate
from pacemark.reporting import notebook, words
from pacemark.reporting.html import html, write_html
from pacemark.runs.simulated import virtual_measure
from pacemark.summary import Find, Probe, Reason, Span, Spent, Summary, Timeline
from support import samples
from support.needed import missing
from support.sampled import first

pytestmark = pytest.mark.xdist_group("html")  # its pages and its browser are made once
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>"


def visible(document: str) -> str:
    """The document's text without scripts, styles, drawings and tags."""
    bare = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", document, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@functools.cache
def document(name: str) -> str:
    """The report of a sample, made once."""
    if name == "measured":
        return measured()
    return html(hostile() if name == "hostile" else getattr(samples, name)())


def hostile() -> Summary:
    """A run where everything that comes from outside tries to be markup."""
    level = samples.level(
        Concurrency(4),
        tokens_per_s=100,
        ttft_ms=(10, 20),
        tpot_ms=(5, 6),
        latency_ms=(900, 1000),
        status="suspect",
        reasons=[Reason("odd", f"The server said {HOSTILE}")],
        errors={HOSTILE: 3},
    )
    levels = [level, samples.engine_level(8)]
    return Summary(
        target={"url": f"http://127.0.0.1/{HOSTILE}", "model": HOSTILE},
        workload={HOSTILE: [HOSTILE]},
        levels=levels,
        operating_points=operating_points(levels),
        run={"started": HOSTILE, "command": f"pacemark {HOSTILE}", "failure": HOSTILE, "host": {HOSTILE: HOSTILE}},
        find=Find(
            budget=HOSTILE,
            load="concurrency",
            resolved=True,
            answer=None,
            binds=HOSTILE,
            probes=[Probe(Concurrency(4), None, HOSTILE)],
            spent=Spent(requests=1, seconds=1.0),
            why=HOSTILE,
        ),
    )


def test_the_answer_comes_first_and_the_command_last() -> None:
    text = visible(document("sweep"))
    places = [
        text.index(x)
        for x in (
            "demo-8b at http://127.0.0.1:8000/v1",
            "2026-03-02 14:05:11 UTC",
            "16 requests at a time are the best balance of speed and throughput: 1,122 output tokens a second",
            "concurrency 16, 1,122 (1,110 to 1,133) output tokens/s",
            "Highest throughput",
            "Levels",
            "The client",
            "What was run",
            "pacemark sweep http://127.0.0.1:8000/v1 --model demo-8b --concurrency 1,2,4,8,16,32,64",
        )
    ]
    assert places == sorted(places)
    assert text.count("recommended") == 1


def test_the_table_has_every_figure_with_its_interval() -> None:
    text = visible(document("sweep"))
    assert "16 valid 1,122 1,110&ndash;1,133 8.76 8.67&ndash;8.85 48.0 47.0&ndash;49.0" in text
    for level in samples.sweep().levels:
        assert f"{level.latency_ms.p95.value:,.0f}" in text


def test_verdicts_errors_and_short_answers_are_shown() -> None:
    text = visible(document("troubled"))
    assert "The client took 31% of one core per worker" in text
    assert "Failed requests: 180 http_429, 11 timeout" in text
    assert "2 short" in text
    assert "512" in text


def test_client_health_and_facts_are_shown() -> None:
    text = visible(document("open_loop"))
    assert "Arrival times are the kernel's own stamps".replace("'", "&#39;") in text
    assert "Sent late p50, ms" in text
    assert "Run: host.cpus 2" in text
    assert "Workload: streaming yes" in text
    assert "max_in_flight" not in text  # None is left out


def test_the_search_is_told() -> None:
    text = visible(document("found"))
    assert "28 over ttft p95 is 548 ms" in text
    assert "24 within ttft p95 is 78 ms" in text
    assert "Spent: 1,240 requests, 96.0 seconds." in text


def test_an_interrupted_run_says_so() -> None:
    summary = samples.single()
    assert "was interrupted" not in document("single")
    stopped = msgspec.structs.replace(summary, run={"interrupted": True})
    assert "This run was interrupted. The report holds what had finished." in visible(html(stopped))
    failed = msgspec.structs.replace(summary, run={"failure": "a worker died"})
    assert "This run failed: a worker died" in visible(html(failed))


def test_nothing_to_show_is_still_a_report() -> None:
    assert "no level finished" in visible(html(Summary(target={}, workload={}, levels=[]))).lower()


def test_text_from_outside_stays_text() -> None:
    made = document("hostile")
    assert "<script>window" not in made
    assert "<img src=x" not in made
    assert made.count("<script") == 2  # the data and the library
    assert made.count("</script>") == 2
    assert "&lt;script&gt;window.hit=1" in made


def test_no_address_to_load_from() -> None:
    made = document("sweep")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", made)
    assert "@import" not in made


def test_write_html_writes_what_html_gives(tmp_path: Path) -> None:
    path = tmp_path / "a report.html"
    write_html(samples.single(), path)
    written = path.read_text(encoding="utf-8")
    assert written.startswith("<!doctype html>")
    assert visible(written) == visible(document("single"))
    with pytest.raises(OSError, match="missing"):
        write_html(samples.single(), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("clock", "said"), [("kernel", "is not in the figures"), ("user", "is in the figures"), ("virtual", "virtual time")]
)
def test_what_the_clock_means_is_said(clock: Any, said: str) -> None:
    level = samples.engine_level(1)
    level = msgspec.structs.replace(level, client=msgspec.structs.replace(level.client, clock=clock))
    assert said in words.client_in_words(Summary(target={}, workload={}, levels=[level]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("opening the report needs Chromium on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def opened(browser: Browser, name: str, path: Path, width: int, **options: Any) -> Page:
    """The report in a browser without network; any request, error or warning of the page fails the test."""
    path.write_text(document(name), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    context.set_default_timeout(120_000)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    if options.get("java_script_enabled", True):
        page.get_by_role("button", name="Unfold all").click()
        places, charts = (f"document.querySelectorAll('{x}').length" for x in (".plot", ".plot svg"))
        page.wait_for_function(f"{places} === {charts}")
    assert [x for x in troubles if not x.startswith("data:,")] == []
    return page


OVERLAPPING = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('.chart svg')) {
    const boxes = [...svg.querySelectorAll('text')]
      .map((t) => [t.textContent, t.getBoundingClientRect(), getComputedStyle(t).opacity])
      .filter(([text, box, opacity]) => text.trim() && box.width && opacity !== '0');
    boxes.forEach(([a, p], n) => boxes.slice(n + 1).forEach(([b, q]) => {
      const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (across > 1 && down > 3) found.push(a + ' / ' + b);
    }));
  }
  return found;
}"""


@pytest.mark.parametrize("name", first(1, ["found", "sweep", "troubled", "single", "open_loop"]))
def test_it_opens_offline_with_charts_that_can_be_read(browser: Browser, tmp_path: Path, name: str) -> None:
    page = opened(browser, name, tmp_path / "report.html", 1200)
    assert page.locator(".plot svg").count() >= (1 if name == "single" else 3)
    for width, plot in ((1200, 960), (800, 610), (600, 440), (400, 255)):
        page.set_viewport_size({"width": width, "height": 900})
        page.locator(f"#chart0 svg path[d='M0,0h{plot}v320h-{plot}Z']").first.wait_for(state="attached")
        assert page.locator("#chart0 svg text").filter(has_text="Request latency (s)").count() == 1
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for box in page.locator(".chart").all():
            assert box.evaluate("x => x.scrollWidth <= x.clientWidth"), "a chart is wider than its place"
    page.context.close()


@functools.cache
def measured() -> str:
    """The report of levels in virtual time, with all that can be drawn of single levels."""
    measure = virtual_measure("demo", duration_s=4.0, output_tokens=(64.0, 0.6))
    results = [measure(load) for load in (Concurrency(4), Concurrency(16), Rate(8.0))]
    levels = [result.level for result in results]
    timeline = Timeline(1.0, [100.0, 400.0], [0, 0], [Span(Concurrency(4), 0.0, 1.0)], in_flight=[4, 16], failed=[0, 2])
    summary = Summary(
        target={}, workload={}, levels=levels, operating_points=operating_points(levels), timeline=timeline,
        run={"settings": {"budget": "ttft p95 < 20ms"}},
    )  # fmt: skip
    return html(summary, [pictured(result, str(result.load)) for result in results])


class TestPlates:
    """What can be done with a chart, by mouse, by keyboard and by ear."""

    @pytest.fixture
    def page(self, browser: Browser, tmp_path: Path) -> Iterator[Page]:
        page = opened(browser, "measured", tmp_path / "report.html", 1200)
        yield page
        page.context.close()

    def test_every_chart_has_its_table(self, page: Page) -> None:
        for figure in page.locator("figure.chart").all():
            table = figure.get_by_role("button", name="Table")
            assert figure.locator(".rows").is_hidden()
            table.focus()
            page.keyboard.press("Enter")
            assert table.get_attribute("aria-expanded") == "true"
            assert figure.locator(".rows tbody tr").count() > 1
            assert figure.get_attribute("aria-label")
        spread = page.locator("#spread")
        assert spread.locator(".rows th").first.inner_text() == "Level"
        assert spread.locator(".rows tbody tr").count() == 3

    @pytest.mark.slow(shared=True)
    def test_every_chart_can_be_taken_away(self, page: Page, tmp_path: Path) -> None:
        for figure in page.locator("figure.chart").all():
            for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
                with page.expect_download() as download:
                    figure.get_by_role("button", name=kind).click()
                download.value.save_as(tmp_path / "chart")
                assert (tmp_path / "chart").read_bytes().startswith(start)
            page.wait_for_timeout(300)  # Chromium drops what is beyond ten downloads a second

    @pytest.mark.slow(shared=True)
    def test_a_level_can_be_picked(self, page: Page) -> None:
        lanes = page.locator("#lanes")
        assert lanes.locator("select option").all_inner_texts() == [
            "concurrency 4", "concurrency 16", "8 requests/s poisson",
        ]  # fmt: skip
        heights = []
        for name in ("concurrency 4", "concurrency 16"):
            lanes.get_by_role("combobox", name="Level").select_option(label=name)
            page.wait_for_timeout(500)
            heights.append(lanes.locator(".plot svg").bounding_box()["height"])  # type: ignore[index]
        assert heights[0] < heights[1]
        page.locator("#spread select").select_option(label="TPOT")
        page.locator("#spread svg text").filter(has_text="TPOT (ms").first.wait_for()
        assert page.locator("#spread svg text").filter(has_text="ttft p95 < 20ms").count() == 0

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.slow(shared=True)
    def test_axe_finds_no_fault(self, page: Page, scheme: Any) -> None:
        page.emulate_media(color_scheme=scheme)
        page.locator("#spread").get_by_role("button", name="Table").click()
        page.wait_for_timeout(500)
        found = Axe().run(page).response["violations"]
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found] == []

    @pytest.mark.slow(shared=True)
    def test_what_is_folded_can_be_read_on_paper(self, page: Page) -> None:
        page.evaluate("document.querySelectorAll('details').forEach(x => x.open = false)")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.emulate_media(media="print")
        assert page.locator(".tools").first.is_hidden()


@pytest.mark.parametrize("name", first(1, ["sweep", "troubled", "found"]))
def test_what_a_notebook_shows_needs_nothing_but_itself(browser: Browser, name: str) -> None:
    """As Databricks' display shows it: the HTML of a run within a page of somebody else's, dark and without scripts."""
    context = browser.new_context(viewport={"width": 700, "height": 900}, offline=True, java_script_enabled=False)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown = notebook.fragment(getattr(samples, name)())
    page.set_content(f"<body style='background: black; color: white'>{shown}</body>")
    box = page.locator("svg").bounding_box()
    assert box is not None
    assert box["width"] > 500
    assert box["height"] > 300
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    words = page.locator("p").first
    assert words.evaluate("x => getComputedStyle(x).color") == "rgb(0, 0, 0)"
    assert words.inner_text()
    assert asked == []
    context.close()


def test_hostile_text_does_not_run(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, "hostile", tmp_path / "report.html", 1200)
    page.locator("#chart0 svg path[aria-label*='Verdict: suspect']").first.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "The server said" in tip.inner_text()
    assert tip.locator("img, script").count() == 0
    assert page.evaluate("window.hit") is None
    assert page.title() == f"pacemark: {HOSTILE} at http://127.0.0.1/{HOSTILE}"
    page.context.close()


@pytest.mark.slow(shared=True)
def test_an_invalid_point_says_why_on_hover(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, "troubled", tmp_path / "report.html", 1200)
    page.locator("#chart0 svg path[aria-label*='Verdict: invalid']").first.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "too busy to be trusted" in tip.inner_text()
    page.context.close()


@pytest.mark.slow(shared=True)
def test_dark_readers_get_dark_charts(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, "single", tmp_path / "report.html", 1200, color_scheme="dark")
    drawn = page.locator("#chart0 svg").first
    assert drawn.evaluate("x => getComputedStyle(x).backgroundColor") == "rgb(27, 31, 36)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 26)"
    page.context.close()


def test_without_scripts_the_charts_are_there_too(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, "sweep", tmp_path / "report.html", 1200, java_script_enabled=False)
    box = page.locator("noscript svg").bounding_box()
    assert box is not None
    assert box["width"] > 500
    assert box["height"] > 500
    page.context.close()
