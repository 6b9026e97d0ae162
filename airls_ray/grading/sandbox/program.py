"""Inside the sandbox: run the untrusted program, then do what the tests ask of it.

Nothing here is trusted once the program runs: it may replace all of it. It knows neither the tests nor
what they expect.
"""

from __future__ import annotations

import atexit
import builtins
import os
import sys
import threading
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from airls_ray.grading.sandbox import values
from airls_ray.grading.sandbox.objects import Crossing

SYNTAX_EXIT, EXCEPTION_EXIT, MEMORY_EXIT = 84, 85, 86
"""Exit codes that name a reason; a program can also give them itself, which fails it all the same."""
_LONGEST_MESSAGE = 500
_LONGEST_REQUEST = 1 << 30


def run_main(job: dict[str, Any]) -> int:
    """Run the program as a whole on its standard input and return its exit code."""
    try:
        codes = compiled(job)
    except MemoryError:
        return MEMORY_EXIT
    except (SyntaxError, ValueError, RecursionError):
        return SYNTAX_EXIT
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")  # those of the parent know other files
    sys.argv = ["program"]
    status = 0
    for code in codes:
        status = status or _finished(lambda code=code: exec(code, module.__dict__))  # type: ignore[misc]
    for last in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush):  # type: ignore[attr-defined]
        status = status or _finished(last)
    return status


def compiled(job: dict[str, Any]) -> list[types.CodeType]:
    """Return the code of a job's prefix and source; `__future__` imports of this module are not theirs.

    Raises:
        MemoryError, RecursionError, SyntaxError, ValueError: it is too complex, or no Python.
    """
    return [compile(job[name], f"<{name}>", "exec", dont_inherit=True) for name in ("prefix", "source")]


def _finished(work: Callable[[], object]) -> int:
    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except MemoryError:
        return MEMORY_EXIT
    except BaseException:
        return EXCEPTION_EXIT
    return 0


class ProgramServer:
    """Answers requests for the program's functions, objects and values, one frame each."""

    def __init__(self, channel: int) -> None:
        """Speak over the socket `channel`."""
        self._channel = channel
        self._module = types.ModuleType("program")
        self._kept: dict[int, Any] = {}
        self._shared: tuple[str, ...] = ()

    def run(self, job: dict[str, Any]) -> int:
        """Load the program, answer until the other side closes, and return the exit code."""
        try:
            self._reply(self._load(job))
            while True:
                self._reply(self._answer(self._next()))
        except (values.ChannelClosed, BrokenPipeError, ConnectionResetError):
            return 0
        except MemoryError:
            return MEMORY_EXIT

    def _load(self, job: dict[str, Any]) -> list[Any]:
        sys.modules["program"] = self._module
        try:
            parts = compiled(job)
        except MemoryError:
            return ["raised", ["MemoryError"], "the program is too complex"]
        except (SyntaxError, ValueError, RecursionError) as error:
            return ["syntax", str(error)[:_LONGEST_MESSAGE]]
        try:
            for part in parts:
                exec(part, self._module.__dict__)
        except BaseException as error:
            return self._raised(error)
        return ["value", None]

    def _next(self) -> list[Any]:
        request: list[Any] = values.receive(self._channel, _LONGEST_REQUEST)
        return request

    def _answer(self, request: list[Any]) -> list[Any]:
        operation, operands, keywords, rows = request
        try:
            objects, resolve, keep = self._crossing(rows)
            found = [values.decode(operand, resolve) for operand in operands]
            named = {name: values.decode(value, resolve) for name, value in keywords.items()}
            result = self._perform(operation, found, named)
            if operation == "call_in_place":
                result = found[1] if len(found) > 1 and result is None else result
            answer = values.encode(result, keep)
            changes: list[Any] = []
            # Only where nothing is returned: else a program could change what it is compared with.
            if result is None and operation == "call":
                changes = _changes(operands, found, keep)
                objects.send_all()
            return ["value", answer, changes, objects.rows(lambda item: values.encode(item, keep))]
        except BaseException as error:
            return self._raised(error)

    def _crossing(self, rows: list[Any]) -> tuple[Crossing, values.Handle, values.Keep]:
        """Return the objects of a question, what resolves its handles, and what gives new ones."""
        objects = Crossing({name: self._module.__dict__.get(name) for name in self._shared})
        resolve = partial(self._object, objects)
        objects.read(rows, lambda item: values.decode(item, resolve))
        return objects, resolve, objects.keeping(self._keep)

    def _object(self, objects: Crossing, handle: Any, fields: Any) -> Any:
        """Return what is kept under a handle, or a function that asks the tests to call one of theirs."""
        if isinstance(handle, dict) and "object" in handle:
            return objects.found(handle["object"])
        if isinstance(handle, dict) and "callback" in handle:
            return lambda *arguments, **keywords: self._call_back(handle["callback"], arguments, keywords)
        if isinstance(handle, dict):
            first, *_ = handle["error_class"]
            return self._kept[first[0]] if isinstance(first, list) else getattr(builtins, first)
        return self._kept[handle]

    def _call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the tests call their function, and do meanwhile what that asks of the program."""
        objects, resolve, keep = self._crossing([])
        encoded = [values.encode(one, keep) for one in arguments]
        named = {name: values.encode(one, keep) for name, one in keywords.items()}
        rows = objects.rows(lambda item: values.encode(item, keep))
        self._reply(["callback", number, encoded, named, rows])
        while True:
            request = self._next()
            if request[0] == "returned":
                objects.read(request[2], lambda item: values.decode(item, resolve))
                return values.decode(request[1], resolve)
            if request[0] == "threw":
                kind = getattr(builtins, str(request[1]), RuntimeError)
                raise kind(request[2])
            self._reply(self._answer(request))

    def _perform(self, operation: str, operands: list[Any], keywords: dict[str, Any]) -> Any:
        if operation == "name":
            return self._module.__dict__[operands[0]]
        if operation in ("call", "call_in_place"):
            return operands[0](*operands[1:], **keywords)
        if operation == "share":
            self._shared = tuple(operands)
            return None
        simple: dict[str, Callable[..., Any]] = {
            "getattr": getattr,
            "setattr": setattr,
            "getitem": lambda one, key: one[key],
            "iterate": _items,
            "next": next,
            "isinstance": isinstance,
            "length": len,
            "truth": bool,
            "text": str,
        }
        return simple[operation](*operands)

    def _keep(self, value: Any) -> int:
        """Return a handle for what is no plain value."""
        self._kept[id(value)] = value  # kept alive, so that its id stays its own
        return id(value)

    def _reply(self, message: list[Any]) -> None:
        values.send(self._channel, message)

    def _raised(self, error: BaseException) -> list[Any]:
        """Return an exception: the classes that it is of, and its text."""
        if isinstance(error, MemoryError):
            return ["raised", ["MemoryError"], ""]
        try:
            text = str(error)[:_LONGEST_MESSAGE]
        except BaseException:
            text = ""
        return ["raised", values.error_classes(type(error), self._keep), text]


def _changes(operands: list[Any], found: list[Any], keep: values.Keep) -> list[Any]:
    """Return place and value of every argument that a call has changed."""
    places = [place for place, one in enumerate(found) if isinstance(one, (list, dict, set, bytearray))]
    now = [(place, values.encode(found[place], keep)) for place in places]
    return [[place, value] for place, value in now if value != operands[place]]


def _items(value: Any) -> Any:
    """Return all of what has a length, else an iterator: it may have no end."""
    return list(value) if hasattr(value, "__len__") else iter(value)


def silence() -> None:
    """Let prints of a program whose output is not asked for go to the counted pipe, unbuffered by us."""
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
