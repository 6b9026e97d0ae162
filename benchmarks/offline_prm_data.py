"""The files of the benchmark of stored solutions: GSM8K as rollouts, traces and lessons, and a tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.text.codec import TextCodec

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
VOCABULARY = 4096


@dataclass(frozen=True)
class Data:
    """What was read."""

    codec: TextCodec
    stored: StoredRollouts
    lessons: pa.Table
    """Traces for the language model: none of a question with solutions."""
    models: list[str]
    """Which language model each stored solution is of."""


def read(folder: Path, base: Path, config: Config, progress: Progress) -> Data:
    """Make the tokenizer in `base`, write the solutions as rollouts and read them as train-prm does."""
    from airls_ray.data.rollout_files import read_stored_rollouts
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    base.mkdir(parents=True, exist_ok=True)
    train = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
    lessons = [{"prompt": one["question"], "trace": one["answer"].replace("#### ", "A: ")} for one in train]
    write_tokenizer(base, [text for one in lessons for text in one.values()])
    lines = (folder / "example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    rollouts, traces = solutions([json.loads(line) for line in lines])
    codec = TextCodec.from_folder(base, make_task(config.task))
    # A lesson is a rollout for the reader: its traces must be of problems that have rollouts.
    taught = [{"prompt": one["prompt"], "response": one["trace"], "correct": True} for one in lessons]
    files = {
        name: write_lines(base / f"{name}.jsonl", rows)
        for name, rows in {"rollouts": rollouts, "traces": traces, "lessons": taught}.items()
    }
    context = config.model.context_tokens
    stored = read_stored_rollouts([files["rollouts"]], codec, context, traces=files["traces"])
    others = read_stored_rollouts([files["lessons"]], codec, context).rollouts
    progress.say(
        f"{stored.rollouts.num_rows} solutions, {stored.traces.num_rows} traces of their questions and "
        f"{others.num_rows} others; {stored.too_long} solutions are longer than {context} tokens"
    )
    kept = [
        row["model"] for row, fits in zip(rollouts, _fitting(rollouts, codec, context), strict=True) if fits
    ]
    return Data(codec, stored, others, kept)


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSONL and return the file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def solutions(lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of rollouts, four a question, and of traces, one a question."""
    rollouts, traces = [], []
    for number, line in enumerate(lines):
        question = {"problem_id": f"gsm8k-{number}", "prompt": line["question"]}
        traces.append({**question, "trace": line["ground_truth"]})
        for model in MODELS:
            text = line[model]["solution"]
            answer = text.rpartition("A: ")[2].strip() if "A: " in text else None
            rollouts.append(
                {
                    **question, "response": text, "correct": line[model]["is_correct"], "answer": answer,
                    "model": model,
                }
            )  # fmt: skip
    return rollouts, traces


def _fitting(rollouts: list[dict[str, Any]], codec: TextCodec, context: int) -> list[bool]:
    sizes = (
        len(codec.encode_prompt(row["prompt"])) + len(codec.encode_trace(row["response"])) for row in rollouts
    )
    return [size <= context for size in sizes]


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """A byte-level BPE in which every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
