"""What the PRMs of `prm_baselines.py` learn from and are measured on, sampled once for each task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_recipes import RECIPES, SPOILED, TRACES, TRUTH

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.text.codec import TextCodec

ROLLOUTS = 8
"""Of each training problem."""
SAMPLES = 16
"""Of each test problem."""


@dataclass(frozen=True)
class Samples:
    """What all PRMs of a task learn from and are measured on."""

    learn: dict[str, pa.Table]
    """PRM_LABELS by label rule: the same rollouts."""
    stored: StoredRollouts
    """The same rollouts and the traces of their problems."""
    parts: dict[str, pa.Table]
    """PRM_LABELS of `validation` and `test` problems."""
    cost: dict[str, Any] = field(default_factory=dict)


def sample(config: Config, base: Path, folder: Path, completions: int, progress: Progress) -> Samples:
    """Sample what is not there yet: rollouts with labels, validation and test."""
    import pyarrow as pa

    from actors.commands.prm_labels import label_chunk, make_labels
    from actors.commands.samplers import started_samplers
    from actors.train.start import connected
    from airls_ray.data.prm_labels import LabelFacts, read_facts, read_labels, write_labels
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    task = make_task(config.task)
    codec = TextCodec.for_model(config.model, str(base), task)

    def labelling(rule: str, rollouts: int) -> Config:
        section = {"labels": rule, "rollouts_per_problem": rollouts, "completions": completions}
        return config.model_validate(
            config.model_dump() | {"supervised_prm": config.supervised_prm.model_dump() | section}
        )

    values = folder / "values.parquet"
    parts = {name: folder / f"{name}.parquet" for name in ("validation", "test")}
    if any(not file.exists() for file in (values, *parts.values())):
        with connected(config):
            make_labels(labelling("math_shepherd_soft", ROLLOUTS), str(base), values, progress)
            chosen = labelling("outcome", SAMPLES)
            with started_samplers(chosen, str(base), progress) as samplers:
                held_out = distinct_test_problems(config)
                first = held_out.num_rows // 3
                tables = {"validation": held_out.slice(0, first), "test": held_out.slice(first)}
                for name, file in parts.items():
                    table, cost = label_chunk(
                        chosen, samplers.pool, samplers.verifier, codec, tables[name], 10**6
                    )
                    write_labels(table, file, LabelFacts({"sampled": name}, cost))
    soft = read_labels(values)
    rules = {one.labels for one in RECIPES if one.labels not in (None, SPOILED, TRUTH, TRACES)}
    learn = {rule: labelled_by(rule, soft) for rule in rules if rule is not None}
    learn[SPOILED] = with_spoiled(learn["outcome"], config, task, codec)
    learn[TRUTH] = with_labels(soft, soft["step_truth"].combine_chunks().cast(pa.list_(pa.int8())))
    facts = read_facts(values)
    return Samples(
        learn,
        stored_of(soft, config, task, codec),
        {name: read_labels(file) for name, file in parts.items()},
        {} if facts is None else facts.cost,
    )


def distinct_test_problems(config: Config) -> pa.Table:
    """Up to 300 problems of the test split, each once: the warm start has seen most training problems of a
    small puzzle, so those would flatter what is chosen by them."""
    from airls_ray.data.problems import ProblemStream, take_distinct
    from airls_ray.tasks import make_task

    larger = config.task.model_copy(update={"test_problems": 1000})
    return take_distinct(ProblemStream(make_task(larger), "test", config.seed), 300)


def labelled_by(rule: str, soft: pa.Table) -> pa.Table:
    """The rollouts labelled by another rule; the soft labels are the values that every rule goes by."""
    from airls_ray.config.supervised_section import LabelRuleConfig
    from airls_ray.evaluation.rollouts import list_column
    from airls_ray.prm.step_labels import known_to, label_steps

    known = known_to(soft, None)
    values, _ = list_column(soft["labels"])
    known |= {"values": values.astype("float64"), "correct": (values > 0).astype("int64")}
    known |= {"completions": known["last"] ^ True, "first_errors": first_errors_of(known)}
    return with_labels(soft, label_steps(LabelRuleConfig(name=rule), known))


def first_errors_of(known: dict[str, Any]) -> NDArray[np.int64]:
    """Where OmegaPRM's binary search ends, asked of the same completions as the other rules."""
    import numpy as np

    from airls_ray.prm.first_errors import find_first_errors

    steps = np.bincount(known["step_rows"], minlength=len(known["outcomes"]))
    starts = np.cumsum(steps) - steps
    return find_first_errors(
        steps,
        known["outcomes"],
        known["groups"],
        lambda rollouts, positions: known["values"][starts[rollouts] + positions] > 0,
    )


def with_spoiled(table: pa.Table, config: Config, task: Any, codec: TextCodec) -> pa.Table:
    """The rollouts by their outcomes and, of each solved problem, a right one with other numbers (Cooper)."""
    import pyarrow as pa

    from actors.commands.prm_labels import training_problems
    from airls_ray.grading.worker import judge
    from airls_ray.prm.spoiled import add_spoiled

    problems = {row["problem_id"]: row for row in training_problems(config, codec).to_pylist()}

    def judged(asked: Any, responses: Any, ends: Any) -> list[tuple[float, list[bool] | None]]:
        verdicts = []
        for problem, response, steps in zip(asked, responses, ends, strict=True):
            given = [problems[problem][name] for name in ("prompt", "answer", "details")]
            verdict = judge(task, [*given, codec.decode(response), codec.step_texts(response, steps)])
            verdicts.append((verdict[0], verdict[2]))
        return verdicts

    # What is made of a rollout was not sampled, so that nobody knows its log-probabilities.
    place = table.schema.get_field_index("logprobs")
    unknown = pa.nulls(table.num_rows, table.schema.field(place).type)
    plain = table.set_column(place, table.schema.field(place), unknown)
    return add_spoiled(plain, codec, judged, config.seed, config.rollout.max_response_tokens)


def with_labels(table: pa.Table, labels: pa.Array) -> pa.Table:
    """The rollouts with other labels."""
    field = table.schema.field("labels")
    return table.set_column(table.column_names.index("labels"), field, labels.cast(field.type))


def stored_of(table: pa.Table, config: Config, task: Any, codec: TextCodec) -> StoredRollouts:
    """The rollouts as stored ones, and a trace of each of their problems."""
    import pyarrow as pa

    from actors.commands.prm_labels import training_problems
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.data.schemas import STORED_ROLLOUTS
    from airls_ray.text.codec import encode_traces

    def with_schema(given: pa.Table, **more: pa.Array) -> pa.Table:
        columns = [
            more[name] if name in more else given[name] if name in given.column_names
            else pa.nulls(given.num_rows, kind)
            for name, kind in zip(STORED_ROLLOUTS.names, STORED_ROLLOUTS.types, strict=True)
        ]  # fmt: skip
        return pa.Table.from_arrays(columns, schema=STORED_ROLLOUTS)

    traces = encode_traces(training_problems(config, codec), codec, config.model.context_tokens)
    ones = pa.array([1.0] * traces.num_rows, pa.float32())
    return StoredRollouts(with_schema(table), with_schema(traces, outcome=ones))
