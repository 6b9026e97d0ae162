"""The work behind `airls-ray data`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.schema import Config
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.data.check_answers import CONVERTED_BY, Effort, judge_problems
from airls_ray.data.contamination import Contamination, Text, find_contamination
from airls_ray.data.importing import Imported, import_problems
from airls_ray.data.problems import ProblemStream, problems_to_table, write_problems
from airls_ray.errors import ConfigError, DataError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem, Split
from airls_ray.text.messages import history_of
from airls_ray.text.tokenizer_files import load_tokenizer

_ANSWER_SECONDS = 10.0


def make_data(config: Config, output: Path, problems: int, split: Split) -> int:
    """Write `problems` problems of `config.task` with their traces as JSONL or Parquet, by suffix.

    Returns:
        How many were written: fewer than asked where the test set is smaller.

    Raises:
        ConfigError: `problems` is not positive.
        DataError: the suffix is unknown, or a file of the task is malformed.
        RunError: the file cannot be written.
    """
    if problems < 1:
        raise ConfigError(f"the number of problems must be at least 1, but is {problems}")
    stream = ProblemStream(make_task(config.task), split, derive_seed(config.seed, "data", split))
    table = stream.take(problems)
    write_problems(table, output)
    return int(table.num_rows)


@dataclass
class Converted:
    """What `convert_data` wrote: the figures of its table, and a sentence for each row that needs a look."""

    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)


def convert_data(
    source: Path | str,
    target: Path,
    form: str | None,
    fields: FieldsConfig,
    *,
    bad_rows: Literal["error", "skip"] = "skip",
    check_answers: bool = True,
    drop_wrong_traces: bool = False,
    tokenizer: str | None = None,
    max_tokens: int | None = None,
) -> Converted:
    """Write the problems of a file or of a data set of the hub as JSONL or Parquet in our own fields.

    Args:
        source: see `airls_ray.data.sources.open_source`.
        target: by its suffix .jsonl or .parquet.
        form: name of a published data set, or None.
        fields: where our fields are, before those of `form`.
        bad_rows: whether a row that cannot be used stops the command or is left out and counted.
        check_answers: grade every answer against itself, and every trace, and count what fails; it is kept.
        drop_wrong_traces: leave out the traces that fail (`check_answers` must be set).
        tokenizer: model folder or hub name, with `max_tokens`: leaves out prompts that are longer, and
            traces that with their prompt are.
        max_tokens: see there.

    Raises:
        ConfigError: only one of `tokenizer` and `max_tokens` is given, traces are to be dropped but not
            graded, or `fields` are not usable.
        DataError: see `import_problems`.
        RunError: the file cannot be written.
    """
    if (tokenizer is None) != (max_tokens is None):
        raise ConfigError("give --tokenizer and --max-tokens together: the length is counted in its tokens")
    if drop_wrong_traces and not check_answers:
        raise ConfigError("--drop-wrong-traces needs the grader: leave out --no-check-answers")
    found = import_problems(source, form, fields, bad_rows)
    counts, notes = found.counts(), list(found.bad)
    if tokenizer is not None and max_tokens is not None:
        long = _drop_long(found, tokenizer, max_tokens)
        counts |= {"problems": len(found.problems), "traces": found.traces} | long.counts
        notes += long.notes
    if check_answers:
        answers = check_gold(found, drop_wrong_traces=drop_wrong_traces)
        counts |= found.counts() | answers.counts
        notes += answers.notes
    if not found.problems:
        raise DataError(f"{source}: every problem is longer than {max_tokens} tokens; raise --max-tokens")
    write_problems(problems_to_table(found.problems), target)
    return Converted(counts, notes)


def check_gold(found: Imported, processes: int = 2, *, drop_wrong_traces: bool = False) -> Converted:
    """Grade every answer that is compared as mathematics against itself, and every trace against its answer,
    in processes with deadlines; `drop_wrong_traces` takes those that grade wrong out of `found`.

    Programs are left out: only `airls-ray data check` with a configuration runs them.
    """
    problems = [one for one in found.problems if "tests" not in one.details]
    names = (
        "answers that cannot be parsed",
        "answers that do not equal themselves",
        "traces that grade wrong",
    )
    if not problems:
        return Converted(dict.fromkeys(names, 0))
    task = FileTaskConfig(train_file=Path("-"), test_file=Path("-"), grader=CONVERTED_BY)
    effort = Effort(processes=processes, deadline_seconds=_ANSWER_SECONDS)
    judged = judge_problems(task, problems, found.places, effort)
    if drop_wrong_traces:
        wrong = frozenset(judged.wrong)
        found.problems = [_without(problem, wrong) for problem in found.problems]
    kept = "the row is kept"
    notes = [f"{sentence}; {kept}" for sentence in (*judged.unreadable, *judged.unequal)]
    notes += [f"{one}; {'left out' if drop_wrong_traces else kept}" for one in judged.wrong_traces]
    counts = map(len, (judged.unreadable, judged.unequal, judged.wrong_traces))
    return Converted(dict(zip(names, counts, strict=True)), notes)


def _without(problem: Problem, wrong: Collection[tuple[str, int]]) -> Problem:
    """Return a problem without the traces that are named by its identifier and their positions."""
    traces = tuple(
        trace for number, trace in enumerate(problem.traces) if (problem.problem_id, number) not in wrong
    )
    return replace(problem, traces=traces)


def _drop_long(found: Imported, tokenizer: str, max_tokens: int) -> Converted:
    """Take problems and traces out of `found` that are longer than `max_tokens`."""
    loaded = load_tokenizer(tokenizer, chat=False)
    converted = Converted({"problems longer than the limit": 0, "traces longer than the limit": 0})
    kept: list[Problem] = []
    for problem in found.problems:
        where = found.places[problem.problem_id]
        try:
            size = len(loaded.encode(problem.prompt, begin=True).ids)
            size += sum(len(loaded.encode(one["content"]).ids) for one in history_of(problem.details))
            sizes = [len(loaded.encode(trace).ids) for trace in problem.traces]
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if size > max_tokens:
            converted.notes.append(f"{where}: the prompt has {size} tokens, more than {max_tokens}; left out")
            converted.counts["problems longer than the limit"] += 1
            continue
        room = max_tokens - size - 1  # the end of sequence
        traces = tuple(one for one, tokens in zip(problem.traces, sizes, strict=True) if tokens <= room)
        converted.counts["traces longer than the limit"] += len(problem.traces) - len(traces)
        kept.append(replace(problem, traces=traces))
    found.problems = kept
    return converted


def _said(problem: Problem) -> str:
    """What user and assistant say in a prompt; a system message, which many problems share, is left out."""
    turns = [one["content"] for one in history_of(problem.details) if one["role"] != "system"]
    return "\n".join([*turns, problem.prompt])


def compare_data(
    train: Path | str, test: Path | str, forms: Sequence[str | None], fields: FieldsConfig, ngram: int
) -> Contamination:
    """Look for the problems of `test` in `train`; `forms` are their two formats.

    Raises:
        ConfigError: `ngram` is not positive.
        DataError: a source cannot be read.
    """
    if ngram < 1:
        raise ConfigError(f"the n-grams must have at least 1 word, but --ngram is {ngram}")
    texts = []
    for source, form in zip((train, test), forms, strict=True):
        found = import_problems(source, form, fields)
        texts.append([Text(found.places[one.problem_id], _said(one)) for one in found.problems])
    return find_contamination(texts[0], texts[1], ngram)
