"""The maths grader on real answers: MATH-500 against itself and crosswise, GSM8K's stored verdicts, speed."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import common
import typer

AGREEMENT, ANSWERS_PER_SECOND = 0.995, 200.0
DEADLINE_SECONDS = 10.0
LISTED = 400
NOT_MODELS = ("question", "ground_truth")


def main(
    files: Annotated[
        Path | None,
        typer.Option(help="Folder with gsm8k/ and math/; by default that of AIRLS_RAY_TEST_DATA."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Grader processes.")] = 2,
    others: Annotated[int, typer.Option(min=1, help="Answers of other problems for each problem.")] = 499,
) -> None:
    """Grade with the pool of child processes as a run does, and compare with what is known."""
    from airls_ray.config.schema import FileTaskConfig
    from airls_ray.config.task_choice import to_graders
    from airls_ray.console.choose import make_progress
    from airls_ray.errors import ConfigError
    from airls_ray.grading.pool import GraderPool

    folder = files or Path(os.environ.get("AIRLS_RAY_TEST_DATA", ""))
    math500, solutions = folder / "math/math500_test.jsonl", folder / "gsm8k/example_model_solutions.jsonl"
    for path in (math500, solutions):
        if not path.is_file():
            raise ConfigError(f"there is no {path}; give the folder with --files or AIRLS_RAY_TEST_DATA")
    task = FileTaskConfig(train_file=Path("-"), test_file=Path("-"), grader="math")
    progress = make_progress()
    with GraderPool(to_graders(task), processes, DEADLINE_SECONDS) as pool:
        ask(pool, [("1", "1")] * processes)  # the children are ready then
        figures: dict[str, Any] = {"processes": processes}
        with progress.phase("MATH-500 against itself"):
            figures |= against_itself(pool, math500)
        with progress.phase("GSM8K's stored solutions"):
            figures |= stored_verdicts(pool, solutions)
        with progress.phase("MATH-500 crosswise"):
            figures |= crosswise(pool, math500, others)
    report(figures, progress)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ask(pool: Any, pairs: Sequence[tuple[str, str]]) -> list[Any]:
    from airls_ray.grading.pool import GradeRequest

    return pool.grade([GradeRequest("", answer, "{}", response) for answer, response in pairs])


def against_itself(pool: Any, path: Path) -> dict[str, Any]:
    """Every gold answer as a boxed response, announced in words, and as it stands in its own solution."""
    rows = read(path)
    forms = {
        "boxed": [(row["answer"], f"\\boxed{{{row['answer']}}}") for row in rows],
        "announced": [(row["answer"], f"The answer is ${row['answer']}$.") for row in rows],
        "solution": [(row["answer"], row["solution"]) for row in rows],
    }
    figures: dict[str, Any] = {"math500_answers": len(rows)}
    start = time.perf_counter()
    for name, pairs in forms.items():
        results = ask(pool, pairs)
        wrong = [pair[0] for pair, one in zip(pairs, results, strict=True) if one.outcome < 1]
        figures[f"math500_{name}_true"] = len(rows) - len(wrong)
        figures[f"math500_{name}_not_true"] = wrong
    figures["math500_answers_per_second"] = len(forms) * len(rows) / (time.perf_counter() - start)
    return figures


def stored_verdicts(pool: Any, path: Path) -> dict[str, Any]:
    """Our verdicts on model solutions beside those that were published with them."""
    rows = read(path)
    asked = [
        (model, row["ground_truth"].rpartition("A: ")[2], row[model]["solution"], row[model]["is_correct"])
        for row in rows
        for model in row
        if model not in NOT_MODELS
    ]
    start = time.perf_counter()
    results = ask(pool, [(gold, solution) for _, gold, solution, _ in asked])
    seconds = time.perf_counter() - start
    differing = [
        {"model": model, "gold": gold, "given": one.answer, "stored": stored, "end": solution[-100:]}
        for (model, gold, solution, stored), one in zip(asked, results, strict=True)
        if (one.outcome == 1) != stored
    ]
    return {
        "gsm8k_solutions": len(asked),
        "gsm8k_stored_right": sum(stored for *_, stored in asked),
        "gsm8k_agreement": 1 - len(differing) / len(asked),
        "gsm8k_disagreements": differing,
        "gsm8k_status": dict(Counter(one.status for one in results)),
        "gsm8k_answers_per_second": len(asked) / seconds,
    }


def crosswise(pool: Any, path: Path, others: int) -> dict[str, Any]:
    """Every gold answer against the answers of other problems; pairs that are true are listed."""
    answers = [row["answer"] for row in read(path)]
    count = len(answers)
    pairs = [
        (answers[row], f"\\boxed{{{answers[(row + step) % count]}}}")
        for row in range(count)
        for step in range(1, min(others, count - 1) + 1)
    ]
    start = time.perf_counter()
    results = ask(pool, pairs)
    seconds = time.perf_counter() - start
    same = differing = 0
    written_otherwise: Counter[str] = Counter()
    for (gold, response), one in zip(pairs, results, strict=True):
        if one.outcome == 1 and f"\\boxed{{{gold}}}" == response:
            same += 1
        elif one.outcome == 1:
            differing += 1
            written_otherwise[f"{gold}  =  {response[7:-1]}"] += 1
    return {
        "crosswise_pairs": len(pairs),
        "crosswise_true_same_text": same,
        "crosswise_true_other_text": differing,
        "crosswise_true_other_text_pairs": dict(written_otherwise.most_common(LISTED)),
        "crosswise_status": dict(Counter(one.status for one in results)),
        "crosswise_answers_per_second": len(pairs) / seconds,
    }


def report(figures: dict[str, Any], progress: Any) -> None:
    """Print the table, write the result."""
    slowest = min(value for name, value in figures.items() if name.endswith("per_second"))
    shown = [(name, value) for name, value in figures.items() if not isinstance(value, list | dict)]
    rows = [
        *((name, value if isinstance(value, int) else f"{value:.4g}") for name, value in shown),
        ("agreement", common.verdict(figures["gsm8k_agreement"], AGREEMENT)),
        ("slowest", common.verdict(slowest, ANSWERS_PER_SECOND)),
    ]
    progress.table("The maths grader on real answers", rows, ("what", "figure"))
    progress.say(f"written to {common.write_result('math_grader', figures)}")


if __name__ == "__main__":
    common.run(main)
