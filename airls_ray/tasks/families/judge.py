"""Judging steps of labelled files in a critic's words, so that RL trains the critic (StepWiser, 2508.19229).

A problem is a critic's question on a step (or on a whole solution), the answer its label, and a response is
right when the verdict that the critic reads in it is the label. `method=grpo` then trains a generative judge
as StepWiser does, and with a critic of whole solutions an outcome verifier (GenRM, arXiv 2408.15240). The
words are those of the critics here, not the papers'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from airls_ray.critics.critic import Form, Question
from airls_ray.critics.reply import Reply
from airls_ray.errors import DataError, DoorError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Problem, Split

if TYPE_CHECKING:  # grader processes read no files
    from airls_ray.data.step_forms import StepForm, StepRow

RIGHT, WRONG = "right", "wrong"
_SCORERS = "airls_ray.search.scorers"
_TRAINED = "r_prm, gen_orm and think_prm_outcome"
_EXAMPLE = ("a", "b")
"""Steps of which a critic is asked to see how it asks."""


@dataclass(frozen=True)
class _Judged:
    prompt: str
    label: str
    source: Problem
    """The problem whose solution is judged."""


class Judge:
    """Questions of a critic on the steps of labelled files; see the module's docstring."""

    name = "judge"

    def __init__(
        self,
        train_file: str,
        test_file: str,
        critic: str = "r_prm",
        form: StepForm | None = None,
        instruction: str | None = None,
        balance: bool = True,
        test_problems: int = 500,
    ) -> None:
        """Open the critic; files are read when problems are first asked for.

        Args:
            train_file: labelled steps (`airls_ray.data.step_files`), relative to the working directory.
            test_file: the same, of other problems.
            critic: a built-in one that asks once of each step (`r_prm`) or once of the solution (`gen_orm`,
                `think_prm_outcome`).
            form: of the files; None: told from their fields.
            instruction: in the place of the critic's own words.
            balance: whether both labels are asked of equally often. The larger class is drawn anew for each
                epoch of the training file, and once for the test file.
            test_problems: most questions of the test set.

        Raises:
            DoorError: there is no such critic, or it asks of several steps at once or in a conversation.
        """
        self._files: dict[Split, Path] = {"train": Path(train_file), "test": Path(test_file)}
        self._form, self._balance, self._most = form, balance, test_problems
        self._critic = _form_of(critic)
        self._instruction = self._critic.instruction if instruction is None else instruction
        asked = self._questions("p", _EXAMPLE)
        if any(len(one.turns) != 1 or len(one.steps) != 1 for one in asked):
            raise DoorError(
                f"cannot train {critic}, which asks of several steps at once or in a conversation: take one "
                f"of {_TRAINED}"
            )
        self._by_steps = len(asked) == len(_EXAMPLE)
        self._read: dict[Split, list[_Judged]] = {}

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield questions from position `start`: reshuffled epochs (train), or one draw in the file's order.

        Raises:
            DataError: a file cannot be read, has no label or one of the two alone, or both share a problem.
        """
        judged = self._judged()
        if split == "test":
            order = sorted(self._draw(judged["test"], Random(0), self._most))
            yield from (_problem(judged["test"][at]) for at in order[start:])
            return
        size = len(self._draw(judged["train"], Random(0)))
        skip = start % size
        for epoch in count(start // size):
            order = self._draw(judged["train"], Random(derive_seed(seed, "judge", epoch)))
            yield from (_problem(judged["train"][at]) for at in order[skip:])
            skip = 0

    def grade(self, problem: Problem, response: str) -> tuple[float, str | None]:
        """1 if the verdict is the label, else 0; without a verdict that can be read 0 and no answer."""
        vote = self._critic.read(Reply(response), 1)
        if vote is None:
            return 0.0, None
        verdict = RIGHT if vote[0] > 0.5 else WRONG
        return float(verdict == problem.answer), verdict

    def _questions(self, problem: str, steps: Sequence[str]) -> list[Question]:
        return list(self._critic.questions(problem, steps, self._instruction))

    def _judged(self) -> dict[Split, list[_Judged]]:
        if not self._read:
            from airls_ray.data.step_files import read_step_file
            from airls_ray.tasks.problem_files import check_apart

            for split, path in self._files.items():
                found = [one for row in read_step_file(path, self._form) for one in self._of_row(row)]
                labels = {one.label for one in found}
                if len(labels) < (2 if self._balance else 1):
                    what = f"all as {min(labels)}" if labels else "nothing that is judged"
                    raise DataError(
                        f"{path} labels {what}: give a file with both, or set task.options.balance=false"
                    )
                self._read[split] = found
            train, test = ([one.source for one in self._read[split]] for split in ("train", "test"))
            check_apart(train, test, self._files["train"], self._files["test"])
        return self._read

    def _of_row(self, row: StepRow) -> Iterator[_Judged]:
        source = Problem(row.problem_id, row.problem, "")
        for question in self._questions(row.problem, row.steps):
            label = row.labels[question.steps[0]] if self._by_steps else _whole_label(row)
            if label is not None:
                yield _Judged(question.turns[0][1], RIGHT if label else WRONG, source)

    def _draw(self, judged: Sequence[_Judged], rng: Random, most: int | None = None) -> list[int]:
        """Places in a random order, as many of each label where they are balanced; at most `most`."""
        places = [[at for at, one in enumerate(judged) if one.label == label] for label in (RIGHT, WRONG)]
        if self._balance:
            each = min(len(places[0]), len(places[1]))
            each = each if most is None else min(each, max(most // 2, 1))
            places = [rng.sample(found, each) for found in places]
        drawn = [at for part in places for at in part]
        rng.shuffle(drawn)
        return drawn[:most]


def _whole_label(row: StepRow) -> bool | None:
    """Whether a solution is right: its outcome where the file has it, else whether all of its steps are."""
    if row.outcome is not None:
        return row.outcome > 0.5
    return None if row.first_error is None else row.first_error == -1


def _problem(judged: _Judged) -> Problem:
    from airls_ray.tasks.generate import content_id

    return Problem(content_id("judge", f"{judged.label}\n{judged.prompt}"), judged.prompt, judged.label)


def _form_of(critic: str) -> Form:
    """The template and reader of a built-in critic."""
    try:
        found: Any = import_module(f"{_SCORERS}.{critic}").SCORER
        form: Form = found.form
    except (ImportError, AttributeError, ValueError):
        raise DoorError(f"knows no critic {critic!r}: there are {_TRAINED}") from None
    return form


TASK = Judge
