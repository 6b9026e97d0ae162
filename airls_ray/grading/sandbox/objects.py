"""Objects of the classes that tests and program both define, such as nodes of lists and trees: plain data.

Each side makes, reads and compares objects of its own class. Where one is handed over, its fields travel, and
the other side has an object of its class with the same fields. So a program that defines the class anew
changes nothing but what it gets, and never sees an object that its result is compared with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from airls_ray.grading.sandbox.values import Keep

Code = Callable[[Any], Any]


def travels(kind: Any) -> bool:
    """Whether objects of a class travel as their fields; exceptions stay with the side that raises them."""
    return isinstance(kind, type) and not issubclass(kind, BaseException)


class Crossing:
    """The objects of one question and its answer, on one side; each has a number, the same on both.

    The answer gives an object that came with the question new fields; others are new.
    """

    def __init__(self, classes: Mapping[str, Any]) -> None:
        """Let objects of `classes` travel, by the names that both sides know."""
        self._classes = {name: kind for name, kind in classes.items() if travels(kind)}
        self._names = {kind: name for name, kind in self._classes.items()}
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._sent: set[int] = set()
        self._waiting: deque[int] = deque()

    def keeping(self, keep: Keep) -> Keep:
        """Return a `keep` of `values.encode` that sends shared objects, and leaves all others to `keep`."""

        def kept(value: Any) -> Any:
            if isinstance(value, type) and value in self._names:
                return {"object": self._names[value]}
            name = self._name_of(value)
            if name is None:
                return keep(value)
            if isinstance(value, Enum):
                return {"object": [name, value.name]}
            return {"object": self._send(value)}

        return kept

    def found(self, content: Any) -> Any:
        """Return what `{"object": content}` stands for.

        Raises:
            LookupError, TypeError: it stands for nothing.
        """
        if isinstance(content, str):
            return self._classes[content]
        if isinstance(content, list):
            name, member = content
            return self._classes[name][member]
        return self._objects[content]

    def send_all(self) -> None:
        """Send every object of the question with the answer, also those that are in no result."""
        for value in self._objects:
            self._send(value)

    def rows(self, encode: Code) -> list[Any]:
        """Return number, class and fields of every object that was sent, and of those that these hold."""
        found = []
        while self._waiting:  # it grows meanwhile
            number = self._waiting.popleft()
            value = self._objects[number]
            fields = [[name, encode(item)] for name, item in _fields(value).items()]
            found.append([number, self._name_of(value), fields])
        self._sent.clear()
        return found

    def read(self, rows: Any, decode: Code) -> None:
        """Make the objects of `rows`, or give those that are here already the fields that they have there.

        Raises:
            LookupError, TypeError, ValueError: the rows are none.
            AttributeError: a class takes no such field.
        """
        for number, name, _ in rows:
            if number == len(self._objects):
                self._add(object.__new__(self._classes[name]))
            elif self._name_of(self._objects[number]) != name:
                raise ValueError("an object has changed its class")
        for number, _, fields in rows:
            _set_fields(self._objects[number], {name: decode(item) for name, item in fields})

    def _name_of(self, value: Any) -> str | None:
        kinds = (kind for kind in type(value).__mro__ if kind in self._names)
        return next((self._names[kind] for kind in kinds), None)

    def _send(self, value: Any) -> int:
        number = self._numbers[id(value)] if id(value) in self._numbers else self._add(value)
        if number not in self._sent:
            self._sent.add(number)
            self._waiting.append(number)
        return number

    def _add(self, value: Any) -> int:
        self._objects.append(value)  # kept alive, so that its id stays its own
        self._numbers[id(value)] = len(self._objects) - 1
        return len(self._objects) - 1


def _fields(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, those in slots included."""
    state = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    return {name: item for part in parts if part for name, item in part.items()}


def _set_fields(value: Any, fields: Mapping[str, Any]) -> None:
    """Give an object these attributes and no others; no code of its class runs but that of properties."""
    if any(not isinstance(name, str) or name.startswith("__") for name in fields):
        raise ValueError("no name of a field")
    for name in _fields(value).keys() - fields.keys():
        object.__delattr__(value, name)
    for name, item in fields.items():
        object.__setattr__(value, name, item)
