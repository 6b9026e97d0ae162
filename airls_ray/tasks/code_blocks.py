"""The program of a response: which of its blocks of code is graded."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

from airls_ray.tasks.answers import without_thoughts

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:>[ \t]?)?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)\n", re.MULTILINE
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "python2", "pypy", "pypy3")
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0|\bos\.read\b|\bfileinput\b")


def program_of(response: str, details: dict[str, Any]) -> str:
    """Return the program of a response: one of its Python blocks, else of its blocks, else all of it.

    Of several blocks the last counts that defines the function under test (or reads standard input); what
    follows it is an example of use. Without such a block the last one counts. Names that it needs and that
    earlier blocks define come along; so do functions, classes and imports that it needs and that only later
    blocks have. A block that the end of the response cuts counts. Where the problem is the beginning of a
    program and the response does not define its function, the response goes on from there.
    """
    response = without_thoughts(response)
    blocks = list(_blocks(response))
    texts = [text for language, text in blocks if language in _PYTHON] or [text for _, text in blocks]
    found = _chosen(texts, details) if texts else response
    beginning, entry = details.get("complete"), details.get("entry_point", "")
    if beginning and found.strip() and not _defines(found, entry):
        return f"{beginning}{found}"
    return found


def _blocks(response: str) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of every fenced block, without the indentation of its fence."""
    at = 0
    while opening := _FENCE.search(response, at):
        fence = opening["fence"]
        closing = re.compile(rf"^[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}[ \t\r]*$", re.MULTILINE)
        end = closing.search(response, opening.end())
        text = response[opening.end() : end.start() if end else len(response)]
        language = (opening["info"].split() or [""])[0].lower().strip("{}.")
        yield language, _without_indent(text, opening["indent"])
        if end is None:
            return
        at = end.end()


def _without_indent(text: str, indent: str) -> str:
    if not indent:
        return text
    lines = [line.removeprefix(indent) for line in text.splitlines(keepends=True)]
    shifted = "".join(lines)
    return (
        textwrap.dedent(shifted)
        if any(line[:1].isspace() and line.strip() for line in lines[:1])
        else shifted
    )


def _chosen(texts: list[str], details: dict[str, Any]) -> str:
    entry = details.get("entry_point", "")
    if details.get("form") == "stdin":
        fitting = [place for place, text in enumerate(texts) if _READS.search(text)]
    else:
        fitting = [place for place, text in enumerate(texts) if _defines(text, entry)]
    place = fitting[-1] if fitting else len(texts) - 1
    return _with_needed(texts[:place], texts[place], texts[place + 1 :])


def _defines(text: str, entry: str) -> bool:
    """Whether a program defines the function, or the class of the method, under test."""
    name = re.escape(entry.partition(".")[0])
    pattern = rf"^(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)"
    return bool(entry) and re.search(pattern, text, re.MULTILINE) is not None


def _with_needed(earlier: list[str], chosen: str, later: list[str]) -> str:
    """Return a block behind what it uses and lacks: earlier blocks, and definitions of later ones."""
    missing = _used(chosen) - _bound(chosen) - set(dir(builtins))
    needed: list[str] = []
    for text in reversed(earlier):
        if missing & _bound(text):
            needed.insert(0, text)
            missing = (missing | _used(text)) - _bound(text)
    return _joined([*_definitions(later, missing - set(dir(builtins))), *needed, chosen])


def _joined(parts: list[str]) -> str:
    """Return one program of several parts; `__future__` imports must come first."""
    if len(parts) == 1:
        return parts[0]
    text = "\n".join(parts)
    return "\n".join([*dict.fromkeys(_FUTURE.findall(text)), _FUTURE.sub("", text)])


def _definitions(later: list[str], missing: set[str]) -> list[str]:
    """Return functions, classes and imports of later blocks that bind `missing` names, and what they need."""
    known = [node for text in later for node in _statements(text) if isinstance(node, _Definition)]
    taken: set[int] = set()
    while more := {at for at, node in enumerate(known) if at not in taken and missing & _names(node)}:
        taken |= more
        missing = missing.union(*(_used(ast.unparse(known[at])) for at in more))
    return [ast.unparse(known[at]) for at in sorted(taken)]


def _names(node: _Definition) -> set[str]:
    """Return the names that a statement gives to what stands around it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _bound(ast.unparse(node))
    return {node.name}


def _statements(text: str) -> list[ast.stmt]:
    tree = next(_walk(text), None)
    return tree.body if isinstance(tree, ast.Module) else []


def _used(text: str) -> set[str]:
    return {node.id for node in _walk(text) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _bound(text: str) -> set[str]:
    """Return every name that a program binds anywhere: rather too many than one too few."""
    names: set[str] = set()
    for node in _walk(text):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def _walk(text: str) -> Iterator[ast.AST]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # it is not our code
            tree = ast.parse(text)
        yield from ast.walk(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
