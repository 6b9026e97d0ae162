"""The shell of a page: head, style, script. Nothing is loaded from elsewhere, and nothing else may run."""

from __future__ import annotations

import base64
import hashlib

from airls_ray.report.markup import Child, Markup, element
from airls_ray.report.style import SCRIPT, STYLE


def page(title: str, *body: Child) -> str:
    """Return a whole HTML document.

    The content security policy allows our one script (by its hash) and no network, so that even text
    that slipped through the escaping could do nothing.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    content = element("body", element("main", *body), element("script", Markup(SCRIPT)))
    return "<!doctype html>\n" + element("html", head, content, lang="en") + "\n"


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
