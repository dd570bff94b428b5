"""The built book in a real browser: system Chromium, with everything but this machine out of reach.

The book of the tiny chapter proves the pages of the theme and of the workflow; `_build/html`, where it
exists, is visited page by page as well. Without a browser the tests are skipped.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import re
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
    """Bytes of what a page loaded, as it is: a server that compresses sends a third of it."""
    return sum((html / path.lstrip("/")).stat().st_size for path in set(paths))


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


def chapter_with_view(html):
    """The chapters that carry an interactive view, by name."""
    found = [
        path for path in sorted((html / "notebooks").glob("*.html")) if 'class="view"' in path.read_text()
    ]
    assert found, "no chapter has an interactive view"
    return found


def opened_view(page, address, chapter):
    """The figure whose view was opened, reached with the keyboard."""
    page.goto(f"{address}/notebooks/{chapter.name}")
    plotly = "performance.getEntriesByType('resource').some((e) => e.name.includes('plotly'))"
    figure = page.locator("figure:has(.view-box)").first
    assert figure.locator("img").is_visible() and not page.evaluate(plotly)
    figure.locator(".view-button").focus()
    page.keyboard.press("Enter")
    figure.locator("output").wait_for()
    page.wait_for_function("document.querySelector('.view-panel output').textContent")
    assert not figure.locator("img").is_visible() and page.evaluate(plotly)
    return figure


def test_a_view_answers_a_hover_and_a_slider(page, site):
    html, address = site
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for chapter in chapter_with_view(html):
        figure = opened_view(page, address, chapter)
        figure.locator(".view-plot").scroll_into_view_if_needed()
        box = figure.locator(".nsewdrag").first.bounding_box()
        for k in range(20):  # over a line of points one has to look for one
            page.mouse.move(
                box["x"] + box["width"] * (0.3 + 0.02 * k), box["y"] + box["height"] * 0.04 * (k + 1)
            )
            page.wait_for_timeout(60)
            if texts := figure.locator(".hoverlayer text").all_text_contents():
                break
        assert re.search(r"\d", "".join(texts)), chapter.stem
        output, slider = figure.locator("output"), figure.locator("input[type=range]")
        before = output.inner_text()
        slider.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        at_start = output.inner_text()
        for _ in range(3):
            page.keyboard.press("PageUp")
        assert len({before, at_start, output.inner_text()}) >= 2 and output.inner_text() != at_start
        assert slider.get_attribute("aria-valuetext") == output.inner_text()
        assert figure.locator("label").inner_text().strip()
        figure.locator(".view-button").click()
        assert figure.locator("img").is_visible() and not figure.locator(".view-panel").is_visible()
    assert errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_open_view_is_accessible_and_fits_a_phone(page, site, theme):
    import axe_playwright_python

    html, address = site
    for chapter in chapter_with_view(html):
        page.set_viewport_size(PHONE)
        opened_view(page, address, chapter)
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        page.add_style_tag(content="* { transition: none !important; }")
        page.wait_for_timeout(300)
        page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
        assert [text for impact, text in page.evaluate(AXE) if impact in SERIOUS] == []
        assert page.evaluate(WIDER) == ""
        ink = page.evaluate("getComputedStyle(document.querySelector('.view-panel')).color")
        drawn = page.evaluate("getComputedStyle(document.querySelector('.view-plot .ytick text')).fill")
        assert drawn == ink


def test_without_javascript_the_picture_and_its_words_are_there(browser, site):
    html, address = site
    context = browser.new_context(viewport=WIDE, java_script_enabled=False)
    page = context.new_page()
    for chapter in chapter_with_view(html):
        page.goto(f"{address}/notebooks/{chapter.name}")
        figure = page.locator(f"figure#{chapter.stem}-hero, figure").first
        assert figure.locator("img").is_visible() and figure.locator("figcaption").is_visible()
        assert page.locator(".view-button").count() == 0 and not page.locator(".view-note").first.is_visible()
    context.close()


def test_the_whole_book_stays_small(site):
    """Under 60 MB with 44 chapters, at the size of the chapters that stand; the pages around them stay."""
    html, _ = site
    sizes = {path: path.stat().st_size for path in html.rglob("*") if path.is_file()}
    chapters = [path.stem for path in (html / "notebooks").glob("*.html")]
    pictures = {name for slug in chapters for name in re.findall(r"_images/([\w.-]+)", read(html, slug))}
    own = sum(size for path, size in sizes.items() if path.stem in chapters or path.name in pictures)
    others = sum(sizes.values()) - own
    whole = others + own / len(chapters) * 44
    print(f"{len(chapters)} chapters: {sum(sizes.values()) / 1e6:.1f} MB; 44 chapters: {whole / 1e6:.1f} MB")
    assert whole < 60e6


def read(html, slug):
    return (html / f"notebooks/{slug}.html").read_text()


def test_papers_and_chapters_link_to_each_other(page, site):
    html, address = site
    page.goto(f"{address}/book/bibliography.html")
    for chapter in sorted((html / "notebooks").glob("*.html")):
        assert page.locator(f".reproduced a[href$='notebooks/{chapter.name}']").count() == 1
    page.goto(f"{address}/notebooks/{chapter.name}")
    note = page.locator("aside.footnote, dl.footnote, .footnote").first
    back = note.locator("a.fn-backref, .fn-backref, .backrefs a, a[role=doc-backlink]").first
    start = page.locator(back.get_attribute("href"))
    assert start.is_visible() and start.get_attribute("href").lstrip("#") in note.evaluate(
        "(e) => [e.id, ...[...e.querySelectorAll('[id]')].map((inner) => inner.id)]"
    )


def test_equations_and_figures_have_numbers_and_references_lead_to_them(page, site):
    html, address = site
    for chapter in sorted((html / "notebooks").glob("*.html")):
        page.goto(f"{address}/notebooks/{chapter.name}")
        numbers = page.locator("figcaption .caption-number").all_text_contents()
        assert numbers and all(re.fullmatch(r"Fig\. \d+\s*", number) for number in numbers)
        assert page.locator("div.math .eqno").count() == page.locator("div.math[id]").count() > 0
        wrong = page.eval_on_selector_all(
            "a.reference.internal[href^='#']:has(.std-numref), a.reference.internal[href^='#equation']",
            "all => all.filter((a) => !document.getElementById(a.hash.slice(1))).map((a) => a.hash)",
        )
        assert wrong == []
    assert page.locator("a.reference.internal[href^='#equation']").count() > 0


def test_the_book_has_a_face_of_its_own(page, site):
    html, address = site
    page.goto(f"{address}/book/index.html")
    icon = page.get_attribute("link[rel=icon]", "href")
    assert icon.endswith("favicon.svg") and (html / "book" / icon).exists()
    assert page.locator(".navbar-brand img").first.get_attribute("src").endswith("wordmark.svg")
    assert page.get_attribute("meta[property='og:image']", "content").startswith("https://")


def test_the_page_for_nothing_leads_back_from_any_depth(page, site):
    html, address = site
    text = (html / "404.html").read_text()
    page.route(
        "**/nowhere.html", lambda route: route.fulfill(status=404, body=text, content_type="text/html")
    )
    for place in ("nowhere.html", "book/nowhere.html", "notebooks/nowhere.html"):
        page.goto(f"{address}/{place}")
        assert page.evaluate("[...document.links].map((a) => a.href)") == [
            f"{address}/{name}" for name in ("book/index.html", "book/scoreboard.html", "search.html")
        ]


def test_print_leaves_out_what_only_a_screen_can_use(page, site):
    html, address = site
    page.goto(f"{address}/notebooks/{sorted((html / 'notebooks').glob('*.html'))[0].name}")
    assert page.locator(".copy-command").first.is_visible()
    page.emulate_media(media="print")
    assert not page.locator(".copy-command").first.is_visible()
    assert page.locator("table.claims").is_visible() and page.locator("figure img").first.is_visible()
