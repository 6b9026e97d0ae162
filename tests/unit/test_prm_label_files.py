"""Labels of steps in files: what is written is read, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.commands.prm_labels import label_settings, make_labels, policy_fingerprint
from actors.commands.train_prm import read_given_labels
from airls_ray.config.schema import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import LabelFacts, add_costs, read_facts, read_labels, write_labels
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import DataError
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from tests.unit.prm_label_fakes import TASK, config, label, workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tokenizer(make_task(TASK), tmp_path)
    return tmp_path


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
