"""The tests' side of the channel: the program's functions and objects as stand-ins.

A stand-in is never equal to anything but itself, whatever the program says: comparisons are made here,
between plain values.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

from airls_ray.grading.sandbox import values
from airls_ray.grading.sandbox.objects import Crossing


class ProgramEnded(BaseException):
    """The program is gone or sends nonsense; no BaseException handler of a test can go on from it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProgramError(Exception):
    """The program raised an exception of a class of its own."""


class Channel:
    """Asks the program, one question at a time."""

    def __init__(self, descriptor: int, limit: int) -> None:
        """Speak over the socket `descriptor`; an answer may have `limit` bytes."""
        self._descriptor = descriptor
        self._limit = limit
        self._gone: str | None = None
        self._errors: dict[int, type[Exception]] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self._shared: dict[str, Any] = {}
        self.undecided = False
        """Whether two objects were compared of which nothing is known but who they are."""

    def greeting(self) -> tuple[str, str, str]:
        """Wait until the program is loaded; return ("value", "", "") or what went wrong."""
        kind, *rest = self._receive()
        if kind == "raised" and len(rest) == 2 and isinstance(rest[0], list):
            rest = [_name_of(rest[0]), rest[1]]
        texts = [text for text in rest if isinstance(text, str)]
        return str(kind), *([*texts, "", ""][:2])  # type: ignore[return-value]

    def ask(self, operation: str, *operands: Any, **keywords: Any) -> Any:
        """Return the value of one operation, or raise what it raised (marked as the program's).

        An argument of a call that returns nothing is changed as the program changed it.
        """
        objects = Crossing(self._shared)
        keep = objects.keeping(self._handle_of)
        request = [
            operation,
            [values.encode(operand, keep) for operand in operands],
            {name: values.encode(value, keep) for name, value in keywords.items()},
        ]
        message = self._exchange([*request, objects.rows(lambda item: values.encode(item, keep))])
        while message[0] == "callback" and len(message) == 5:
            message = self._exchange(self._call_back(*message[1:]))
        if message[0] == "value" and len(message) == 4:
            self._read(objects, message[3])
            self._change(operands, message[2], objects)
            return self._decode(message[1], objects)
        if message[0] == "raised" and len(message) == 3 and isinstance(message[1], list):
            raise self._exception(message[1], str(message[2]))
        self._end("exception")

    def share(self, classes: dict[str, Any]) -> None:
        """From now on let objects of these classes, which the program has, too, travel as data."""
        self.ask("share", *classes)
        self._shared = classes

    def expect_alive(self) -> None:
        """Raise ProgramEnded again where it was raised before: a test may have caught it."""
        if self._gone:
            raise ProgramEnded(self._gone)

    def _exchange(self, request: list[Any]) -> list[Any]:
        self.expect_alive()
        try:
            values.send(self._descriptor, request)
        except OSError:
            self._end("ended_early")
        return self._receive()

    def _decode(self, data: Any, objects: Crossing) -> Any:
        try:
            return values.decode(data, partial(self._object, objects))
        except values.BadFrame:
            self._end("exception")

    def _read(self, objects: Crossing, rows: Any) -> None:
        try:
            objects.read(rows, lambda item: self._decode(item, objects))
        except (LookupError, TypeError, ValueError, AttributeError):
            self._end("exception")

    def _object(self, objects: Crossing, handle: Any, fields: Any) -> Any:
        """Return the stand-in for an object of the program, or a class of exceptions for one of its own."""
        if isinstance(handle, dict):
            if "object" in handle:
                return objects.found(handle["object"])
            return self._error_class(handle["error_class"])
        return Remote(self, handle, fields)

    def _handle_of(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return int(value._handle)
        if isinstance(value, type) and "program_handle" in vars(value):
            return int(vars(value)["program_handle"])
        if callable(value) and not isinstance(value, type):
            if value not in self._callbacks:
                self._callbacks.append(value)
            return {"callback": self._callbacks.index(value)}
        raise values.NotPlain(f"a value of type {type(value).__name__} cannot be handed to the program")

    def _change(self, operands: tuple[Any, ...], changes: Any, objects: Crossing) -> None:
        """Give arguments the contents that the program gave its copies."""
        if not isinstance(changes, list):
            self._end("exception")
        for place, data in changes:
            changed = self._decode(data, objects)
            if (
                type(place) is not int
                or not 0 <= place < len(operands)
                or type(changed) is not type(operands[place])
            ):
                self._end("exception")
            _become(operands[place], changed)

    def _call_back(self, number: Any, arguments: Any, keywords: Any, rows: Any) -> list[Any]:
        """Call a function of the tests for the program."""
        if type(number) is not int or not 0 <= number < len(self._callbacks):
            self._end("exception")
        objects = Crossing(self._shared)
        keep = objects.keeping(self._handle_of)
        self._read(objects, rows)
        found = [self._decode(one, objects) for one in arguments]
        named = {str(name): self._decode(one, objects) for name, one in keywords.items()}
        try:
            result = values.encode(self._callbacks[number](*found, **named), keep)
            return ["returned", result, objects.rows(lambda item: values.encode(item, keep))]
        except Exception as error:
            return ["threw", type(error).__name__, str(error)]

    def _error_class(self, ancestry: Any) -> type[Exception]:
        """Return a class of exceptions that stands for one of the program's, with the same ancestors."""
        *own, last = ancestry
        builtin = getattr(builtins, str(last), None)
        known = isinstance(builtin, type) and issubclass(builtin, Exception)
        found: type[Exception] = builtin if known else ProgramError  # type: ignore[assignment]
        for handle, name in reversed(own):
            if handle not in self._errors:
                self._errors[handle] = type(str(name), (found,), {"program_handle": handle})
            found = self._errors[handle]
        return found

    def _exception(self, ancestry: list[Any], message: str) -> Exception:
        try:
            kind = self._error_class(ancestry)
        except (TypeError, ValueError):  # the program sends nonsense
            self._end("exception")
        try:
            return _marked(kind(message))
        except TypeError:  # UnicodeDecodeError and its like want more arguments
            return _marked(ProgramError(f"{kind.__name__}: {message}"))

    def _receive(self) -> list[Any]:
        self.expect_alive()
        try:
            message = values.receive(self._descriptor, self._limit)
        except values.ChannelClosed:
            self._end("ended_early")
        except values.FrameTooLarge:
            self._end("output_limit")
        except values.BadFrame:
            self._end("exception")
        if not isinstance(message, list) or not message:
            self._end("exception")
        return message

    def _end(self, reason: str) -> NoReturn:
        self._gone = reason
        raise ProgramEnded(reason) from None


class Remote:
    """An object of the program that is no plain value: it can be called, read, iterated and handed back.

    Two objects of one dataclass are equal if their fields were when they came here: the program cannot change
    them for the comparison.
    """

    def __init__(self, channel: Channel, handle: int, fields: Any = None) -> None:
        """Stand for the object that the program keeps under `handle`."""
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "_fields", fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        if self._handle == other._handle:
            return True
        if self._fields is None or other._fields is None:
            self._channel.undecided = True
            return False
        return bool(self._fields == other._fields)

    def __hash__(self) -> int:
        return hash(self._handle) if self._fields is None else hash(repr(self._fields))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._channel.ask("call", self, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols of Python that a test did not ask for
            raise AttributeError(name)
        return self._channel.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("setattr", self, name, value)
        object.__setattr__(self, "_fields", None)

    def __getitem__(self, key: Any) -> Any:
        return self._channel.ask("getitem", self, key)

    def __iter__(self) -> Iterator[Any]:
        found = self._channel.ask("iterate", self)
        return found if isinstance(found, Remote) else iter(_typed(found, list))

    def __next__(self) -> Any:
        return self._channel.ask("next", self)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and _typed(self._channel.ask("isinstance", instance, self), bool)

    def __len__(self) -> int:
        return _typed(self._channel.ask("length", self), int)

    def __bool__(self) -> bool:
        return _typed(self._channel.ask("truth", self), bool)

    def __str__(self) -> str:
        return _typed(self._channel.ask("text", self), str)


def _typed(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"the program gave no {kind.__name__}")
    return value


def _become(target: Any, changed: Any) -> None:
    """Give a container new contents; lists in the same place of lists stay the lists that they are."""
    if isinstance(target, list):
        for place, (old, new) in enumerate(zip(target, changed, strict=False)):
            if isinstance(old, (list, dict, set)) and type(old) is type(new):
                _become(old, new)
                changed[place] = old
        target[:] = changed
    elif isinstance(target, bytearray):
        target[:] = changed
    else:
        target.clear()
        target.update(changed)


def _name_of(ancestry: list[Any]) -> str:
    first = ancestry[0] if ancestry else ""
    return str(first[1] if isinstance(first, list) and len(first) == 2 else first)


def _marked(error: Exception) -> Exception:
    error.from_program = True  # type: ignore[attr-defined]
    return error
