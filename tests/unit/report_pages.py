"""Runs that reports are written of, and the page as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from airls_ray.config import Config
from airls_ray.report.data import RunData
from airls_ray.runs.run_folder import RunFolder

EVIL = "<script>alert('x')</script>&amp;\"$x"


VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """The page as a browser sees it: text by element, tags, attributes; unbalanced tags are an error."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.headings: list[str] = []
        self.feed(document)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.stack and self.stack[-1] in ("h1", "h2", "h3", "summary"):
            self.headings.append(data)
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def metrics(iteration: int, prm: bool = True) -> dict[str, float]:
    found = {"outcome/mean": 0.5 + iteration / 100, "policy/entropy": 0.4, "time/rollout": 3.0}
    found |= {"time/iteration": 5.0, "time/policy_update": 1.5, "tokens_per_second/rollout": 6000.0}
    if prm:
        found |= {"prm/step_auroc": 0.9, "policy_log_prob/step_auroc": 0.8, "prm/loss": 1.3}
    return found


def summary(**more: Any) -> dict[str, Any]:
    accuracy = {"base": {"sampled": 0.53, "greedy": 0.6}, "trained": {"sampled": 0.745, "greedy": 0.78}}
    return {"name": "demo", "method": "airl_s", "seed": 3, "accuracy": accuracy, **more}


def search(start: float) -> dict[str, dict[str, float]]:
    methods = ("best_of_n", "majority", "weighted", "policy_log_prob", "oracle")
    return {name: {str(2**k): start + 0.03 * k for k in range(5)} for name in methods}


def example(text: str, score: float | None, truth: bool | None) -> dict[str, Any]:
    steps = [{"text": text, "score": score, "truth": truth}]
    return {"prompt": text, "answer": text, "outcome": 1.0, "policy": "trained", "steps": steps}


def write_run(path: Path, *, iterations: int = 30, prm: bool = True, **more: Any) -> Path:
    run = RunFolder(path)
    run.create(Config(name=path.name))
    for iteration in range(iterations):
        phase = "warmup" if prm and iteration < 10 else "train"
        run.log_metrics(iteration, metrics(iteration, prm), phase=phase)
    run.write_summary(summary(**more))
    return path


def in_memory(lines: list[dict[str, Any]], config: str = "", **more: Any) -> RunData:
    return RunData(Path("runs/demo"), lines, more, [], config)
