"""PRMs that start from a pretrained model: heads on its hidden states, choosing among stored solutions.

    python benchmarks/pretrained_prm.py MODEL        # a folder, or a name of the hub

    gsm8k_pool/solutions.parquet: solutions of GSM8K's test questions by fifteen generators
        hidden states of MODEL at the ends of their sentences, once (pretrained_states.py)
        half of the questions -> a head by each objective; a quarter of them chooses its settings
        the other half -> how often the choice is right, beside controls (pretrained_choice.py)

The model stays as it is: a linear head is what two processor cores train in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import pretrained_prm800k
import pretrained_processbench
import pretrained_states
import typer
from pretrained_choice import DECAYS, KEYS, LAYERS, SPLITS, measure
from pretrained_heads import OBJECTIVES, Head, load

if TYPE_CHECKING:
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "pretrained_prm"
DATA = "AIRLS_RAY_TEST_DATA"
"""The environment variable whose folder has gsm8k_pool/ and gsm8k/."""
ALIKE = tuple(f"{name}_COT" for name in ("code001", "code002", "gpt-3.5-turbo", "gpt4", "text002", "text003"))
"""Those that write alike: a paragraph of sentences. The others' form alone says who wrote a solution."""
GENERATORS = (
    *ALIKE,
    *(name.replace("_COT", "_LtM") for name in ALIKE),
    *(f"abel-{size}" for size in ("7b", "13b", "70b")),
)
POOLS = {
    "known_authors": (ALIKE, ALIKE, (2, 4, 6)),
    "unseen_authors": (ALIKE[::2], ALIKE[1::2], (2, 3)),
    "all_authors": (GENERATORS, GENERATORS, (2, 4, 8, 15)),
}
"""Whose solutions are learned from, among whose is chosen, and among how many: with unseen ones it is of no
use to know that one generator is right more often than another."""
STEP_NAMES = {
    "log_prob": "log-probability of the step (control)",
    **OBJECTIVES,
    pretrained_prm800k.LABELLED: "step labels of PRM800K (upper bound)",
}


def main(
    model: Annotated[Path, typer.Argument(help="Folder of a pretrained model with a chat template.")],
    seconds: Annotated[
        float, typer.Option(help="Budget for the hidden states; what is there is kept.")
    ] = 3000.0,
    processbench_seconds: Annotated[
        float, typer.Option(help="The same for the solutions of ProcessBench.")
    ] = 1000.0,
    prm800k_seconds: Annotated[float, typer.Option(help="The same for the rated steps of PRM800K.")] = 1000.0,
) -> None:
    """Choose among the solutions of each GSM8K question by heads on a pretrained model.

    Some hours for all 1,319 questions on two cores, with SmolLM2-135M; stopped, it goes on where it was.
    """
    common.use_all_cores()
    import torch

    from airls_ray.console.choose import make_progress
    from airls_ray.errors import DataError

    data = Path(os.environ.get(DATA, "nowhere"))
    if not (data / "gsm8k_pool" / "solutions.parquet").is_file():
        raise DataError(f"there is no gsm8k_pool/solutions.parquet in {DATA}: set it to a folder that has it")
    torch.set_num_threads(os.cpu_count() or 1)
    progress = make_progress()
    questions = pretrained_states.read_questions(data, GENERATORS)
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(0)).tolist()
    questions = [questions[at] for at in order]
    folder = FOLDER / common.digest(str(model.resolve()), str(LAYERS), *GENERATORS)
    files = pretrained_states.compute(model, questions, LAYERS, folder, seconds, progress)
    known = {file.stem for file in files}
    kept = [question for question in questions if f"{question.number:05d}" in known]
    progress.say(f"{len(kept)} questions with hidden states")
    steps = load(kept, folder)
    figures: dict[str, Any] = {
        "model": model.name,
        "questions": len(kept),
        "layers": LAYERS,
        "splits": SPLITS,
    }
    for name, (learned, among, sizes) in POOLS.items():
        figures[name], heads = measure(steps, learned, among, sizes, progress)
        title = f"Held-out questions of GSM8K, {len(among)} solutions each, {name.replace('_', ' ')}"
        show(figures[name], title, progress)
        if name == "known_authors":
            figures["prm800k"], labelled = on_prm800k(model, data, heads, prm800k_seconds, progress)
            heads = {**heads, **labelled}
            figures["processbench"] = on_processbench(model, data, heads, processbench_seconds, progress)
    progress.say(f"written to {common.write_result('pretrained_prm', figures)}")


def on_prm800k(
    model: Path, data: Path, heads: dict[str, list[Head]], seconds: float, progress: Progress
) -> tuple[dict[str, Any], dict[str, list[Head]]]:
    """Figures of the heads on the rated steps of PRM800K, shown, and heads that learn the ratings."""
    questions = pretrained_prm800k.read(data)
    folder = FOLDER / common.digest(str(model.resolve()), str(LAYERS), "prm800k")
    files = pretrained_states.compute(model, questions, LAYERS, folder, seconds, progress)
    if not files:
        return {}, {}
    rated = pretrained_prm800k.load(questions, files)
    figures, labelled = pretrained_prm800k.measure(heads, rated, len(LAYERS), DECAYS, SPLITS)
    rows = [
        [STEP_NAMES[name], *(one[key] for key in ("right", "low", "high", "auroc_within", "auroc"))]
        for name, one in figures["prms"].items()
    ]
    columns = ("choosing the next step", "right", "95 % from", "to", "AUROC at a place", "AUROC over all")
    title = f"PRM800K: {figures['steps']} rated steps of {figures['problems']} problems"
    progress.table(title, rows, columns)
    return figures, {pretrained_prm800k.LABELLED: labelled}


def on_processbench(
    model: Path, data: Path, heads: dict[str, list[Head]], seconds: float, progress: Progress
) -> dict[str, Any]:
    """Figures of the heads on ProcessBench's GSM8K; shows them."""
    questions = pretrained_states.read_processbench(data)
    folder = FOLDER / common.digest(str(model.resolve()), str(LAYERS), "processbench")
    files = pretrained_states.compute(model, questions, LAYERS, folder, seconds, progress)
    figures = pretrained_processbench.measure(heads, questions, files)
    rows = [
        [STEP_NAMES[name], one["f1"], one["low"], one["high"], one["step_auroc"]]
        for name, one in figures["prms"].items()
    ]
    columns = ("finding the first wrong step", "F1", "95 % from", "to", "step AUROC")
    progress.table(f"ProcessBench, GSM8K: {figures['solutions']} solutions", rows, columns)
    return figures


def show(figures: dict[str, Any], title: str, progress: Progress) -> None:
    """One table: ways without a PRM, then the PRMs."""
    names = {
        "mean": "one at random",
        "policy_log_prob": "log-probability (control)",
        "majority": "majority of the answers",
        "one_generator": "always the generator that is best elsewhere",
        "oracle": "any right",
        **OBJECTIVES,
        **{f"vote by {name}": f"vote weighted by {label}" for name, label in OBJECTIVES.items()},
    }
    sizes = list(figures["choice"]["mean"].get("among", {}))
    rows = []
    for name, label in names.items():
        one = figures["choice"][name]
        fewer = [one["among"][size]["right"] for size in sizes]
        rows.append([label, *fewer, one["right"], one["low"], one["high"], *(one.get(key) for key in KEYS)])
    fewer = [f"of {size}" for size in sizes]
    columns = ("choice", *fewer, "of all", "95 % from", "to", "AUROC", "within question", "within generator")
    progress.table(title, rows, columns)


if __name__ == "__main__":
    common.run(main)
