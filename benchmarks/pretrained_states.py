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
AT_ONCE = 16
"""Solutions in a pass: their logits are what fills the memory."""
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
    solutions = question.solutions
    parts = [solutions[at : at + AT_ONCE] for at in range(0, len(solutions), AT_ONCE)]
    return [
        one
        for part in parts
        for one in _of_solutions(network, tokenizer, Question(question.number, question.text, part), layers)
    ]


def _of_solutions(
    network: Any, tokenizer: Any, question: Question, layers: tuple[int, ...]
) -> list[dict[str, torch.Tensor]]:
    import torch

    chat = [{"role": "user", "content": question.text}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    head = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.to(network.device)
    texts = [one.text for one in question.solutions]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    lengths = [len(ids) for ids in encoded.input_ids]
    rows = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    mask = torch.ones(len(texts), head.shape[1] + max(lengths), dtype=torch.long)
    for row, ids in enumerate(encoded.input_ids):
        rows[row, : len(ids)] = torch.tensor(ids)
        mask[row, head.shape[1] + len(ids) :] = 0
    first = network(head, use_cache=True, logits_to_keep=1)
    cache = first.past_key_values
    cache.batch_repeat_interleave(len(texts))  # the question is computed once
    rows, mask = rows.to(network.device), mask.to(network.device)
    output = network(rows, attention_mask=mask, past_key_values=cache, output_hidden_states=True)
    begin = first.logits.expand(len(texts), 1, -1)
    logprobs = torch.log_softmax(torch.cat([begin, output.logits[:, :-1]], 1).float(), -1)
    logprobs = logprobs.gather(-1, rows[..., None])[..., 0]
    states = torch.stack([output.hidden_states[layer] for layer in layers], 2)
    found = []
    for row, offsets in enumerate(encoded.offset_mapping):
        ends = [_token_at(offsets, end) for end in question.solutions[row].step_ends]
        starts = [0, *(end + 1 for end in ends[:-1])]
        parts = [
            logprobs[row, min(start, end) : end + 1].mean() for start, end in zip(starts, ends, strict=True)
        ]
        found.append(
            {
                "states": states[row, ends].half().cpu(),
                "log_prob": logprobs[row, : lengths[row]].mean().cpu(),
                "step_log_probs": torch.stack(parts).cpu(),
            }
        )
    return found


def _token_at(offsets: list[tuple[int, int]], end: int) -> int:
    """The last token that begins before a character."""
    return max(at for at, (start, _) in enumerate(offsets) if start < end)
