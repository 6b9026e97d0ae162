"""The shell of a page: head, style, script. Nothing is loaded from elsewhere, and nothing else may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from airls_ray.report.markup import Child, fill
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
    style = STYLE + asset("browser.css")
    return fill("page.html", title=title, body=body, policy=policy, style=style, scripts=scripts) + "\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def section(title: str, *content: Child, intro: str = "", folded: bool = False) -> Markup | None:
    """Return a section with its heading, None if it has no content; `folded` ones open on a click."""
    inside = [part for part in content if part]
    if not inside:
        return None
    return fill("section.html", title=title, parts=inside, intro=intro, folded=folded)
