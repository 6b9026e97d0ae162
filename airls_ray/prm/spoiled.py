"""Wrong solutions that look right: right ones with other numbers (as negatives of Cooper, arXiv 2508.05613).

There a language model spoils a right response, three tries until its answer is another one. Here numbers are
exchanged, and the task's grader says whether the result is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pyarrow as pa

from airls_ray.config.schema import Config
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import ConfigError, DataError
from airls_ray.seeding import derive_seed
from airls_ray.text.codec import TextCodec

Verdicts = Sequence[tuple[float, list[bool] | None]]
Judge = Callable[[Sequence[str], Sequence[Sequence[int]], Sequence[Sequence[int]]], Verdicts]
"""Problems, responses and step ends to the outcome of each and, where it is known, the truth of its steps."""

_NUMBER = re.compile(r"\d+")
_TRIES = 3


def refuse_spoiled(config: Config, source: str) -> None:
    """Refuse `supervised_prm.spoiled` for labels that are not sampled.

    Args:
        config: with the setting.
        source: where the labels come from instead.

    Raises:
        ConfigError: it is set.
    """
    if config.supervised_prm.spoiled:
        raise ConfigError(
            "supervised_prm.spoiled=true grades what it makes of rollouts that train-prm samples, and these "
            f"come from {source}: set it to false"
        )


def spoil_numbers(text: str, prompt: str, random: Random) -> str | None:
    """Return `text` with every number from one of them on replaced by another number of problem and solution.

    Where it begins is drawn, so that some solutions go wrong early and some in their result alone. None where
    there is no other number.
    """
    found = list(_NUMBER.finditer(text))
    known = sorted({match.group() for match in (*found, *_NUMBER.finditer(prompt))})
    if not found or len(known) < 2:
        return None
    first = found[random.randrange(len(found))].start()

    def other(match: re.Match[str]) -> str:
        return random.choice([number for number in known if number != match.group()])

    return text[:first] + _NUMBER.sub(other, text[first:])


def add_spoiled(table: pa.Table, codec: TextCodec, judge: Judge, seed: int, most_tokens: int) -> pa.Table:
    """Return labels with one more row for every solved problem: its first right response, spoiled.

    Its label is 0 at the last step, and its other steps have none. A problem whose response is not wrong
    after three tries gets no such row.

    Args:
        table: PRM_LABELS with texts and outcomes.
        codec: of the policy.
        judge: grades responses to problems.
        seed: with a problem's identifier it decides what its response becomes.
        most_tokens: longest response.
    """
    left: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        if row["outcome"] is not None and row["outcome"] > 0.5:
            left.setdefault(row["problem_id"], row)
    made: list[dict[str, Any]] = []
    for attempt in range(_TRIES):
        tried = [
            one
            for problem, row in left.items()
            if (one := _spoiled(row, codec, Random(derive_seed(seed, "spoiled", problem, attempt))))
            and len(one["response"]) <= most_tokens
        ]
        if not tried:
            break
        columns = ([one[name] for one in tried] for name in ("problem_id", "response", "step_ends"))
        for one, (outcome, truth) in zip(tried, judge(*columns), strict=True):
            if outcome <= 0.5:
                made.append(one | {"outcome": outcome, "step_truth": truth})
                del left[one["problem_id"]]
    return pa.concat_tables([table, pa.Table.from_pylist(made, schema=PRM_LABELS)]).combine_chunks()


def _spoiled(row: dict[str, Any], codec: TextCodec, random: Random) -> dict[str, Any] | None:
    text = spoil_numbers("".join(row["step_texts"]), row["prompt_text"], random)
    if text is None:
        return None
    try:
        response = codec.encode_trace(text)
    except DataError:  # a word-level vocabulary may lack what the exchange makes
        return None
    ends = codec.step_ends(response)
    return {
        **{name: row[name] for name in ("problem_id", "prompt", "prompt_text")},
        "response": response,
        "step_ends": ends,
        "labels": [*[None] * (len(ends) - 1), 0.0],
        "step_texts": codec.step_texts(response, ends),
    }
