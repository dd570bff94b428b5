"""Make a built book light: what no page needs goes, what every page loads gets small.

No page changes its look: styles for classes that no page and no script names go, and with them their icons
from the icon fonts; pictures are stored with a palette where the eye cannot tell; a notebook to download is
the one of the repository.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

# Of the theme: draws the icons, which a font draws as well (1.5 MB), and search, which one page needs.
ICON_SCRIPT = re.compile(r"\s*<(script|link)[^>]*scripts/fontawesome\.js[^>]*>(</script>)?")
SEARCH_SCRIPT = re.compile(
    r'\s*<script src="[^"]*(searchtools|language_data|searchindex)\.js[^"]*"></script>'
)


def slim(html: Path, notebooks: Path) -> None:
    """Lighten the built book in `html`; `notebooks` holds those of the repository."""
    for page in html.rglob("*.html"):
        text = ICON_SCRIPT.sub("", page.read_text(encoding="utf-8"))
        if page.name != "search.html":
            text = SEARCH_SCRIPT.sub("", text)
        page.write_text(text, encoding="utf-8")
    for path in [*(html / "_static/scripts").glob("fontawesome.js*"), *html.glob("_static/**/*.map")]:
        path.unlink(missing_ok=True)
    styles(html)
    icons(html)
    for path in (html / "_images").glob("*.png"):
        repack(path)
    for path in [*html.glob("_sources/notebooks/*.ipynb"), *html.glob("_downloads/*/*.ipynb")]:
        shutil.copy(notebooks / path.name, path)


def styles(html: Path) -> None:
    """Leave in the styles of the theme and its extensions the rules for what pages and scripts name."""
    words: set[str] = set()
    for path in [*html.rglob("*.html"), *html.glob("_static/**/*.js")]:
        if "mathjax" not in path.parts and "plotly" not in path.parts:
            words |= set(re.findall(r"[A-Za-z_][\w-]*", path.read_text(encoding="utf-8")))
    for path in [*html.glob("_static/styles/*.css"), *html.glob("_static/*.css")]:
        if path.name != "custom.css":
            css = path.read_text(encoding="utf-8")
            comment = re.compile(r"/\*.*?\*/", re.DOTALL)
            licences = [text for text in comment.findall(css) if text.startswith("/*!")]
            path.write_text("".join([pruned(comment.sub("", css), words), *licences]), encoding="utf-8")


def pruned(css: str, words: set[str]) -> str:
    """The rules of a style sheet without comments that can apply where only `words` occur as classes."""
    kept, at = [], 0
    while (opening := css.find("{", at)) >= 0:
        # A statement such as @charset ends before the rule begins.
        start = css.rfind(";", at, opening) + 1 or at
        kept.append(css[at:start])
        closing = _closing(css, opening)
        head, body = css[start:opening], css[opening + 1 : closing]
        name = head.lstrip()
        if name.startswith(("@media", "@supports")):
            inner = pruned(body, words)
            kept += [f"{head}{{{inner}}}"] if "{" in inner else []
        elif name.startswith("@"):
            kept.append(css[start : closing + 1])
        else:
            chosen = [s for s in re.split(r",(?![^(]*\))", head) if _classes(s) <= words]
            kept += [f"{','.join(chosen)}{{{body}}}"] if chosen else []
        at = closing + 1
    return "".join([*kept, css[at:]])


def _closing(css: str, opening: int) -> int:
    depth = 0
    for brace in re.finditer(r"[{}]", css[opening:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return opening + brace.start()
    raise ValueError(f"a style sheet has an open rule: {css[opening - 60 : opening]}")


def _classes(selector: str) -> set[str]:
    """The classes that an element must have, or be within, for a selector to apply."""
    return set(re.findall(r"\.([A-Za-z_][\w-]*)", re.sub(r":(not|is|where|has)\([^)]*\)", "", selector)))


def icons(html: Path) -> None:
    """Leave in the icon fonts the icons that the styles name."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    folder = html / "_static/vendor/fontawesome/webfonts"
    sheets = {path: path.read_text(encoding="utf-8") for path in html.glob("_static/**/*.css")}
    kept = {int(code, 16) for css in sheets.values() for code in re.findall(r"\\(f[0-9a-f]{3})\b", css)}
    for font in folder.glob("*.ttf"):
        small = TTFont(font)
        subsetter = subset.Subsetter(subset.Options(layout_features=[], notdef_outline=True))
        subsetter.populate(unicodes=kept)
        subsetter.subset(small)
        small.flavor = "woff"
        small.save(font.with_suffix(".woff"))
        for old in (font, font.with_suffix(".woff2")):
            old.unlink(missing_ok=True)
    both = re.compile(r'\.woff2\) format\("woff2"\),url\([^)]*\.ttf\) format\("truetype"\)')
    for path, css in sheets.items():
        path.write_text(both.sub('.woff) format("woff")', css), encoding="utf-8")


def repack(path: Path, far: float = 1.0) -> None:
    """Store a PNG with a palette of 256 colours if that is smaller and changes little.

    far: largest mean difference of a channel, of 255.
    """
    import numpy as np
    from PIL import Image

    picture = Image.open(path).convert("RGBA")
    packed = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    before, after = (np.asarray(p.convert("RGBA"), dtype=float) for p in (picture, packed))
    # What is transparent has no colour.
    weight = np.concatenate([np.repeat(before[..., 3:] / 255, 3, axis=-1), np.ones_like(before[..., 3:])], -1)
    file = io.BytesIO()
    packed.save(file, "png", optimize=True)
    if (np.abs(after - before) * weight).mean() <= far and file.tell() < path.stat().st_size:
        path.write_bytes(file.getvalue())
