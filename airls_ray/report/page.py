"""The shell of a page: head, style, script. Nothing is loaded from elsewhere, and nothing else may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from airls_ray.report.markup import Child, Markup, element
from airls_ray.report.style import SCRIPT, STYLE


@cache
def asset(name: str) -> str:
    """Return the text of a file beside this module, such as `browser.js`."""
    return files("airls_ray.report").joinpath(name).read_text(encoding="utf-8")


def page(title: str, *body: Child, scripts: Sequence[str] = (SCRIPT,)) -> str:
    """Return a whole HTML document.

    The content security policy allows our own `scripts` (by their hashes) and no network, so that even text
    that slipped through the escaping could do nothing.
    """
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE + asset("browser.css"))),
    )
    run = [element("script", Markup(script)) for script in scripts]
    content = element("body", element("main", *body), run)
    return "<!doctype html>\n" + element("html", head, content, lang="en") + "\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def section(title: str, *content: Child, intro: str = "", folded: bool = False) -> Markup | None:
    """Return a section with its heading, None if it has no content; `folded` ones open on a click."""
    inside = [part for part in content if part]
    if not inside:
        return None
    if folded:
        return element("details", element("summary", title), element("p", intro) if intro else None, inside)
    return element(
        "section", element("h2", title), element("p", intro, class_="intro") if intro else None, inside
    )
