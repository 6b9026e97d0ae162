"""Labels of steps: from completions, from outcomes, in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.commands.prm_labels import label_chunk, label_settings, make_labels, policy_fingerprint
from actors.commands.train_prm import read_given_labels
from actors.rollout.engine import Sample, Sampling
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from airls_ray.config.schema import ArithmeticTaskConfig, Config
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import LabelFacts, add_costs, read_facts, read_labels, write_labels
from airls_ray.data.problems import ProblemStream, take_distinct
from airls_ray.data.schemas import GRADES, PRM_LABELS, ROLLOUTS, rows_to_table
from airls_ray.errors import DataError
from airls_ray.prm.step_labels import Completions, chunks, distinct_prefixes, known_to, label_steps
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.fakes import FakeEngine

TASK = ArithmeticTaskConfig(operations=2, modulus=5)
MOST = 16


def rollouts(*rows: tuple[str, list[int], list[int]]) -> pa.Table:
    """ROLLOUTS of (problem, response, step ends), with prompt [9]."""
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in ROLLOUTS.names}
    columns["problem_id"], columns["response"], columns["step_ends"] = (
        list(c) for c in zip(*rows, strict=True)
    )
    columns["prompt"] = [[9]] * len(rows)
    arrays = [pa.array(columns[field.name], field.type) for field in ROLLOUTS]
    return pa.Table.from_arrays(arrays, schema=ROLLOUTS)


# -------------------------------------------------------------------------------- from outcomes
def test_equal_prefixes_of_a_problem_are_completed_once() -> None:
    found = distinct_prefixes(
        rollouts(
            ("a", [1, 2, 3], [1, 2, 3]), ("a", [1, 5], [1, 2]), ("b", [1, 2, 3], [1, 3]), ("b", [4], [1])
        )
    )
    rows = [(row["problem_id"], row["response"]) for row in found.table.to_pylist()]
    assert rows == [("a", [1]), ("a", [1, 2]), ("b", [1])]
    assert found.numbers == [[0, 1], [0], [2], []]
    assert found.all == 4


FOUR = {"problem_id": ["a", "a", "b", "b"], "outcome": [1.0, 0.0, 0.0, 0.25]}
"""Rollouts of three, one, two steps and none."""
PREFIXES = distinct_prefixes(
    rollouts(("a", [1, 2, 3], [1, 2, 3]), ("a", [4], [1]), ("b", [1, 5], [1, 2]), ("b", [], []))
)


def labelled(rule: str, completed: Completions | None) -> list[list[float | None]]:
    table = pa.table({**FOUR, "step_ends": [[1, 2, 3], [1], [1, 2], []]})
    known = known_to(table, None if completed is None else (PREFIXES, completed))
    labels: list[list[float | None]] = label_steps(LabelRuleConfig(name=rule), known).to_pylist()
    return labels


@pytest.mark.parametrize(
    ("kind", "expected"), [("math_shepherd_hard", [1.0, 0.0, 0.0]), ("math_shepherd_soft", [1 / 3, 0.0, 0.0])]
)
def test_a_prefix_is_worth_any_or_the_share_of_its_completions(kind: str, expected: list[float]) -> None:
    """The third prefix has no completion: it fills the response, and a truncated response is wrong."""
    owner, outcomes = np.array([0, 1, 0, 1, 0]), np.array([1.0, 0.0, 0.0, 0.5, 0.0])
    first, second, third = expected
    found = labelled(kind, Completions.count(3, owner, outcomes))
    assert found == [[pytest.approx(first), second, 1.0], [0.0], [third, 0.0], []]


def test_the_last_step_has_the_outcome_and_the_others_their_prefixes_value() -> None:
    """Of fractions, too: a hard label is of completions alone."""
    table = pa.table({"problem_id": ["a"], "outcome": [0.75], "step_ends": [[1, 2, 3]]})
    prefixes = distinct_prefixes(rollouts(("a", [1, 2, 3], [1, 2, 3])))
    known = known_to(table, (prefixes, Completions(np.array([4, 4]), np.array([3, 2]))))
    for kind, wanted in (("soft", [0.75, 0.5, 0.75]), ("hard", [1.0, 1.0, 0.75])):
        assert label_steps(LabelRuleConfig(name=f"math_shepherd_{kind}"), known).to_pylist() == [wanted]


def test_outcomes_alone_label_the_last_step_alone() -> None:
    assert labelled("outcome", None) == [[None, None, 1.0], [0.0], [None, 0.0], []]


def test_what_a_rule_knows_lies_rollout_by_rollout() -> None:
    table = pa.table({**FOUR, "step_ends": [[1, 2, 3], [1], [1, 2], []]})
    made, correct = np.array([4, 4, 0]), np.array([2, 1, 0])
    known = known_to(table, (PREFIXES, Completions(made, correct)))
    assert {name: values.tolist() for name, values in known.items()} == {
        "outcomes": [1.0, 0.0, 0.0, 0.25],
        "groups": [0, 0, 1, 1],
        "step_rows": [0, 0, 0, 1, 2, 2],
        "positions": [0, 1, 2, 0, 0, 1],
        "last": [False, False, True, True, False, True],
        "values": [0.5, 0.25, 1.0, 0.0, 0.0, 0.0],
        "completions": [4, 4, 0, 0, 0, 0],
        "correct": [2, 1, 0, 0, 0, 0],
    }


def test_chunks_cover_everything_once() -> None:
    assert chunks(5, 2) == [range(0, 2), range(2, 4), range(4, 5)]
    assert chunks(4, 2) == [range(0, 2), range(2, 4)]


def test_a_stream_of_few_problems_gives_each_once() -> None:
    stream = ProblemStream(make_task(ArithmeticTaskConfig(operations=1, modulus=2)), "train", seed=1)
    identities = take_distinct(stream, 500)["problem_id"].to_pylist()
    assert 1 < len(identities) < 13
    assert len(set(identities)) == len(identities)


# --------------------------------------------------------------------------------- from engines
class SteppingEngine(FakeEngine):
    """Two steps of a token each, then the end; what it says depends on the seed alone."""

    calls: list[tuple[list[list[int]], list[int]]]

    def __init__(self, vocabulary: int, eos: int, delimiter: int) -> None:
        super().__init__(vocabulary, eos)
        self.delimiter = delimiter
        self.calls = []

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        limits = sampling.limits(len(prompts))
        self.calls.append(([list(prompt) for prompt in prompts], limits))
        return [
            [self._chain(seed + index, limit) for index in range(sampling.samples)]
            for seed, limit in zip(seeds, limits, strict=True)
        ]

    def _chain(self, seed: int, limit: int) -> Sample:
        random = np.random.default_rng(seed)
        words = random.integers(2, 4, size=3).tolist()
        tokens = [t for word in words for t in (word, self.delimiter)][: limit - 1]
        return Sample([*tokens, self.eos], [-1.0] * (len(tokens) + 1), "stop")


class Local:
    """A worker whose calls are made at once: stands for an actor's handle."""

    def __init__(self, worker: RolloutWorker, engine: SteppingEngine) -> None:
        self.worker, self.engine = worker, engine


class LocalPool:
    """The pool without Ray: a share of the rows for each worker, tables in the place of references."""

    def __init__(self, workers: list[Local]) -> None:
        self.workers = workers

    def generate(self, problems: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        return self._shares("generate", problems, request)

    def complete(self, prefixes: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        return self._shares("complete", prefixes, request)

    def _shares(self, method: str, table: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        size = -(-table.num_rows // len(self.workers))
        return [
            getattr(local.worker, method)(
                table.slice(rows.start, len(rows)), [request.first_group + row for row in rows], request
            )
            for local, rows in zip(self.workers, chunks(table.num_rows, size), strict=False)
        ]


class OddVerifier:
    """A response is correct if the number before its last delimiter is odd."""

    def grade(self, tables: list[pa.Table], problems: pa.Table) -> pa.Table:
        responses = pa.concat_tables(tables)["response"].to_pylist()
        return rows_to_table([(float(row[-3] % 2), None, None, "graded") for row in responses], GRADES)


def config(**section: Any) -> Config:
    return Config(
        task=TASK,
        rollout={"max_response_tokens": MOST},
        supervised_prm={"rollouts_per_problem": 4, "completions": 6, **section},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tokenizer(make_task(TASK), tmp_path)
    return tmp_path


def workers(folder: Path, settings: Config, count: int) -> list[Local]:
    codec = TextCodec.from_folder(folder, make_task(TASK))
    made = []
    for index in range(count):
        engine = SteppingEngine(codec.vocab_size, codec.eos_id, codec.encode_trace(";")[0])
        worker = RolloutWorker(f"w{index}", settings, str(folder), lambda *_, engine=engine: engine)
        worker.start()
        made.append(Local(worker, engine))
    return made


def label(folder: Path, settings: Config, locals_: list[Local], problems: int = 5) -> tuple[pa.Table, Any]:
    codec = TextCodec.from_folder(folder, make_task(TASK))
    table = ProblemStream(make_task(TASK), "train", seed=1).take(problems)
    return label_chunk(settings, LocalPool(locals_), OddVerifier(), codec, table, 0)  # type: ignore[arg-type]


def test_labels_are_the_share_of_correct_completions_of_every_prefix(folder: Path) -> None:
    """Sampled once more, prefix by prefix and each alone."""
    settings = config(labels="math_shepherd_soft")
    table, _ = label(folder, settings, workers(folder, settings, 1))
    assert table.schema.equals(PRM_LABELS, check_metadata=True)
    (worker,) = workers(folder, settings, 1)
    request = RolloutRequest(6, 1.0, 0, ("train_prm",))
    seen = set()
    for row in table.to_pylist():
        for end, value in zip(row["step_ends"][:-1], row["labels"][:-1], strict=True):
            prefix = {
                "problem_id": [row["problem_id"]],
                "prompt": [row["prompt"]],
                "response": [row["response"][:end]],
            }
            completed = worker.worker.complete(pa.table(prefix), [0], request)["response"].to_pylist()
            assert all(response[:end] == row["response"][:end] for response in completed)
            assert value == pytest.approx(np.mean([response[-3] % 2 for response in completed]))
            seen.add(value)
        assert row["labels"][-1] == row["outcome"] == row["response"][-3] % 2
    assert len(seen) > 2


def test_hard_labels_say_whether_any_completion_was_correct(folder: Path) -> None:
    tables = {}
    for kind in ("math_shepherd_hard", "math_shepherd_soft"):
        settings = config(labels=kind, completions=2)
        tables[kind], _ = label(folder, settings, workers(folder, settings, 1))
    hard, soft = (table["labels"].to_pylist() for table in tables.values())
    assert [[float(v > 0) for v in row[:-1]] for row in soft] == [row[:-1] for row in hard]
    assert hard != soft


@pytest.mark.parametrize("kind", ["outcome", "math_shepherd_soft"])
def test_labels_do_not_depend_on_the_number_of_workers(folder: Path, kind: str) -> None:
    settings = config(labels=kind)
    one, cost = label(folder, settings, workers(folder, settings, 1))
    three, other = label(folder, settings, workers(folder, settings, 3))
    assert one.equals(three)
    assert {**cost, "seconds": 0} == {**other, "seconds": 0}


def test_all_prefixes_of_a_chunk_are_completed_in_one_pass_and_equal_ones_once(folder: Path) -> None:
    settings = config()
    (worker,) = workers(folder, settings, 1)
    table, cost = label(folder, settings, [worker])
    rollout_call, (prompts, limits) = worker.engine.calls
    assert len(rollout_call[0]) == 5
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts) == cost["distinct_prefixes"]
    assert (
        cost["distinct_prefixes"]
        < cost["prefixes"]
        == sum(len(ends) - 1 for ends in table["step_ends"].to_pylist())
    )
    prompt = len(table["prompt"][0].as_py())
    assert limits == [MOST - (len(tokens) - prompt) for tokens in prompts]


def test_the_cost_counts_what_was_sampled(folder: Path) -> None:
    settings = config()
    table, cost = label(folder, settings, workers(folder, settings, 1))
    assert (cost["problems"], cost["rollouts"]) == (5, 20)
    assert cost["completions"] == 6 * cost["distinct_prefixes"]
    assert cost["labelling_rollouts"] == 20 + cost["completions"]
    assert cost["rollout_tokens"] == sum(map(len, table["response"].to_pylist()))
    assert cost["completion_tokens"] == 7 * cost["completions"]  # three steps of two tokens, and the end
    assert cost["tokens"] == cost["rollout_tokens"] + cost["completion_tokens"]


def test_outcome_labels_cost_no_completions(folder: Path) -> None:
    settings = config(labels="outcome")
    (worker,) = workers(folder, settings, 1)
    _, cost = label(folder, settings, [worker])
    assert (len(worker.engine.calls), cost["completions"], cost["labelling_rollouts"]) == (1, 0, 20)


def test_a_prefix_that_fills_the_response_has_no_completions(folder: Path) -> None:
    (worker,) = workers(folder, config(), 1)
    prefixes = pa.table(
        {"problem_id": ["a", "b"], "prompt": [[3], [3]], "response": [[4] * MOST, [4] * (MOST - 1)]}
    )
    done = worker.worker.complete(prefixes, [10, 11], RolloutRequest(3, 1.0, 0, ()))
    assert done["prefix"].to_pylist() == [11] * 3
    assert worker.worker.complete(prefixes.slice(0, 1), [10], RolloutRequest(3, 1.0, 0, ())).num_rows == 0


def test_the_texts_are_those_of_the_tokens(folder: Path) -> None:
    settings = config(labels="outcome")
    table, _ = label(folder, settings, workers(folder, settings, 1))
    codec = TextCodec.from_folder(folder, make_task(TASK))
    for row in table.to_pylist():
        assert "".join(row["step_texts"]) == codec.decode(row["response"])
        assert codec.encode_prompt(row["prompt_text"]) == row["prompt"]


# ---------------------------------------------------------------------------------------- files
def rows(**changes: Any) -> pa.Table:
    """Two labelled rollouts, the second with `changes`."""
    first: dict[str, Any] = {
        "problem_id": "a", "prompt": [3], "response": [4, 5, 6], "step_ends": [2, 3], "labels": [0.5, None],
    }  # fmt: skip
    second = {**first, "problem_id": "b", **changes}
    names = [*first, *(name for name in changes if name not in first)]
    return pa.table({name: [first.get(name), second[name]] for name in names})


def test_a_file_is_read_as_it_was_written(folder: Path) -> None:
    settings = config()
    table, cost = label(folder, settings, workers(folder, settings, 1))
    file = folder / "labels.parquet"
    write_labels(table, file, LabelFacts({"labels": "x"}, cost))
    assert read_labels(file).equals(table)
    assert read_facts(file) == LabelFacts({"labels": "x"}, cost)
    assert json.loads(file.with_suffix(".json").read_text())["cost"] == cost


def test_a_file_of_others_needs_the_required_fields_only(tmp_path: Path) -> None:
    pq.write_table(rows(), tmp_path / "l.parquet")
    table = read_labels(tmp_path / "l.parquet")
    assert table.schema.equals(PRM_LABELS)
    assert table["labels"].to_pylist() == [[0.5, None], [0.5, None]]
    assert table["outcome"].null_count == table["logprobs"].null_count == 2
    assert read_facts(tmp_path / "l.parquet") is None


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"labels": [0.5, 1.5]}, ["row 2", "'labels'", "between 0 and 1"]),
        ({"labels": [0.5]}, ["row 2", "'labels'", "every step"]),
        ({"labels": None}, ["row 2", "'labels'", "null"]),
        ({"step_ends": [2, 4]}, ["row 2", "'step_ends'", "length of 'response'"]),
        ({"step_ends": [3, 3]}, ["row 2", "'step_ends'", "rise"]),
        ({"step_ends": [0, 3]}, ["row 2", "'step_ends'", "rise"]),
        ({"prompt": []}, ["row 2", "'prompt'", "empty"]),
        ({"prompt": [None]}, ["row 2", "'prompt'", "null"]),
        ({"logprobs": [-1.0]}, ["row 2", "'logprobs'", "every token"]),
        ({"step_truth": [True]}, ["row 2", "'step_truth'", "every step"]),
        ({"outcome": 2.0}, ["row 2", "'outcome'", "between 0 and 1"]),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    file = tmp_path / "l.parquet"
    pq.write_table(rows(**changes), file)
    with pytest.raises(DataError) as caught:
        read_labels(file)
    assert all(part in str(caught.value) for part in [str(file), *parts]), caught.value


def test_a_missing_or_mistyped_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "l.parquet"
    pq.write_table(rows().drop_columns("step_ends"), file)
    with pytest.raises(DataError, match="lacks the field 'step_ends'"):
        read_labels(file)
    pq.write_table(rows().set_column(1, "prompt", pa.array([["x"], ["y"]])), file)
    with pytest.raises(DataError, match="field 'prompt' must be list<"):
        read_labels(file)


def test_a_missing_file_a_broken_one_and_one_without_labels_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "l.parquet"
    with pytest.raises(DataError, match="there is no file of labels"):
        read_labels(file)
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot read the labels"):
        read_labels(file)
    table = rows(labels=[None, None])
    pq.write_table(table.slice(1), file)
    with pytest.raises(DataError, match="nothing to learn"):
        read_labels(file)


def test_labels_of_another_tokenizer_are_refused(folder: Path) -> None:
    settings = config(labels="outcome")
    table, _ = label(folder, settings, workers(folder, settings, 1))
    file = folder / "labels.parquet"
    write_labels(table, file, LabelFacts({}, {}))
    assert read_given_labels(settings, str(folder), file)[0].num_rows == 20
    texts = table["step_texts"].to_pylist()
    texts[1] = ["?" for _ in texts[1]]
    place = table.column_names.index("step_texts")
    write_labels(table.set_column(place, PRM_LABELS.field(place), pa.array(texts)), file, LabelFacts({}, {}))
    with pytest.raises(DataError, match="row 2: field 'step_texts' is not what the tokenizer"):
        read_given_labels(settings, str(folder), file)
    pq.write_table(rows(response=[4, 5, 99]), file)
    with pytest.raises(DataError, match="row 2: a token lies outside"):
        read_given_labels(settings, str(folder), file)


def test_the_costs_of_parts_add_up() -> None:
    assert add_costs([{"tokens": 2, "seconds": 0.5}, {"tokens": 3, "seconds": 1.0}]) == {
        "tokens": 5, "seconds": 1.5,
    }  # fmt: skip


def finished(folder: Path, settings: Config) -> Path:
    table, cost = label(folder, settings, workers(folder, settings, 1))
    file = folder / "out" / "labels.parquet"
    write_labels(table, file, LabelFacts(label_settings(settings, str(folder)), cost))
    return file


def test_finished_labels_are_not_sampled_again(folder: Path) -> None:
    """Without a cluster, sampling would fail."""
    settings = config(labels="outcome", problems=5)
    file = finished(folder, settings)
    table, facts = make_labels(settings, str(folder), file, QuietProgress())
    assert (table.num_rows, facts.cost["rollouts"]) == (20, 20)


def test_labels_of_other_settings_are_refused_by_name(folder: Path) -> None:
    file = finished(folder, config(labels="outcome", problems=5))
    with pytest.raises(DataError, match="another problems: give another --output"):
        make_labels(config(labels="outcome", problems=6), str(folder), file, QuietProgress())


def test_a_policy_with_other_weights_is_another_policy(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * 100)
    first = policy_fingerprint(str(tmp_path))
    file.write_bytes(b"a" * 99 + b"b")
    assert policy_fingerprint(str(tmp_path)) != first
    assert policy_fingerprint("owner/name") == "owner/name"
