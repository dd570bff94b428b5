"""The built book in a real browser: system Chromium, with everything but this machine out of reach.

The book of the tiny chapter proves the pages of the theme and of the workflow; `_build/html`, where it
exists, is visited page by page as well. Without a browser the tests are skipped.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import importlib.util
import io
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import ROOT, execute_tiny, make_tiny

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PACKAGES = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(
    BROWSER is None or len(PACKAGES) < 2,
    reason="no browser: apt-get install --no-install-recommends chromium (and pip install playwright)",
)

PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}
SERIOUS = ("serious", "critical")
CHECKS = (
    "requests that leave the machine",
    "console errors",
    "broken images",
    "figures without alt text or caption",
    "mathematics that is not rendered",
    "accessibility, light",
    "accessibility, dark",
    "horizontal scroll on a phone",
    "figures that do not read on their ground",
    "pages heavier than 2 MB",
)

FIGURES = """() => [...document.querySelectorAll('.bd-article figure, .bd-article .cell_output img')].filter(
  (e) => e.tagName === 'FIGURE' ? !e.querySelector('figcaption') || !e.querySelector('img')?.alt
                                : !e.alt || !e.closest('figure')).map((e) => e.id || e.src.slice(-40))"""
BROKEN = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = 'eager';
  await Promise.all(images.map((image) => image.decode().catch(() => 0)));
  return images.filter((image) => !image.naturalWidth).map((image) => image.src);
}"""
MATHEMATICS = """async () => {
  const asked = document.querySelectorAll('.bd-article .math').length;
  if (!asked) return '';
  await MathJax.startup.promise;
  const made = document.querySelectorAll('mjx-container').length;
  const wrong = document.querySelectorAll('mjx-merror').length;
  return made && !wrong ? '' : `${asked} formulas, ${made} rendered, ${wrong} with errors`;
}"""
LOADED = """() => ['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))
  .map((entry) => new URL(entry.name).pathname)"""
WIDER = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return '';
  const wide = [...document.querySelectorAll('.bd-main *')].find(
    (e) => e.getBoundingClientRect().right > room + 1);
  return `${document.documentElement.scrollWidth} px: ${wide?.outerHTML.slice(0, 120)}`;
}"""
# Of very long reference pages axe reads the first entries: it takes a minute for thousands of one kind.
AXE = """() => axe.run(document.querySelectorAll('*').length < 4000 ? document :
    {include: [document], exclude: [['.bd-article section > section:nth-of-type(n+3)'], ['.indextable']]},
  {preload: false, resultTypes: ['violations']}).then(
  (found) => found.violations.map(
    (v) => [v.impact, `${v.id}: ${v.nodes.length} x ${v.nodes[0].html.slice(0, 120)}`]))"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *details):
        pass


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["tiny book", "the book"])
def site(request, tmp_path_factory):
    """Folder and address of a built book on the loopback."""
    html = ROOT / "_build/html"
    if request.param == "tiny book":
        root = make_tiny(tmp_path_factory.mktemp("browser") / "checkout")
        execute_tiny(root)
        html = root / "_build/html"
        for script, target in (
            ("stage.py", [root / "_build/stage"]),
            ("render.py", [root / "_build/stage", html]),
        ):
            command = [sys.executable, ROOT / "workflow" / script, *target]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True)
            assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    elif not html.exists():
        pytest.skip("no book built yet: make book")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield html, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser, site):
    """A fresh page that starts in the light; a request that would leave the machine is cut off."""
    context, page = new_page(browser, [])
    page.set_default_timeout(30_000)
    yield page
    context.close()


def new_page(browser, left):
    context = browser.new_context(viewport=WIDE, color_scheme="light")

    def local_only(route):
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            return route.continue_()
        left.append(route.request.url)
        return route.abort()

    context.route("**/*", local_only)
    return context, context.new_page()


@pytest.fixture(scope="module")
def faults(browser, site):
    """Every page visited once, light and dark, wide and as on a phone: check -> what is wrong."""
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    html, address = site
    found, now, left = defaultdict(list), [""], []
    context, page = new_page(browser, left)
    page.on("console", lambda m: m.type == "error" and found["console errors"].append(f"{now[0]}: {m.text}"))
    page.on("pageerror", lambda error: found["console errors"].append(f"{now[0]}: {error}"))
    for name in names(html):
        now[0] = name
        page.set_viewport_size(WIDE)
        page.goto(f"{address}/{name}", wait_until="load")
        note = lambda check, faults, name=name: found[check].extend(f"{name}: {fault}" for fault in faults)  # noqa: E731
        note("broken images", page.evaluate(BROKEN))
        note("figures without alt text or caption", page.evaluate(FIGURES))
        note("mathematics that is not rendered", filter(None, [page.evaluate(MATHEMATICS)]))
        chapter = name.startswith("notebooks/")
        if chapter and (size := weight(html, page.evaluate(LOADED))) > 2e6:
            note("pages heavier than 2 MB", [f"{size / 1e6:.2f} MB"])
        page.evaluate(axe)
        # Colours fade from one theme to the other: contrast is measured at the end of it.
        page.add_style_tag(content="* { transition: none !important; }")
        for theme in ("light", "dark"):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            if chapter:
                note("figures that do not read on their ground", unreadable(page, theme))
            if not name.startswith("_modules/reprise/"):  # source listings: one template, thousands of words
                violations = page.evaluate(AXE)
                note(f"accessibility, {theme}", [text for impact, text in violations if impact in SERIOUS])
        page.set_viewport_size(PHONE)
        note("horizontal scroll on a phone", filter(None, [page.evaluate(WIDER)]))
    context.close()
    found["requests that leave the machine"] = left
    return found


def names(html):
    """The pages of a built book."""
    pages = sorted(str(path.relative_to(html)) for path in html.rglob("*.html"))
    return [name for name in pages if name != "index.html" and not name.startswith("_static/")]


def weight(html, paths):
    """Bytes of what a page loaded, text compressed as a web server sends it."""
    size = 0
    for path in {path.lstrip("/") for path in paths}:
        content = (html / path).read_bytes()
        packed = path.endswith((".html", ".css", ".js", ".svg", ".json"))
        size += len(gzip.compress(content)) if packed else len(content)
    return size


def unreadable(page, theme):
    """Figures whose ink does not stand out: under 0.3 % of the pixels at a contrast of 3:1 or more."""
    import numpy as np
    from PIL import Image

    faults = []
    for figure in page.query_selector_all(".bd-article .cell_output img"):
        picture = Image.open(io.BytesIO(figure.screenshot())).convert("RGB")
        pixels = np.asarray(picture, dtype=float).reshape(-1, 3) / 255
        linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
        light = linear @ [0.2126, 0.7152, 0.0722]
        ground = np.median(light)
        if (ground > 0.5) != (theme == "light"):
            faults.append(f"{theme}: the ground is not the page's: {figure.get_attribute('alt')[:60]}")
        ratio = (np.maximum(light, ground) + 0.05) / (np.minimum(light, ground) + 0.05)
        if (ratio >= 3).mean() < 0.003:
            faults.append(f"{theme}: faint: {figure.get_attribute('alt')[:60]}")
    return faults


@pytest.mark.parametrize("check", CHECKS)
def test_every_page_is_free_of(faults, check):
    assert faults[check] == []


def test_search_finds_a_term(page, site):
    html, address = site
    chapter = sorted((html / "notebooks").glob("*.html"))[0].stem
    page.goto(f"{address}/search.html?q={chapter.split('-')[0]}")
    page.wait_for_selector("#search-results li a")
    links = page.eval_on_selector_all("#search-results li a", "all => all.map((a) => a.href)")
    assert any("/notebooks/" in link for link in links)


def press_until(page, reached, key="Tab", limit=150):
    """Press a key until the focused element is the one that is looked for."""
    for _ in range(limit):
        page.keyboard.press(key)
        if page.evaluate(f"() => {{ const e = document.activeElement; return {reached}; }}"):
            return
    raise AssertionError(f"{limit} times {key} do not reach {reached}")


def test_the_keyboard_leads_from_the_index_to_the_cell_of_a_claim(page, site):
    _, address = site
    page.goto(f"{address}/book/index.html")
    press_until(page, "e.closest('main') && e.href?.includes('scoreboard.html')")
    page.keyboard.press("Enter")
    page.wait_for_selector("table.scoreboard")
    press_until(page, "e.closest('table.scoreboard') && /notebooks.*#C/.test(e.href ?? '')")
    page.keyboard.press("Enter")
    page.wait_for_selector("table.claims tbody:target")
    press_until(page, "e.matches('tbody:target a.claim-cell')")
    page.keyboard.press("Enter")
    page.wait_for_function("""() => {
      let e = document.querySelector('.cell-anchor:target');
      while (e && !e.matches('.cell')) e = e.nextElementSibling;
      return e?.querySelector('.cell_input').checkVisibility();
    }""")


def test_the_scoreboard_filters_and_sorts(page, site):
    _, address = site
    page.goto(f"{address}/book/scoreboard.html")
    shown = "rows => rows.filter((row) => row.checkVisibility()).map((row) => row.dataset.verdict)"
    claims = "table.scoreboard > tbody.claim"
    everything = page.eval_on_selector_all(claims, shown)
    page.select_option("#filter-verdict", "partly")
    partly = page.eval_on_selector_all(claims, shown)
    assert partly == ["partly"] * everything.count("partly") and len(partly) < len(everything)
    assert f"{len(partly)} of {len(everything)} claims" in page.inner_text(".scoreboard-count")
    page.select_option("#filter-verdict", "")
    page.select_option("#sort", "verdict")
    order = ["not reproduced", "partly", "reproduced", "not tested at this scale"]
    after = page.eval_on_selector_all(claims, shown)
    assert after == sorted(everything, key=order.index)
    page.select_option("#sort", "")
    assert page.eval_on_selector_all(claims, shown) == everything
    page.goto(f"{address}/book/scoreboard.html?verdict=partly")
    assert set(page.eval_on_selector_all(claims, shown)) <= {"partly"}


def test_a_command_is_copied(page, site):
    html, address = site
    chapter = sorted((html / "notebooks").glob("*.html"))[0]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.goto(f"{address}/notebooks/{chapter.name}")
    button = page.locator("button.copy-command").first
    button.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"reprise run {chapter.stem}")
    assert "opied" in button.inner_text()
