"""The asserts of a text of tests: made to report their verdicts, and counted without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterable

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_REPEATING = (
    *(ast.For, ast.AsyncFor, ast.While, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
"""What may run the statements in it any number of times."""


def reporting(text: str, stop: bool) -> ast.Module:
    """Return the tests of `text` with every `assert` reporting its verdict.

    With `stop` a false one still raises AssertionError; else it is recorded and the tests go on.
    """
    tree = ast.parse(text)
    return ast.fix_missing_locations(_Asserts(stop).visit(tree))


class _Asserts(ast.NodeTransformer):
    def __init__(self, stop: bool) -> None:
        self._stop = stop

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        passed: list[ast.stmt] = ast.parse("__passed__()").body
        if self._stop:
            return ast.copy_location(ast.If(node.test, passed, [node_raising(node)]), node)
        failed = ast.parse("__failed__()").body
        attempt = ast.parse("try:\n    pass\nexcept Exception as __error__:\n    __failed__(__error__)").body[
            0
        ]
        assert isinstance(attempt, ast.Try)
        attempt.body = [ast.If(node.test, passed, failed)]
        return ast.copy_location(attempt, node)


def node_raising(node: ast.Assert) -> ast.stmt:
    """Return `raise AssertionError(message)` of an assert."""
    arguments = [node.msg] if node.msg is not None else []
    return ast.Raise(ast.Call(ast.Name("AssertionError", ast.Load()), arguments, []), None)


def known_verdicts(text: str) -> int | None:
    """Return how many verdicts a whole run of `text` reports at most, None where that cannot be seen.

    It can be seen where no assert, and no call of a function with asserts, stands in a loop.
    """
    try:
        tree = ast.parse(text)
        return _Count(tree).of(tree.body)
    except (SyntaxError, ValueError, RecursionError, _Unknown):
        return None


class _Unknown(Exception):
    """How often an assert runs cannot be seen."""


class _Count:
    """Counts the verdicts of statements that run once; a class of unittest has one for each test, too."""

    def __init__(self, tree: ast.Module) -> None:
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        methods = {id(node) for one in classes for node in one.body}
        self._classes = {node.name: node for node in classes}
        self._functions: dict[str, list[_Function]] = {}
        for node in ast.walk(tree):
            if isinstance(node, _Function) and id(node) not in methods:
                self._functions.setdefault(node.name, []).append(node)
        self._counted: dict[str, int] = {}
        self._running: list[str] = []
        self._recursive: set[str] = set()

    def of(self, nodes: Iterable[ast.AST]) -> int:
        """Return the verdicts of all `nodes` together, or raise _Unknown."""
        return sum(map(self._of_node, nodes))

    def _of_node(self, node: ast.AST) -> int:
        if isinstance(node, _Function):  # its body counts where it is called
            return self.of(node.decorator_list)
        if isinstance(node, ast.ClassDef):
            return self._of_class(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._of_call(node.func.id) + self.of([*node.args, *node.keywords])
        inside = self.of(ast.iter_child_nodes(node))
        if isinstance(node, ast.Name) and self._of_call(node.id):  # another name may call it, too
            raise _Unknown
        if isinstance(node, _REPEATING) and inside:
            raise _Unknown
        return inside + isinstance(node, ast.Assert)

    def _of_call(self, name: str) -> int:
        """Return the verdicts of one call of a function of the text; of any other there are none."""
        if name in self._running:
            self._recursive.add(name)
            return 0
        if name not in self._counted:
            functions = self._functions.get(name, [])
            self._running.append(name)
            inside = sum(self.of(function.body) for function in functions)
            self._running.pop()
            if inside and (name in self._recursive or len(functions) > 1 or functions[0].decorator_list):
                raise _Unknown
            self._counted[name] = inside
        return self._counted[name]

    def _of_class(self, node: ast.ClassDef) -> int:
        count = 0
        for name, method in self._methods(node, ()).items():
            inside = self.of(method.body)
            if name.startswith("test"):
                count += 1 + inside
            elif inside:
                raise _Unknown
        return count

    def _methods(self, node: ast.ClassDef, below: tuple[str, ...]) -> dict[str, _Function]:
        """Return the methods of a class by name, those of its bases in the same text included."""
        if node.name in below:
            raise _Unknown
        bases = [self._classes.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
        found: dict[str, _Function] = {}
        for base in bases:
            if base is not None:
                found |= self._methods(base, (*below, node.name))
        return found | {one.name: one for one in node.body if isinstance(one, _Function)}
