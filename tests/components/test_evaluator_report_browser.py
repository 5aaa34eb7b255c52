"""The report in a real browser without a network: it draws, fits, sorts and plays."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.report import write_report
from report_data import clips_of, small_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CURVES = {
    "det": ["curve-0", "curve-1", "curve-2", "band", "equal-error-0", "least-cost-2"],
    "scores": ["density-same-0", "density-different-0", "density-same-2", "equal-error-0", "cost-2"],
    "calibration": ["actual-0", "minimum-0", "actual-1", "minimum-1"],
    "condition-1": ["dots-0", "interval-0", "dots-2"],
    "condition-2": ["dots-0", "interval-0", "dots-2"],
}


def _missing() -> str:
    lacking = [
        name
        for name, is_there in (
            ("chromium", CHROMIUM),
            ("the package playwright", importlib.util.find_spec("playwright")),
        )
        if not is_there
    ]
    return f"{' and '.join(lacking)} not installed" if lacking else ""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    if reason := _missing():
        if os.environ.get("VOXSRC_REQUIRE_BROWSER") == "1":
            pytest.fail(f"VOXSRC_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if is_root else []
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    long = "a-very-long-name-without-any-place-to-break-it-" * 3
    data = small_report(
        num_systems=3,
        clips=clips_of,
        speakers=("anna", "ben", "carl", "dora", "emil", long),
        warnings=[f"something about gs://bucket/{long}"],
        facts={"model": long, long: "model"},
        title=f"Evaluation of {long}",
    )
    write_report(str(folder), data)
    return folder / "report.html"


@pytest.fixture
def page(browser: "Browser", report: Path) -> Iterator["Page"]:
    """The page, opened; ends with a failure if anything was complained of or asked of a network."""
    complaints: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    opened.on("request", lambda request: _note_request(complaints, request.url))
    opened.goto(report.as_uri())
    yield opened
    context.close()
    assert complaints == []


def _note_request(complaints: list[str], url: str) -> None:
    if not url.startswith(("file:", "data:")):
        complaints.append(f"request: {url}")


def test_plots_are_drawn(page: "Page") -> None:
    for plot, names in CURVES.items():
        frame = page.locator(f"#plot-{plot} svg").bounding_box()
        assert frame is not None
        assert frame["width"] > 300
        assert frame["height"] > 100
        for name in names:
            box: dict[str, float] = page.locator(f"#{plot}-{name}").evaluate(
                "element => { const b = element.getBoundingClientRect();"
                " return {x: b.x, y: b.y, width: b.width, height: b.height}; }"
            )
            place = f"{plot} {name} {box}"
            assert max(box["width"], box["height"]) > 4, place
            assert box["x"] + box["width"] > frame["x"], place
            assert box["x"] < frame["x"] + frame["width"], place


def test_curves_follow_the_colour_scheme(page: "Page") -> None:
    stroke = "element => getComputedStyle(element.querySelector('path')).stroke"
    page.emulate_media(color_scheme="light")
    light = page.locator("#det-curve-0").evaluate(stroke)
    page.emulate_media(color_scheme="dark")
    dark = page.locator("#det-curve-0").evaluate(stroke)
    assert light == "rgb(10, 102, 174)"
    assert dark == "rgb(108, 180, 242)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: "Page", scheme: Any) -> None:
    """4.5 : 1 for text, 3 : 1 for curves, as WCAG 2.2 asks."""
    page.emulate_media(color_scheme=scheme)
    ratios: dict[str, float] = page.evaluate(CONTRASTS)
    assert len(ratios) == 11
    for name, ratio in ratios.items():
        assert ratio >= (3 if "system" in name else 4.5), (name, ratio)


CONTRASTS = """() => {
  const style = getComputedStyle(document.documentElement);
  const luminance = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ratio = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };
  const found = {
    ink: ratio("--ink", "--paper"), muted: ratio("--muted", "--panel"),
    accent: ratio("--accent", "--paper"), warning: ratio("--warn-ink", "--warn-paper"),
  };
  for (let n = 0; n < 7; n += 1) found[`system-${n}`] = ratio(`--system-${n}`, "--paper");
  return found;
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_page_does_not_scroll_sideways(page: "Page", width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = page.evaluate(
        "Array.from(document.querySelectorAll('body *'))"
        ".filter(e => !e.closest('.scroll, svg, .hidden') || e.matches('.scroll, svg'))"
        f".filter(e => e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []


def test_wide_tables_scroll_in_their_box(page: "Page") -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    box = page.locator("#results .scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")
    box.evaluate("e => { e.scrollLeft = 50; }")
    assert box.evaluate("e => e.scrollLeft") == 50


def test_sorting(page: "Page") -> None:
    table = page.locator("#speakers table").first
    column = table.locator("th", has_text="of trials")

    def shown() -> list[float]:
        values: list[float] = table.evaluate(
            "t => Array.from(t.tBodies[0].rows, r => parseFloat(r.cells[3].dataset.key))"
        )
        return values

    before = shown()
    assert len(before) == 10
    assert before != sorted(before)
    column.get_by_role("button").click()
    assert shown() == sorted(before)
    assert column.get_attribute("aria-sort") == "ascending"
    column.get_by_role("button").press("Enter")
    assert shown() == sorted(before, reverse=True)
    assert column.get_attribute("aria-sort") == "descending"

    table.locator("th", has_text="speaker").get_by_role("button").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert column.get_attribute("aria-sort") is None


def test_missing_values_are_sorted_last(page: "Page") -> None:
    table = page.locator("#results table").first
    button = table.locator("th", has_text="Cllr").get_by_role("button")
    for _ in range(2):
        button.click()
        assert table.locator("tbody th").all_inner_texts()[-1] == "system 2"


def test_clips_load_and_play_one_at_a_time(page: "Page") -> None:
    durations: list[float] = page.evaluate(
        "Promise.all(Array.from(document.querySelectorAll('audio'), a => new Promise((done, failed) => {"
        " a.onloadedmetadata = () => done(a.duration);"
        " a.onerror = () => failed(new Error(a.error.message));"
        " a.preload = 'metadata'; a.load(); })))"
    )
    assert len(durations) == 40
    assert durations == pytest.approx([0.5] * 40, abs=0.01)
    paused: list[bool] = page.evaluate(
        "async () => { const [a, b] = document.querySelectorAll('audio');"
        " a.muted = b.muted = a.loop = b.loop = true;"
        " await a.play(); const before = a.paused; await b.play();"
        " return [before, a.paused, b.paused]; }"
    )
    assert paused == [False, True, False]


def test_works_without_scripts(browser: "Browser", report: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.locator("table").count() == 7
    assert opened.locator("thead button").count() == 0
    assert opened.locator("audio").count() == 40
    assert opened.locator("#det-curve-0").count() == 1
    context.close()


def test_works_in_a_sandboxed_frame(browser: "Browser", report: Path) -> None:
    """As Kubeflow Pipelines shows it: a frame of another origin, without storage."""
    errors: list[str] = []
    context = browser.new_context(offline=True)
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_content('<iframe sandbox="allow-scripts" width="700" height="700"></iframe>')
    text = report.read_text(encoding="utf-8")
    opened.locator("iframe").evaluate("(frame, text) => { frame.srcdoc = text; }", text)
    frame = opened.frame_locator("iframe")
    frame.locator("#speakers thead button").first.click()
    assert frame.locator("#speakers th[aria-sort]").count() == 1
    assert (frame.locator("#plot-det svg").bounding_box() or {"width": 0})["width"] > 300
    context.close()
    assert errors == []


def test_prints(page: "Page") -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
