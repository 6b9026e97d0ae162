"""What mkdocs needs beyond docs/: the README as the first page, and pictures that lie elsewhere.

Links to files of the repository that are no pages become their paths as code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_PICTURES = (".png", ".svg", ".jpg")


def on_files(files: Any, config: Any) -> Any:
    """Add the README and the pictures outside docs/."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"index.md": readme} | {
        one.src_uri: one.content_string for one in files.documentation_pages() if one.src_uri != "index.md"
    }
    files.append(File.generated(config, "index.md", content=readme))
    links = {_path(page, target) for page, text in pages.items() for _, _, target in _LINK.findall(text)}
    for path in sorted(links):
        if path.endswith(_PICTURES) and not path.startswith("docs/") and (ROOT / path).is_file():
            files.append(File.generated(config, f"outside/{path}", content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links to what is on the site.

    Raises:
        PluginError: one leads to a file that does not exist.
    """
    from mkdocs.exceptions import PluginError

    def changed(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        place, _, anchor = target.partition("#")
        if not place or "://" in target or place.startswith("mailto:"):
            return match.group(0)
        path = _path(page.file.src_uri, place)
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri}: the link {target} leads nowhere")
        found = {"README.md": "index.md"}.get(
            path, path.removeprefix("docs/") if path.startswith("docs/") else ""
        )
        if mark and not found:
            found = f"outside/{path}"
        if not found:
            return f"{text} (`{path}`)" if path.strip("/") not in text else text
        return f"{mark}[{text}]({found}{'#' if anchor else ''}{anchor})"

    return _LINK.sub(changed, markdown)


def _path(page: str, target: str) -> str:
    """Return what a link of a page means, from the root of the repository."""
    folder = "" if page == "index.md" else "docs"
    return posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
