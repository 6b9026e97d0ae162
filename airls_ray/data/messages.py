"""A prompt as a list of chat messages, out of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from airls_ray.data.rows import kind_of
from airls_ray.errors import DataError
from airls_ray.tasks.generate import content_id
from airls_ray.text.messages import HISTORY, ROLES, Message, asked_of, history_of

_NEEDED = "messages end with one of the user's, which the policy answers"


class BadMessagesError(DataError):
    """Messages that are no prompt."""

    kind = "messages not usable"
    """What the summary of a source counts."""


def is_messages(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is meant as a list of messages."""
    return isinstance(value, list) and (not value or any(isinstance(one, Mapping) for one in value))


def read_messages(where: str, name: str, value: list[Any]) -> tuple[str, dict[str, list[Message]]]:
    """Return the last message's text and what belongs in the problem's details (`HISTORY`).

    Of a message only `role` and `content` are kept.

    Raises:
        BadMessagesError: there is none, a role is unknown, a content is no text, or the last message is not
            the user's or blank. The sentence begins with `where` and names the field `name`.
    """
    if not value:
        raise BadMessagesError(f"{where}: field {name!r} is an empty list; {_NEEDED}")
    messages = [_message(where, name, number, one) for number, one in enumerate(value, 1)]
    *history, last = messages
    if last["role"] != "user":
        said = f"the last message of field {name!r} is the {last['role']}'s"
        raise BadMessagesError(f"{where}: {said}; {_NEEDED}")
    if not last["content"].strip():
        raise BadMessagesError(f"{where}: the last message of field {name!r} is empty")
    return last["content"], {HISTORY: history}


def read_history(where: str, value: Any, prompt: str) -> None:
    """Check turns before a prompt that somebody put into a problem's details, as a file of ours has them.

    Raises:
        BadMessagesError: as of `read_messages`, or they are no list.
    """
    if not isinstance(value, list):
        kind = kind_of(value)
        raise BadMessagesError(f"{where}: field {HISTORY!r} must be a list of messages, but is {kind}")
    read_messages(where, HISTORY, [*value, {"role": "user", "content": prompt}])


def content_of(prompt: str, details: Mapping[str, Any], options: Sequence[str] = ()) -> str:
    """Return an identifier that depends on what is asked alone: on prompt, turns before it and options."""
    asked = asked_of(prompt, details) if history_of(details) else prompt
    return content_id("file", "\n".join([asked, *options]))


def _message(where: str, name: str, number: int, given: Any) -> Message:
    if not isinstance(given, Mapping):
        raise BadMessagesError(
            f"{where}: message {number} of field {name!r} must be an object with 'role' and 'content', but "
            f"is {kind_of(given)}"
        )
    role, content = given.get("role"), given.get("content")
    if role not in ROLES:
        shown = repr(role[:40]) if isinstance(role, str) else kind_of(role)
        raise BadMessagesError(
            f"{where}: the role of message {number} of field {name!r} must be {', '.join(ROLES[:-1])} or "
            f"{ROLES[-1]}, but is {shown}"
        )
    if not isinstance(content, str):
        raise BadMessagesError(
            f"{where}: the content of message {number} of field {name!r} must be text, but is "
            f"{kind_of(content)}"
        )
    return {"role": role, "content": content}
