"""Hidden states of a pretrained model at the ends of the steps of stored solutions, computed once and kept.

A pass over the solutions is what costs; a head on the states trains in seconds. Each question is a file, so
that a run that was stopped goes on, and one with a budget of seconds takes as many questions as fit.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from airls_ray.console.progress import Progress

REFERENCE = "reference"
"""The generator of the solutions that come with the data set."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\n+")


@dataclass(frozen=True)
class Solution:
    """A solution of a question, and where it came from."""

    generator: str
    text: str
    answer: str | None
    correct: bool
    ends: tuple[int, ...] = ()
    """Characters at which its steps end; empty: those of its sentences and lines."""
    first_error: int = -1
    """Its first wrong step, where somebody has labelled it; -1: none."""
    labels: tuple[bool | None, ...] = ()
    """Whether each step is right, where somebody has rated it."""

    @property
    def step_ends(self) -> tuple[int, ...]:
        """Characters at which its steps end."""
        return self.ends or tuple(step_ends(self.text))


@dataclass(frozen=True)
class Question:
    """A question and its solutions."""

    number: int
    text: str
    solutions: tuple[Solution, ...]


def read_questions(folder: Path, generators: tuple[str, ...]) -> list[Question]:
    """The questions of gsm8k_pool/, each with a solution of every generator and the reference of gsm8k/."""
    import json

    import pyarrow.parquet as pq

    lines = (folder / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    references = {row["question"].strip(): row["answer"] for row in map(json.loads, lines)}
    found: dict[int, tuple[str, dict[str, Solution]]] = {}
    for row in pq.read_table(folder / "gsm8k_pool" / "solutions.parquet").to_pylist():
        if row["generator"] in generators and row["response"]:
            one = Solution(row["generator"], row["response"].strip(), row["answer"], bool(row["correct"]))
            found.setdefault(row["index"], (row["question"].strip(), {}))[1][one.generator] = one
    questions = []
    for number, (text, solutions) in sorted(found.items()):
        reference = references.get(text)
        if reference is not None and len(solutions) == len(generators):
            known = Solution(REFERENCE, _as_prose(reference), None, True)
            questions.append(Question(number, text, (*(solutions[name] for name in generators), known)))
    return questions


def read_processbench(folder: Path) -> list[Question]:
    """ProcessBench's solutions of GSM8K, one a question; people have named the first wrong step."""
    import json
    from itertools import accumulate

    questions = []
    rows = json.loads((folder / "processbench" / "gsm8k.json").read_text(encoding="utf-8"))
    for number, row in enumerate(rows):
        steps = [f"{step}\n" for step in row["steps"]]
        ends = tuple(accumulate(map(len, steps)))
        correct = bool(row["final_answer_correct"])
        one = Solution(row["generator"], "".join(steps), None, correct, ends, row["label"])
        questions.append(Question(number, row["problem"].strip(), (one,)))
    return questions


def _as_prose(reference: str) -> str:
    """GSM8K's own solution without its calculator's marks, ended as the generators end theirs."""
    text, _, answer = re.sub(r"<<[^>]*>>", "", reference).partition("#### ")
    return f"{text.strip()}\nThe answer is {answer.strip()}."


def step_ends(text: str) -> list[int]:
    """Characters at which the steps of a solution end: sentences and lines."""
    return [*(found.start() for found in _SENTENCE.finditer(text)), len(text)]


def compute(
    model: Path,
    questions: list[Question],
    layers: tuple[int, ...],
    folder: Path,
    seconds: float,
    progress: Progress,
) -> list[Path]:
    """Write a file a question until the seconds are over; returns the files that are there, in order.

    A file holds, for each solution, `states` [steps, layers, hidden] (float16); `log_prob`, the mean
    log-probability of the solution's tokens in nats; and `step_log_probs` [steps], the same of each step.
    """  # fmt: skip
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{question.number:05d}.pt" for question in questions]
    missing = [pair for pair in zip(questions, files, strict=True) if not pair[1].exists()]
    if missing and seconds > 0:
        until = time.monotonic() + seconds
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device).eval()
        with progress.track("Hidden states", len(missing)) as bar, torch.inference_mode():
            for question, file in missing:
                if time.monotonic() > until:
                    break
                part = file.with_suffix(".part")
                torch.save(_of_question(network, tokenizer, question, layers), part)
                part.rename(file)
                bar.advance(1)
    return [file for file in files if file.exists()]


def _of_question(
    network: Any, tokenizer: Any, question: Question, layers: tuple[int, ...]
) -> list[dict[str, torch.Tensor]]:
    """One solution after the other: beside the longest of sixteen most tokens would be padding."""
    chat = [{"role": "user", "content": question.text}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    head = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.to(network.device)
    first = network(head, use_cache=True, logits_to_keep=1)
    found = []
    for solution in question.solutions:
        encoded = tokenizer(
            solution.text, return_tensors="pt", add_special_tokens=False, return_offsets_mapping=True
        )
        offsets = encoded.offset_mapping[0].tolist()
        found.append(
            _of_solution(network, solution, encoded.input_ids.to(network.device), offsets, first, layers)
        )
    return found


def _of_solution(
    network: Any,
    solution: Solution,
    ids: torch.Tensor,
    offsets: list[tuple[int, int]],
    first: Any,
    layers: tuple[int, ...],
) -> dict[str, torch.Tensor]:
    import torch

    output = network(ids, past_key_values=first.past_key_values, output_hidden_states=True)
    first.past_key_values.crop(-ids.shape[1])  # the question is computed once
    logits = torch.cat([first.logits[:, -1:], output.logits[:, :-1]], 1)[0].float()
    logprobs = logits.gather(-1, ids[0, :, None])[:, 0] - logits.logsumexp(-1)
    ends = [_token_at(offsets, end) for end in solution.step_ends]
    starts = [0, *(end + 1 for end in ends[:-1])]
    means = [logprobs[min(start, end) : end + 1].mean() for start, end in zip(starts, ends, strict=True)]
    return {
        "states": torch.stack([output.hidden_states[layer][0, ends] for layer in layers], 1).half().cpu(),
        "log_prob": logprobs.mean().cpu(),
        "step_log_probs": torch.stack(means).cpu(),
    }


def _token_at(offsets: list[tuple[int, int]], end: int) -> int:
    """The last token that begins before a character."""
    return max(at for at, (start, _) in enumerate(offsets) if start < end)
