"""`train-prm --steps` on a real rank with the example's files: what it leaves, and `score` with it."""

from __future__ import annotations

import json
from pathlib import Path

from airls_ray.cli import main as cli
from airls_ray.data.prm_labels import read_labels
from airls_ray.prm.folder import read_prompt_form
from tests.e2e.conftest import REPOSITORY, read_lines
from tests.tiny import make_text_policy

EXAMPLE = REPOSITORY / "examples" / "prm_from_step_labels.yaml"
STEPS = EXAMPLE.with_suffix(".jsonl")


def judge(folder: Path) -> str:
    """A scorer of one's own that knows the file's wrong steps but those of the last solution, and takes such
    a step for wrong wherever it stands."""
    rows = [json.loads(line) for line in STEPS.open()]
    wrong = [row for row in rows if not all(row["labels"])]
    known = [
        step
        for row in wrong[:-1]
        for step, label in zip(row["completions"], row["labels"], strict=True)
        if not label
    ]
    file = folder / "judge.py"
    file.write_text(
        f"WRONG = {known!r}\n"
        "def judge(prompt, steps, finished):\n"
        "    return [0.1 if step.strip() in WRONG else 0.9 for step in steps]\n"
    )
    return f"{file}:judge"


def test_the_example_leaves_a_prm_that_scores(ray_cluster: None, tmp_path: Path) -> None:
    policy, output = make_text_policy(tmp_path / "policy"), tmp_path / "out"
    command = ["train-prm", EXAMPLE, "--policy", policy, "--steps", STEPS, "--output", output]
    settings = ["prm.learner.learning_rate=0.003", "prm.learner.resources.threads=1"]
    settings += [f"supervised_prm.consensus={judge(tmp_path)}", "supervised_prm.text_loss=0.01"]
    assert cli.run([str(word) for word in (*command, *settings)]) == 0
    assert {path.name for path in output.iterdir()} == {
        "metrics.jsonl", "prm", "step_labels.json", "step_labels.parquet", "train_prm.json", "doors.json",
        "verdicts.jsonl", "agreed_labels.json", "agreed_labels.parquet",
    }  # fmt: skip
    summary = json.loads((output / "train_prm.json").read_text())
    assert (summary["problems"], summary["held_out_problems"]) == (5, 1)
    cost = summary["labels"]["cost"]
    counts = ("judged", "kept", "only_labels_wrong", "only_judge_wrong", "other_step")
    assert [cost[f"consensus_{name}"] for name in counts] == [12, 10, 0, 1, 1]
    assert read_labels(output / "agreed_labels.parquet").num_rows == 10
    assert 5 <= summary["rollouts"] < 10  # less those of the held-out problem
    assert all(line["train_prm/text_loss"] > 0 for line in read_lines(output / "metrics.jsonl")[1:])
    assert summary["task"] is None
    assert (summary["labels"]["kind"], summary["labels"]["cost"]["steps_wrong"]) == ("steps", 14)
    assert read_labels(output / "step_labels.parquet").num_rows == 12
    losses = [line["train_prm/loss"] for line in read_lines(output / "metrics.jsonl")[1:]]
    assert len(losses) == 20 * 2
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    form = read_prompt_form(output / "prm")
    assert form is not None
    assert form.step_end == "\n\n"

    rows = [json.loads(line) for line in STEPS.open()]
    solutions, scored = tmp_path / "solutions.jsonl", tmp_path / "scored.jsonl"
    solutions.write_text(
        "".join(json.dumps({"problem": row["prompt"], "steps": row["completions"]}) + "\n" for row in rows)
    )
    assert cli.run(["score", str(output / "prm"), str(solutions), str(scored)]) == 0
    right: dict[bool, list[float]] = {True: [], False: []}
    for row, found in zip(rows, read_lines(scored), strict=True):
        for label, score in zip(row["labels"], found["scores"], strict=True):
            right[label].append(score)
    mean = {label: sum(scores) / len(scores) for label, scores in right.items()}
    assert mean[True] > mean[False] + 0.1
