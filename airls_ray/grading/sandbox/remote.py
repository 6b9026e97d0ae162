"""The tests' side of the channel: the program's functions and objects as stand-ins.

A stand-in is never equal to anything but itself, whatever the program says: comparisons are made here,
between plain values.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, NoReturn

from airls_ray.grading.sandbox import values


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

    def greeting(self) -> tuple[str, str, str]:
        """Wait until the program is loaded; return ("value", "", "") or what went wrong."""
        message = self._receive()
        kind, *rest = message
        texts = [text for text in rest if isinstance(text, str)]
        return str(kind), *([*texts, "", ""][:2])  # type: ignore[return-value]

    def ask(self, operation: str, *operands: Any, **keywords: Any) -> Any:
        """Return the value of one operation, or raise what it raised (marked as the program's)."""
        request = [
            operation,
            [values.encode(operand, _handle_of) for operand in operands],
            {name: values.encode(value, _handle_of) for name, value in keywords.items()},
        ]
        if self._gone:
            raise ProgramEnded(self._gone)
        try:
            values.send(self._descriptor, request)
        except OSError:
            self._end("ended_early")
        message = self._receive()
        if message[0] == "value" and len(message) == 2:
            try:
                return values.decode(message[1], lambda handle: Remote(self, handle))
            except values.BadFrame:
                self._end("exception")
        if message[0] == "raised" and len(message) == 3:
            raise _exception(str(message[1]), str(message[2]))
        self._end("exception")

    def _receive(self) -> list[Any]:
        if self._gone:
            raise ProgramEnded(self._gone)
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
    """An object of the program that is no plain value: it can be called, read, iterated and handed back."""

    def __init__(self, channel: Channel, handle: int) -> None:
        """Stand for the object that the program keeps under `handle`."""
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_handle", handle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._handle == other._handle

    def __hash__(self) -> int:
        return hash(self._handle)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._channel.ask("call", self, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols of Python that a test did not ask for
            raise AttributeError(name)
        return self._channel.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("setattr", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._channel.ask("getitem", self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(_typed(self._channel.ask("iterate", self), list))

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


def _handle_of(value: Any) -> int:
    if isinstance(value, Remote):
        return int(value._handle)
    raise values.NotPlain(f"a value of type {type(value).__name__} cannot be handed to the program")


def _exception(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return _marked(ProgramError(f"{name}: {message}"))
    try:
        return _marked(kind(message))
    except TypeError:  # UnicodeDecodeError and its like want more arguments
        return _marked(ProgramError(f"{name}: {message}"))


def _marked(error: Exception) -> Exception:
    error.from_program = True  # type: ignore[attr-defined]
    return error
