"""The grader of programs: does it judge published solutions rightly, and how fast is it?

    python benchmarks/code_grader.py --data FOLDER

FOLDER holds HumanEval.jsonl.gz and mbpp.jsonl. Every published solution is graded; then each once with one
random change (an operator, a constant, or a dropped return value), which should fail. A change that passes
is tried once more with an error in its place: if that passes too, no test gets there. Every verdict on a
change is compared with a bare run of program and tests in one interpreter. The speed is that of one grader
process on HumanEval's solutions, against `subprocess.run` of files with program and tests, which is what a
grader without protection does.
"""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from common import measure_pairs, run, verdict, write_result

if TYPE_CHECKING:
    from airls_ray.tasks.base import Problem
    from airls_ray.tasks.families.code import CodeTask

FILES = {"humaneval": "HumanEval.jsonl.gz", "mbpp": "mbpp.jsonl"}
TARGET_SPEED, TARGET_FAIL = 0.7, 0.95
WALL_SECONDS = 20.0
OPERATORS: dict[type, type] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{
        ast.Mod: ast.Add,
        ast.Lt: ast.GtE,
        ast.GtE: ast.Lt,
        ast.Gt: ast.LtE,
        ast.LtE: ast.Gt,
        ast.Eq: ast.NotEq,
    },
    **{ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}


# ------------------------------------------------------------------------------------- mutation
def places(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """Return every node inside a function that can be changed, with the kind of the change."""
    found: list[tuple[str, ast.AST]] = []
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for function in tree.body:
        for node in ast.walk(function) if isinstance(function, (ast.FunctionDef, ast.ClassDef)) else ():
            operator = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
            if type(operator) in OPERATORS and not isinstance(node, ast.AugAssign):
                found.append(("operator", node))
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, (int, str))
                and id(node) not in texts
            ):
                found.append(("constant", node))
            elif isinstance(node, ast.Return) and not is_none(node.value):
                found.append(("return", node))
    return list({id(node): (kind, node) for kind, node in found}.values())


def is_none(node: ast.expr | None) -> bool:
    """Whether a return without this value means the same."""
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def mutate(source: str, seed: str, *, with_error: bool = False) -> tuple[str, str, str] | None:
    """Return (kind, changed program, what was changed), None where nothing can be.

    `with_error`: put an error in the same place instead.
    """
    tree = ast.parse(source)
    options = places(tree)
    if not options:
        return None
    rng = random.Random(seed)
    kind = rng.choice(sorted({kind for kind, _ in options}))
    node = rng.choice([node for one, node in options if one == kind])
    before = ast.unparse(node)
    failing = ast.parse("(1 / 0)", mode="eval").body
    if isinstance(node, ast.Return):
        node.value = failing if with_error else None
    elif with_error:
        tree = ast.fix_missing_locations(Replace(node, failing).visit(tree))
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, str):
            node.value = value + "x"
        elif isinstance(value, int):  # a truth value is one, too
            node.value = not value if isinstance(value, bool) else value + 1
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPERATORS[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.UnaryOp)):
        node.op = OPERATORS[type(node.op)]()
    after = ast.unparse(node)
    return kind, ast.unparse(tree), f"{before} -> {after}"


class Replace(ast.NodeTransformer):
    """Puts `new` in the place of `old`."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old else self.generic_visit(node)


# ---------------------------------------------------------------------------------- correctness
def grade_solutions(task: CodeTask, problems: list[Problem]) -> dict[str, Any]:
    """Grade every published solution; name those that do not pass."""
    grades = [(one.problem_id, task.grade(one, fenced(one.traces[0])).reason) for one in problems]
    failed = {identity: reason for identity, reason in grades if reason != "graded"}
    return {"solutions": len(grades), "passed": len(grades) - len(failed), "failed": failed}


def grade_mutants(task: CodeTask, problems: list[Problem], seed: int) -> dict[str, Any]:
    """Grade every solution with one change; say of those that pass why."""
    made: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    survivors: list[dict[str, str]] = []
    disagreements: list[dict[str, str]] = []
    for problem in problems:
        mutant = mutate(problem.traces[0], f"{seed}/{problem.problem_id}")
        if mutant is None:
            continue
        kind, program, change = mutant
        made[kind] += 1
        reason = task.grade(problem, fenced(program)).reason
        reasons[reason] += 1
        if (reason == "graded") != passes_bare(problem, program):
            disagreements.append({"problem": problem.problem_id, "change": change, "ours": reason})
        if reason == "graded":
            error = mutate(problem.traces[0], f"{seed}/{problem.problem_id}", with_error=True)
            assert error is not None
            reached = task.grade(problem, fenced(error[1])).reason != "graded"
            why = "the tests see no difference" if reached else "no test gets there"
            survivors.append({"problem": problem.problem_id, "kind": kind, "change": change, "why": why})
    whys = Counter(survivor["why"] for survivor in survivors)
    total = sum(made.values())
    return {
        "mutants": total,
        "made": dict(made),
        "failed_share": 1 - len(survivors) / total,
        "failed_share_of_reached": 1
        - whys["the tests see no difference"] / (total - whys["no test gets there"]),
        "reasons": dict(reasons),
        "survivors_by_kind": dict(Counter(survivor["kind"] for survivor in survivors)),
        "survivors_by_reason": dict(whys),
        "survivors": survivors,
        "disagreements_with_bare_runs": disagreements,
    }


def passes_bare(problem: Problem, program: str) -> bool:
    """Whether program and tests in one unprotected interpreter end with exit code 0 (own solutions only!)."""
    source = "\n".join([program, problem.details.get("setup", ""), *problem.details["tests"]])
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = [sys.executable, "-c", source]
            done = subprocess.run(command, cwd=folder, timeout=WALL_SECONDS, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


# ---------------------------------------------------------------------------------------- speed
def measure_speed(task: CodeTask, problems: list[Problem], pairs: int, samples: int) -> dict[str, Any]:
    """Return samples per second of one grader process and of bare subprocess runs of the same programs."""
    chosen = problems[:samples]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, problem in enumerate(chosen):
            paths.append(Path(folder) / f"{number}.py")
            test = problem.details["tests"][0]
            paths[-1].write_text(f"{problem.traces[0]}\n{test}\n", encoding="utf-8")

        def ours() -> float:
            start = time.perf_counter()
            assert all(task.grade(problem, fenced(problem.traces[0])).outcome == 1.0 for problem in chosen)
            return len(chosen) / (time.perf_counter() - start)

        def bare() -> float:
            start = time.perf_counter()
            for path in paths:
                subprocess.run([sys.executable, str(path)], timeout=10, check=True, capture_output=True)
            return len(chosen) / (time.perf_counter() - start)

        found = measure_pairs(ours, bare, pairs)
    return {
        "samples": len(chosen),
        "ours_samples_per_second": found.ours,
        "bare_samples_per_second": found.bare,
        "ratio": found.ratio.figures(),
        "target": verdict(found.ratio.median, TARGET_SPEED),
    }


def main(
    data: Annotated[Path, typer.Option(help="folder with HumanEval.jsonl.gz and mbpp.jsonl")],
    pairs: Annotated[int, typer.Option(help="pairs of speed measurements")] = 3,
    samples: Annotated[int, typer.Option(help="programs of a speed measurement")] = 40,
    mutants: Annotated[int, typer.Option(help="problems of each set that are mutated, 0 for all")] = 0,
    seed: Annotated[int, typer.Option(help="of the mutations")] = 0,
) -> None:
    from airls_ray.config.schema import CodeTaskConfig
    from airls_ray.data.importing import import_problems
    from airls_ray.tasks.families.code import CodeTask

    task = CodeTask(CodeTaskConfig(train_file=data, test_file=data, sandbox={"wall_seconds": WALL_SECONDS}))
    figures: dict[str, Any] = {"in_force": str(task.in_force())}
    sets = {
        form: import_problems(data / name, form, bad_rows="error").problems for form, name in FILES.items()
    }
    figures["speed"] = measure_speed(task, sets["humaneval"], pairs, samples)
    print("speed", figures["speed"]["ratio"], figures["speed"]["target"], flush=True)
    for form, problems in sets.items():
        figures[form] = grade_solutions(task, problems)
        print(form, figures[form], flush=True)
        changed = grade_mutants(task, problems[: mutants or None], seed)
        changed["target"] = verdict(changed["failed_share"], TARGET_FAIL)
        figures[f"{form}_mutants"] = changed
        print(form, {key: value for key, value in changed.items() if key != "survivors"}, flush=True)
    task.close()
    print(write_result("code_grader", figures))


if __name__ == "__main__":
    run(main)
