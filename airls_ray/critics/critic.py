"""A generative critic behind an OpenAI-compatible address: template, K replies, reader, mean vote.

problem, steps -> questions -> K sampled replies each -> a vote each, read from text and log-probabilities
-> the mean vote of each step. A system is a `Form` and a class in a file of `airls_ray/search/scorers/`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from math import fsum
from threading import Lock
from typing import Any, ClassVar

from airls_ray.critics.reply import Reply, reply_of
from airls_ray.errors import DoorError, RunError
from airls_ray.seeding import derive_seed

NEUTRAL = 0.5
"""[C] Score of steps of which no vote could be read."""
_AT_ONCE = 16
"""Solutions that are judged side by side; the server makes its own batches of the requests."""
_TOP = 20
"""Log-probabilities asked for at each token: the most that vLLM gives without a setting of its own."""
_KEPT = 20_000
"""Questions whose scores are kept: a search judges the same first steps again and again."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What one vote is asked."""

    turns: tuple[tuple[str, str], ...]
    """Role and text of each turn; the last is the user's."""
    steps: tuple[int, ...]
    """Indices of the steps that a reply judges; a step of which nothing is asked scores 1."""
    begun: str = ""
    """Words of the form with which the reply begins."""
    stop: tuple[str, ...] = ()
    """Texts behind which nothing is read."""


Questions = Generator[Question, str, None]
"""Asked one after the other; what comes back for each is the whole text of its first reply."""
Vote = list[float] | None
"""A score in [0, 1] for each step that was asked of; None: the reply cannot be read."""


@dataclass(frozen=True)
class Form:
    """How a system asks and reads. Both are pure functions."""

    questions: Callable[[str, Sequence[str], str], Questions]
    """Of the problem, the steps and the instruction."""
    read: Callable[[Reply, int], Vote]
    """Of a reply and the number of steps that were asked of."""
    instruction: str
    """The words that a user may replace."""
    votes: int
    temperature: float
    max_tokens: int
    """Of one reply."""
    top_p: float = 1.0
    log_probs: bool = True
    """Whether the reader looks at log-probabilities."""


@dataclass
class Tally:
    """What happened in one call."""

    counts: Counter[str] = field(default_factory=Counter)
    """`solutions`, `neutral` (solutions with a step of which no vote could be read), `replies`, `unreadable`
    and `refused` (requests that the endpoint does not take or that failed after all retries)."""
    errors: list[RunError] = field(default_factory=list)
    """Of requests that the endpoint did not answer."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def count(self, **more: int) -> None:
        """Add to the counts, from any thread: one that another interrupts would lose what it adds."""
        with self._lock:
            self.counts.update(more)


def mean_vote(votes: Sequence[Vote], steps: int) -> list[float] | None:
    """Return the mean of the readable votes for each of `steps` steps; None: there is none."""
    readable = [vote for vote in votes if vote is not None]
    if not readable:
        return None
    return [fsum(vote[at] for vote in readable) / len(readable) for at in range(steps)]


class Critic:
    """A scorer of texts (docs/doors.md): made once in each process, with its options."""

    form: ClassVar[Form]

    def __init__(
        self,
        endpoint: str,
        model: str | None = None,
        votes: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        instruction: str | None = None,
        prefill: bool = True,
        deadline_seconds: float = 600.0,
        seed: int = 0,
    ) -> None:
        """Make a client; nothing is asked yet.

        Args:
            endpoint: address, such as `http://127.0.0.1:8000/v1`; the key is in `OPENAI_API_KEY`.
            model: name there; None: the one that is served.
            votes: K, replies to each question; None: as the authors.
            temperature: of the replies; None: as the authors.
            max_tokens: of one reply; None: as the form says.
            instruction: in the place of the form's own words.
            prefill: whether replies begin with the form's own words, which vLLM and SGLang can.
            deadline_seconds: of one call.
            seed: of the samples; a question's own depends on it and on the question alone.

        Raises:
            DoorError: an option has no such value; the text follows the scorer's name.
            ConfigError: the `openai` package is missing.
        """
        from airls_ray.evaluation.endpoint import Connection

        form = self.form
        self.votes = form.votes if votes is None else votes
        self.temperature = form.temperature if temperature is None else temperature
        self.max_tokens = form.max_tokens if max_tokens is None else max_tokens
        self.instruction = form.instruction if instruction is None else instruction
        self.prefill, self.seed = prefill, seed
        if not str(endpoint).startswith(("http://", "https://")):
            raise DoorError(
                f"takes the address of a server as endpoint (http://HOST:PORT/v1), not {endpoint!r}"
            )
        self.deadline_seconds = deadline_seconds
        for name, least in (("votes", 1), ("temperature", 0), ("max_tokens", 1), ("deadline_seconds", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
                raise DoorError(f"takes {name} of at least {least}, not {value!r}")
        self._connection = Connection(endpoint, model, deadline_seconds)
        self._kept: dict[Question, tuple[list[float], str]] = {}
        self._unreadable = ""
        self.counts: Counter[str] = Counter()
        """Of all calls; see `Tally`."""

    def score(self, prompts: Sequence[str], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return for each solution one score in [0, 1] for each of its steps.

        An unreadable reply is a vote less, and so is a request that fails after all retries. Without a vote a
        step scores `NEUTRAL`.

        Raises:
            RunError: the endpoint answered none of the requests.
        """
        tally = Tally()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._judge, prompts, steps, repeat(tally)))
        if tally.errors and not tally.counts["replies"]:
            raise tally.errors[0]
        if not self.counts["neutral"] and tally.counts["neutral"]:
            _LOG.warning("%s gave no readable vote on some steps, which score %s", self._connection, NEUTRAL)
        self.counts += tally.counts
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return found

    def tried(self) -> None:
        """Say after a trial that none of its replies could be read; what comes next is counted anew.

        Raises:
            DoorError: so it was; the text follows the scorer's name.
        """
        if self.counts["replies"] and self.counts["replies"] == self.counts["unreadable"]:
            raise DoorError(
                f"can read no verdict in what {self._connection} replies, such as {self._unreadable!r}: is "
                "this a model of that kind, and are max_tokens enough?"
            )
        self.counts.clear()

    def told(self) -> str:
        """Return the counts in a line."""
        counts = self.counts
        return (
            f"{counts['replies']} replies of {self._connection}, {counts['unreadable']} of them unreadable, "
            f"{counts['refused']} requests without one; {counts['neutral']} of {counts['solutions']} "
            f"solutions have a step without a vote, which scores {NEUTRAL}"
        )

    def _judge(self, problem: str, steps: Sequence[str], tally: Tally) -> list[float]:
        scores, blind = [1.0] * len(steps), False
        questions = self.form.questions(problem, steps, self.instruction)
        question = next(questions, None) if steps else None
        while question is not None:
            found, text = self._kept.get(question) or self._ask(question, tally)
            blind |= not found
            for at, number in enumerate(question.steps):
                scores[number] = found[at] if found else NEUTRAL
            try:
                question = questions.send(text)
            except StopIteration:
                question = None
        tally.count(solutions=1, neutral=int(blind))
        return scores

    def _ask(self, question: Question, tally: Tally) -> tuple[list[float], str]:
        """Return the mean vote, empty where no reply could be read, and the first reply's text."""
        seed = derive_seed(self.seed, "critic", *(text for turn in question.turns for text in turn))
        replies: list[tuple[str, Reply]] = []
        while len(replies) < self.votes:
            try:  # some servers give one choice whatever `n` is
                replies += self._replies(question, self.votes - len(replies), seed + len(replies))
            except RunError as error:
                self._lose(error, tally)
                break
        votes = [self.form.read(reply, len(question.steps)) for _, reply in replies]
        unreadable = [reply.text for (_, reply), vote in zip(replies, votes, strict=True) if vote is None]
        if unreadable:
            self._unreadable = " ".join(unreadable[0].split())[:60]
        tally.count(replies=len(replies), unreadable=len(unreadable))
        mean = mean_vote(votes, len(question.steps)) or []
        text = replies[0][0] if replies else question.begun
        if len(replies) >= self.votes:
            self._kept[question] = mean, text
        return mean, text

    @staticmethod
    def _lose(error: RunError, tally: Tally) -> None:
        from airls_ray.evaluation.endpoint import Refusal

        tally.count(refused=1)
        if not isinstance(error, Refusal):
            tally.errors.append(error)

    def _replies(self, question: Question, count: int, seed: int) -> list[tuple[str, Reply]]:
        """Whole texts and last parts of at most `count` replies, at least one."""
        found = self._parts(question, question.begun, count, seed)[:count]
        return [(question.begun + reply.text, reply) for reply in found]

    def _parts(self, question: Question, begun: str, count: int, seed: int) -> list[Reply]:
        """What comes behind `begun`.

        Raises:
            RunError: the endpoint refuses or cannot be reached.
        """
        messages: Any = [{"role": role, "content": text} for role, text in question.turns]
        extra: dict[str, Any] = {}
        if begun and self.prefill:
            messages.append({"role": "assistant", "content": begun})
            extra = {"continue_final_message": True, "add_generation_prompt": False}
            extra["include_stop_str_in_output"] = True
        asked: dict[str, Any] = {"stop": list(question.stop)} if question.stop else {}
        if self.form.log_probs:
            asked |= {"logprobs": True, "top_logprobs": _TOP}
        choices = self._connection.choices(
            lambda client, model: client.chat.completions.create(
                model=model,
                messages=messages,
                n=count,
                temperature=self.temperature,
                top_p=self.form.top_p,
                max_tokens=self.max_tokens,
                seed=seed % (1 << 31),
                extra_body=extra or None,
                **asked,
            )
        )
        return [reply_of(choice) for choice in choices]
