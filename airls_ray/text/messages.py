"""Prompts that are conversations: the last turn is the problem's prompt, what came before is its history.

A problem's `prompt` is the user's last message, which graders, rewards, records and reports read like any
other. The turns before it, a system message among them, lie in its `details` under `HISTORY` as
`{"role", "content"}`. The field is there, empty, too, where the prompt came as a single message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, str]

HISTORY = "prompt_history"
"""Field of a problem's details."""
GIVEN = "prompt_history_given"
"""Field of a problem's details where a task has put a system message into its history: that history as the
data had it, null where the prompt came as text."""
ROLES = ("system", "user", "assistant")


def history_of(details: str | Mapping[str, Any] | None) -> list[Message]:
    """Return the turns before a problem's prompt; `details` as a mapping or, as in tables, as JSON."""
    if isinstance(details, str):
        details = json.loads(details) if HISTORY in details else None
    return list(details.get(HISTORY) or []) if details else []


def given_turns(details: Mapping[str, Any]) -> list[Message] | None:
    """Return the turns before a prompt as the data had them; None: it came as text."""
    turns: list[Message] | None = details.get(GIVEN if GIVEN in details else HISTORY)
    return turns


def asked_of(prompt: str, details: str | Mapping[str, Any] | None) -> str:
    """Return all that is asked as one text, which only the same conversation has; blanks around do not count.

    Of a prompt without a history this is the prompt.
    """
    history = history_of(details)
    if not history:
        return prompt.strip()
    turns = [[one["role"], one["content"]] for one in history]
    return json.dumps([*turns, ["user", prompt.strip()]], ensure_ascii=False)


def own_system(history: Sequence[Message]) -> bool:
    """Whether a conversation begins with a system message of its own (OpenAI's newer word: developer)."""
    return bool(history) and history[0]["role"] in ("system", "developer")


def with_system(details: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Return a problem's details with a task's system message before its history, unless that has its own."""
    history = history_of(details)
    if not system or own_system(history):
        return dict(details)
    turns = [{"role": "system", "content": system}, *history]
    return {**details, GIVEN: details.get(HISTORY), HISTORY: turns}


def needs_template(history: Sequence[Message]) -> bool:
    """Whether only a chat template can write it: it has more than a system message before the prompt."""
    return len(history) > own_system(history)


def conversation(system: str, user: str, history: Sequence[Message]) -> list[Message]:
    """Return the turns that end with `user`; a system message of the history goes before `system`."""
    first = [] if own_system(history) or not system else [{"role": "system", "content": system}]
    return [*first, *history, {"role": "user", "content": user}]
