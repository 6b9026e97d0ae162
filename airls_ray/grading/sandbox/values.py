"""Plain values as bytes, and frames of them on a socket: all that travels between program and tests.

No pickle: decoding builds nothing but the types below, so a hostile sender can send wrong values and
nothing else. What is not plain stays with its owner and travels as a handle.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import json
import os
import re
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

_EXACT = 1 << 53
"""JSON numbers below it survive every reader; larger ones go as hexadecimal, which has no length limit."""
_LENGTH_BYTES = 4
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, str, list, tuple, set, frozenset, dict, bytes, complex, type(None))
}

_ARRAY = re.compile(r"bool|(?:int|uint)(?:8|16|32|64)|float(?:16|32|64)|complex(?:64|128)")
"""Kinds of numpy arrays that travel."""
Handle = Callable[[Any, Any], Any]
Keep = Callable[[Any], Any]


class NotPlain(TypeError):
    """A test hands the program something that cannot travel."""


class BadFrame(Exception):
    """The other side sent what is no frame of values."""


class FrameTooLarge(Exception):
    """The other side sent more than the limit on output allows."""


class ChannelClosed(Exception):
    """The other side has ended."""


def encode(value: Any, keep: Keep | None = None) -> Any:
    """Return `value` as JSON can hold it; `keep` gives a handle (or what to send) for what is not plain.

    Subclasses of plain types (Counter, namedtuple, IntEnum) become the plain type.

    Raises:
        NotPlain: something is not plain and there is no `keep`.
        RecursionError: it is nested too deeply, or holds itself.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if -_EXACT < value < _EXACT else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [encode(item, keep) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
    for kind, name in ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
        if isinstance(value, kind):
            return {name: [encode(item, keep) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [encode(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, Fraction):
        return {"fraction": [encode(value.numerator), encode(value.denominator)]}
    if isinstance(value, deque):
        return {"deque": [[encode(item, keep) for item in value], value.maxlen]}
    for moment in (datetime.datetime, datetime.date, datetime.time):  # a datetime is a date, too
        if isinstance(value, moment):
            return {moment.__name__: value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if type(value).__module__.partition(".")[0] == "numpy":
        found = _encode_numpy(value, keep)
        if found is not None:
            return found
    own_name = getattr(value, "__name__", None)
    if own_name is not None and _TYPES.get(own_name) is value:
        return {"type": own_name}
    if keep is None:
        raise NotPlain(f"a value of type {type(value).__name__} cannot be handed to the program")
    if isinstance(value, type) and issubclass(value, BaseException):
        return {"error_class": error_classes(value, keep)}
    kept = keep(value)
    return kept if isinstance(kept, dict) else {"handle": kept, **_fields(value, keep)}


def error_classes(kind: type[BaseException], keep: Keep) -> list[Any]:
    """Return (handle, name) of an exception's own classes up its ancestry, then the builtin one's name."""
    own: list[Any] = []
    for one in kind.__mro__:
        if getattr(builtins, one.__name__, None) is one:
            return [*own, one.__name__]
        own.append([keep(one), one.__name__])
    return [*own, "Exception"]


def _fields(value: Any, keep: Keep) -> dict[str, Any]:
    """Return the fields by which a dataclass compares, as they are now; nothing for any other object."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {}
    settings = getattr(value, "__dataclass_params__", None)
    if not getattr(settings, "eq", False):
        return {}
    names = [field.name for field in dataclasses.fields(value) if field.compare]
    return {"fields": [keep(type(value)), [[name, encode(getattr(value, name), keep)] for name in names]]}


def _encode_numpy(value: Any, keep: Keep | None) -> Any:
    """Return a scalar of numpy as Python's, an array of numbers as an array; None for anything else."""
    if not hasattr(value, "tolist") or not hasattr(value, "dtype"):
        return None
    if getattr(value, "ndim", 0) == 0:
        return encode(value.item(), keep)
    kind = str(value.dtype)
    return {"array": [kind, encode(value.tolist(), keep)]} if _ARRAY.fullmatch(kind) else None


def _array(content: Any) -> Any:
    kind, data = content
    if not _ARRAY.fullmatch(kind):
        raise ValueError(kind)
    import numpy as np  # only where a program uses it: it takes a tenth of a second

    return np.array(_decode(data, None), dtype=kind)


def decode(data: Any, handle: Handle | None = None) -> Any:
    """Return the value that `encode` made `data` of; `handle` gives the object of the other side.

    It is called with the handle and the fields of a dataclass (its class's handle, then names and values) or
    None; or with `{"error_class": ...}`, `{"callback": number}` or `{"object": ...}` and None.

    Raises:
        BadFrame: it is none.
    """
    try:
        return _decode(data, handle)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadFrame(f"not an encoded value ({type(error).__name__})") from error


def _decode(data: Any, handle: Handle | None) -> Any:
    if isinstance(data, list):
        return [_decode(item, handle) for item in data]
    if not isinstance(data, dict):
        return data
    if "handle" in data and handle is not None and type(data["handle"]) is int:
        fields = data.get("fields")
        if fields is not None:
            fields = (_whole(fields[0]), [(str(name), _decode(item, handle)) for name, item in fields[1]])
        return handle(data["handle"], fields)
    ((name, content),) = data.items()
    if name in ("tuple", "set", "frozenset"):
        kind = {"tuple": tuple, "set": set, "frozenset": frozenset}[name]
        return kind([_decode(item, handle) for item in content])
    if name == "dict":
        return {_decode(key, handle): _decode(item, handle) for key, item in content}
    if name in _BUILDERS:
        return _BUILDERS[name](content)
    if name in ("error_class", "callback", "object") and handle is not None:
        return handle({name: content}, None)
    raise ValueError(name)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("no whole number")
    return value


def _integers(content: Any) -> list[int]:
    found = [_decode(item, None) for item in content]
    if any(type(item) is not int for item in found):
        raise ValueError("not integers")
    return found


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda content: int(content, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda content: complex(float(content[0]), float(content[1])),
    "range": lambda content: range(*_integers(content)),
    "decimal": lambda content: Decimal(str(content)),
    "type": lambda content: _TYPES[content],
    "fraction": lambda content: Fraction(*_integers(content)),
    "deque": lambda content: deque(_decode(content[0], None), content[1]),
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda content: datetime.timedelta(*_integers(content)),
    "array": _array,
}


def send(descriptor: int, message: Any) -> None:
    """Write one frame: its length, then JSON.

    Raises:
        OSError: nobody reads any more.
    """
    body = json.dumps(message).encode()
    data = memoryview(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int, limit: int) -> Any:
    """Read one frame of at most `limit` bytes.

    Raises:
        ChannelClosed: the other side has ended, perhaps in the middle of a frame.
        FrameTooLarge: the frame says that it is longer; nothing of it was read.
        BadFrame: it is not JSON.
    """
    length = int.from_bytes(_read_exactly(descriptor, _LENGTH_BYTES), "big")
    if length > limit:
        raise FrameTooLarge(f"{length} bytes, but {limit} are allowed")
    try:
        return json.loads(_read_exactly(descriptor, length))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not JSON ({type(error).__name__})") from error


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = os.read(descriptor, min(count - len(data), 1 << 20))
        except ConnectionResetError:
            part = b""
        if not part:
            raise ChannelClosed
        data += part
    return bytes(data)
