"""Our reading of answers beside math-verify alone: where they differ, and who is right.

    python benchmarks/answers.py DATA

DATA holds cases/maths.jsonl (answers that others reported, with the right verdict),
gsm8k_pool/solutions.parquet (19,785 solutions with the verdicts that came with them) and
math/math500_test.jsonl (each answer boxed, announced and in its own solution, which is right; and boxed
answers of the next problems, of which most are wrong: there only the differences are listed).
Both sides grade in child processes with the same deadline.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import common
import typer

DEADLINE_SECONDS = 10.0
LISTED = 40
SHOWN = 160


@dataclass(frozen=True)
class Question:
    """One response, the answer that it should have, and whether it is right (None: not known)."""

    gold: str
    response: str
    right: bool | None
    kind: str


def main(
    data: Annotated[Path, typer.Argument(help="Folder with cases/, gsm8k_pool/ and math/.")],
    processes: Annotated[int, typer.Option(min=1, help="Grader processes of each side.")] = 2,
    others: Annotated[int, typer.Option(min=0, help="Answers of other problems for each of MATH-500.")] = 4,
) -> None:
    """Grade everything by both, and say where they differ."""
    from airls_ray.config.schema import FileTaskConfig
    from airls_ray.config.task_choice import to_graders
    from airls_ray.console.choose import make_progress
    from airls_ray.grading.pool import GraderPool

    progress = make_progress()
    sets = {
        "cases": cases(data / "cases/maths.jsonl"),
        "gsm8k_pool": pool_solutions(data / "gsm8k_pool/solutions.parquet"),
        "math500": math500(data / "math/math500_test.jsonl", others),
    }
    task = to_graders(FileTaskConfig(train_file=Path("-"), test_file=Path("-"), grader="math"))
    library = [sys.executable, str(Path(__file__).with_name("library_grader.py"))]
    figures: dict[str, Any] = {"processes": processes}
    with (
        GraderPool(task, processes, DEADLINE_SECONDS) as ours,
        GraderPool("{}", processes, DEADLINE_SECONDS, command=library) as theirs,
    ):
        for pool in (ours, theirs):
            ask(pool, [Question("1", "1", True, "")] * processes)  # the children are ready then
        for name, questions in sets.items():
            with progress.phase(name):
                figures[name] = compare(questions, *(ask(pool, questions) for pool in (ours, theirs)))
    report(figures, progress)


# ------------------------------------------------------------------------------------------ data
def cases(path: Path) -> list[Question]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Question(row["gold"], row["response"], row["right"], row["kind"]) for row in rows]


def pool_solutions(path: Path) -> list[Question]:
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return [Question(row["gold"], row["response"], row["correct"], stored_kind(row)) for row in rows]


def stored_kind(row: dict[str, Any]) -> str:
    """What the stored verdict goes by: the text that was taken out of the response, or none."""
    answer = row["answer"]
    if answer == "[invalid]":
        return "nothing was taken out"
    return "a number" if re.fullmatch(r"[-$]*[\d,]*\.?\d+%?", answer.strip()) else "a number among words"


def math500(path: Path, others: int) -> list[Question]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = []
    for place, row in enumerate(rows):
        gold = row["answer"]
        found += [
            Question(gold, f"\\boxed{{{gold}}}", True, "boxed"),
            Question(gold, f"The answer is ${gold}$.", True, "announced"),
            Question(gold, row["solution"], True, "solution"),
        ]
        for step in range(1, others + 1):
            other = rows[(place + step) % len(rows)]["answer"]
            found.append(Question(gold, f"\\boxed{{{other}}}", None, "another answer"))
    return found


# ------------------------------------------------------------------------------------- measuring
def ask(pool: Any, questions: Sequence[Question]) -> tuple[list[Any], float]:
    """Return the results of one side and its seconds."""
    from airls_ray.grading.pool import GradeRequest

    start = time.perf_counter()
    results = pool.grade([GradeRequest("", one.gold, "{}", one.response) for one in questions])
    return results, time.perf_counter() - start


def compare(
    questions: Sequence[Question], ours: tuple[list[Any], float], theirs: tuple[list[Any], float]
) -> dict[str, Any]:
    """Count agreements with what is known, and list where the two sides or ours and the truth differ."""
    known = [place for place, one in enumerate(questions) if one.right is not None]
    verdicts = [[one.outcome == 1.0 for one in results] for results, _ in (ours, theirs)]
    agreements = [sum(side[place] == questions[place].right for place in known) for side in verdicts]
    differing = [place for place in range(len(questions)) if verdicts[0][place] != verdicts[1][place]]
    apart = [place for place in known if verdicts[0][place] != questions[place].right]
    who = Counter(who_is_right(questions[place], verdicts[0][place]) for place in differing)
    return {
        "answers": len(questions),
        "known": len(known),
        "ours_agree": agreements[0],
        "math_verify_agrees": agreements[1],
        "differ": len(differing),
        "who_is_right_where_they_differ": dict(who),
        "ours_per_second": len(questions) / ours[1],
        "math_verify_per_second": len(questions) / theirs[1],
        "status_ours": dict(Counter(one.status for one in ours[0])),
        "status_math_verify": dict(Counter(one.status for one in theirs[0])),
        "ours_apart_by_kind": dict(Counter(questions[place].kind for place in apart)),
        "differences": [
            shown(questions[place], ours[0][place], theirs[0][place]) for place in differing[:LISTED]
        ],
        "ours_apart": [shown(questions[place], ours[0][place], theirs[0][place]) for place in apart[:LISTED]],
    }


def who_is_right(question: Question, ours: bool) -> str:
    if question.right is None:
        return "not known"
    return "ours" if ours == question.right else "math-verify"


def shown(question: Question, ours: Any, theirs: Any) -> dict[str, Any]:
    return {
        "gold": question.gold,
        "end": question.response[-SHOWN:],
        "right": question.right,
        "kind": question.kind,
        "ours": [ours.outcome == 1.0, ours.answer],
        "math_verify": [theirs.outcome == 1.0, theirs.answer],
    }


def report(figures: dict[str, Any], progress: Any) -> None:
    """Print the tables and the differences, write the result."""
    sets = {name: one for name, one in figures.items() if isinstance(one, dict)}
    for name, one in sets.items():
        for row in one["differences"]:
            progress.say(
                f"{name}: {row['gold']!r}, {row['end'][-80:]!r}: right {row['right']}, ours {row['ours']}"
            )
    rows = [
        (
            name,
            f"{one['ours_agree']:,} of {one['known']:,}",
            f"{one['math_verify_agrees']:,}",
            ", ".join(f"{who} {count}" for who, count in one["who_is_right_where_they_differ"].items()),
            f"{one['ours_per_second']:.0f} / {one['math_verify_per_second']:.0f}",
            common.verdict(float(one["ours_agree"]), float(one["math_verify_agrees"])),
        )
        for name, one in sets.items()
    ]
    columns = (
        "set",
        "ours right",
        "math-verify alone",
        "where they differ",
        "answers/s",
        "at least as often",
    )
    progress.table("Answers: ours and math-verify alone", rows, columns)
    progress.say(f"written to {common.write_result('answers', figures)}")


if __name__ == "__main__":
    common.run(main)
