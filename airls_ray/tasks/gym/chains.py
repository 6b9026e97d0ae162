"""What a response to a data set of reasoning-gym looks like: its steps, its answer, its truth.

Truth: a step is right if it is allowed where it stands and the full score can still be reached behind it.
After a wrong step nothing is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airls_ray.tasks.gym import moves, numbers, states

Entry = Mapping[str, Any]
_TAGS = re.compile(r"<answer>\s?(.*?)\s?</answer>", re.DOTALL)


def tagged(response: str) -> str | None:
    """Return what stands in the last `<answer>` tags, or the whole response; None if it is empty."""
    found = _TAGS.findall(response)
    return (found[-1] if found else response).strip() or None


@dataclass(frozen=True)
class Chain:
    """How a data set's solutions are written."""

    delimiter: str = "\n"
    """What ends a step."""
    request: str = ""
    """Said behind the question, where it asks for another form."""
    trace: Callable[[Entry], str | None] = lambda entry: str(entry["answer"])
    """The recorded or found solution as a response."""
    answer: Callable[[str], str | None] = tagged
    """What the package scores of a response; None: there is none."""
    solvable: Callable[[Entry], bool] = lambda entry: True
    """Whether the package has a solution; it gives questions without one, too, and scores every answer 0."""
    settled: Callable[[Entry], Entry] = lambda entry: entry
    """The entry as it is in every process, where the package draws by the order of a set."""
    walk: Callable[[Entry], states.Walk] | None = None
    """Replays an entry; None: the truth of steps is not known."""

    def truth(self, entry: Entry, steps: Sequence[str]) -> list[bool] | None:
        """Whether each step is right; see the module's docstring."""
        if self.walk is None:
            return None
        walk = self.walk(entry)
        found: list[bool] = []
        for step in steps:
            found.append((not found or found[-1]) and walk.take(step))
        return found


def chain_of(dataset: str) -> Chain:
    """Return how solutions of a data set are written: an answer alone, where nothing else is known."""
    return _CHAINS.get(dataset, Chain())


def last_line(response: str) -> str | None:
    """Return what stands in answer tags, else the last line that is not empty, without `####`."""
    found = _TAGS.findall(response)
    lines = [line for line in response.splitlines() if line.strip()]
    text = found[-1] if found else lines[-1].rpartition("####")[2] if lines else ""
    return str(text).strip() or None


def _gsm_trace(entry: Entry) -> str | None:
    recorded: str | None = entry["metadata"].get("answer_cot")
    return None if recorded is None else "\n".join(line for line in recorded.splitlines() if line.strip())


def _json_moves(response: str) -> str | None:
    """A list of moves as JSON; a response that was cut or has words around it keeps its list."""
    text = tagged(response)
    found = re.search(r"\[.*\]", text or "", re.DOTALL)
    return found.group(0) if found else text


def _string_trace(entry: Entry) -> str | None:
    recorded: list[str] = entry["metadata"]["states"]
    return "\n".join(recorded[1:] or recorded)


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())


_CHAINS: dict[str, Chain] = {
    "jugs": Chain(
        delimiter=",",
        trace=lambda entry: json.dumps(json.loads(entry["answer"])),
        answer=_json_moves,
        solvable=moves.jugs_solvable,
        walk=moves.Jugs,
    ),
    "tower_of_hanoi": Chain(
        trace=lambda entry: "\n".join(_lines(entry["answer"])),
        walk=moves.Hanoi,
    ),
    "quantum_lock": Chain(delimiter="→", walk=moves.QuantumLock),
    "word_ladder": Chain(delimiter=",", settled=moves.with_first_ladder, walk=moves.WordLadder),
    "countdown": Chain(
        request=(
            "Write one calculation on each line, such as 94*4=376, and the expression alone on the last line."
        ),
        trace=numbers.countdown_trace,
        answer=last_line,
        walk=numbers.Countdown,
    ),
    "string_manipulation": Chain(
        request="Write the string after each transformation on a line of its own.",
        trace=_string_trace,
        answer=last_line,
        walk=states.Recorded,
    ),
    "gsm_symbolic": Chain(trace=_gsm_trace, answer=last_line),
}
