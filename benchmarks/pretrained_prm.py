"""PRMs that start from a pretrained model: heads on its hidden states, choosing among stored solutions.

    python benchmarks/pretrained_prm.py MODEL        # a folder, or a name of the hub

    gsm8k_pool/solutions.parquet: solutions of GSM8K's test questions by six generators
        hidden states of MODEL at the ends of their sentences, once (pretrained_states.py)
        half of the questions -> a head by each objective; a quarter of them chooses its settings
        the other half -> how often the choice among the six is right, beside controls

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
from pretrained_heads import OBJECTIVES, Head, Steps, fit, load
from pretrained_states import REFERENCE

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "pretrained_prm"
DATA = "AIRLS_RAY_TEST_DATA"
"""The environment variable whose folder has gsm8k_pool/ and gsm8k/."""
GENERATORS = tuple(
    f"{name}_COT" for name in ("code001", "code002", "gpt-3.5-turbo", "gpt4", "text002", "text003")
)
"""Those that write alike: a paragraph of sentences. The others' form alone says who wrote a solution."""
AUTHORS = {
    "known_authors": (GENERATORS, GENERATORS),
    "unseen_authors": (GENERATORS[::2], GENERATORS[1::2]),
}
"""Whose solutions are learned from, and among whose is chosen: with unseen ones it is of no use to know that
one generator is right more often than another."""
LAYERS = (10, 20, 30)
DECAYS = (1e-2, 1e-1, 1.0)
STEP_NAMES = {
    "log_prob": "log-probability of the step (control)",
    **OBJECTIVES,
    pretrained_prm800k.LABELLED: "step labels of PRM800K (upper bound)",
}
AGGREGATES = ("mean", "min", "prod", "last")
SPLITS = 3
KEYS = ("auroc", "auroc_within", "auroc_within_generator")
"""Within a question: what a choice sees. Within a generator: whether it knows more than the author."""


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
    """Choose among six solutions of each GSM8K question by heads on a pretrained model.

    An hour for all 1,319 questions on two cores, with SmolLM2-135M; stopped, it goes on where it was.
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
    for name, (learned, among) in AUTHORS.items():
        figures[name], heads = measure(steps, learned, among, progress)
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


# --------------------------------------------------------------------------------------- figures
def measure(
    steps: Steps, learned: tuple[str, ...], among: tuple[str, ...], progress: Progress
) -> tuple[dict[str, Any], dict[str, list[Head]]]:
    """Figures of every objective and control; a question counts as the mean of its held-out splits."""
    import numpy as np
    import torch

    questions = int(steps.question.max()) + 1
    by = {
        name: torch.tensor([one in names for one in steps.generator])
        for name, names in (("learned", (*learned, REFERENCE)), ("among", among))
    }
    values: dict[str, NDArray[np.float64]] = {}
    chosen: dict[str, list[Any]] = {name: [] for name in OBJECTIVES}
    heads: dict[str, list[Head]] = {name: [] for name in OBJECTIVES}
    within: dict[str, list[float]] = {}
    with progress.track("Heads", SPLITS * len(OBJECTIVES)) as bar:
        for split in range(SPLITS):
            order = torch.randperm(questions, generator=torch.Generator().manual_seed(split))
            parts = {
                "held_out": order[: questions // 2],
                "validation": order[questions // 2 :][: questions // 8],
            }
            parts["learn"] = order[questions // 2 + questions // 8 :]
            rows = {name: torch.isin(steps.question, part) for name, part in parts.items()}
            rows["learn"] &= by["learned"]
            rows["validation"] &= by["learned"]
            rows["held_out"] &= by["among"]
            scores = {"policy_log_prob": steps.log_prob.double().numpy()}
            for name in OBJECTIVES:
                best, scores[name], head = _best(steps, rows, name, split)
                chosen[name].append(best)
                heads[name].append(head)
                bar.advance(1)
            _add(steps, rows["held_out"], scores, values, within)
    figures: dict[str, Any] = {"settings": chosen, "choice": {}}
    for name, found in values.items():
        figures["choice"][name] = _with_interval(found) | {
            key: float(np.nanmean(within[f"{key}/{name}"])) for key in KEYS if f"{key}/{name}" in within
        }
    for name in OBJECTIVES:
        gain = values[name] - values["mean"]
        figures["choice"][name]["above_chance"] = _with_interval(gain)
        figures["choice"][name]["above_log_prob"] = _with_interval(values[name] - values["policy_log_prob"])
    return figures, heads


def _best(
    steps: Steps, rows: dict[str, torch.Tensor], objective: str, seed: int
) -> tuple[dict[str, Any], NDArray[np.float64], Head]:
    """The setting whose choice is right most often on the validation questions, its scores [N], its head."""
    from airls_ray.evaluation.ranking import auroc_within

    used = rows["learn"]
    found: list[tuple[tuple[float, float], dict[str, Any], NDArray[np.float64], Head]] = []
    part = (rows["validation"] & ~steps.reference).numpy()
    for layer in range(len(LAYERS)):
        for decay in DECAYS:
            head = fit(steps, used, layer, decay, objective, seed)
            outputs = head(steps.states).double().numpy()
            for how in AGGREGATES:
                scores = _aggregate(outputs, steps.solution.numpy(), how)
                right = _choices(steps, part, scores)["best_of_n"].mean()
                within = auroc_within(scores[part], steps.right.numpy()[part], steps.question.numpy()[part])
                setting = {
                    "layer": LAYERS[layer],
                    "decay": decay,
                    "aggregate": how,
                    "validation": float(right),
                }
                found.append(((float(right), within), setting, scores, head))
    _, setting, scores, head = max(found, key=lambda one: one[0])
    return setting, scores, head


def _aggregate(outputs: NDArray[np.float64], solution: NDArray[np.int64], how: str) -> NDArray[np.float64]:
    """A solution's log-score from its sentences' log sigmoid [N]."""
    import numpy as np

    from airls_ray.evaluation.steps import aggregate_log_scores

    offsets = np.concatenate([[0], np.cumsum(np.bincount(solution))])
    return aggregate_log_scores(-np.logaddexp(0.0, -outputs), offsets, how)  # type: ignore[arg-type]


def _choices(steps: Steps, part: NDArray[np.bool_], scores: NDArray[np.float64]) -> Any:
    import pyarrow as pa

    from airls_ray.evaluation.selection import choose_by

    at = part.nonzero()[0].tolist()
    table = pa.table(
        {
            "problem_id": [str(int(steps.question[row])) for row in at],
            "outcome": [float(steps.right[row]) for row in at],
            "answer": [steps.answers[row] for row in at],
        }
    )
    return choose_by(table, scores[part])


def _add(
    steps: Steps,
    held_out: torch.Tensor,
    scores: dict[str, NDArray[np.float64]],
    values: dict[str, NDArray[np.float64]],
    within: dict[str, list[float]],
) -> None:
    """Add a split: a row of choices for its held-out questions, and its AUROCs."""
    import numpy as np

    from airls_ray.evaluation.ranking import auroc, auroc_within

    part = (held_out & ~steps.reference).numpy()
    questions, right = steps.question.numpy()[part], steps.right.numpy()[part]
    generators = np.array(steps.generator)
    shares = {
        one: steps.right.numpy()[~held_out.numpy() & (generators == one)].mean()
        for one in set(generators[part])
    }
    best = max(sorted(shares), key=lambda one: float(shares[one]))
    scores = {**scores, "one_generator": (generators == best).astype(np.float64)}
    names = list(dict.fromkeys(questions.tolist()))
    for name, found in scores.items():
        ways = _choices(steps, part, found)
        taken = {name: ways["best_of_n"]}
        if name == "policy_log_prob":
            taken |= {way: ways[way] for way in ("mean", "majority", "oracle")}
        for key, each in taken.items():
            table = values.setdefault(key, np.full(0, np.nan))
            if not len(table):
                values[key] = table = np.full((SPLITS, int(steps.question.max()) + 1), np.nan)
            row = int(np.isfinite(table).any(1).sum())
            table[row, names] = each
        figures = {
            "auroc": auroc(found[part], right),
            "auroc_within": auroc_within(found[part], right, questions),
            "auroc_within_generator": auroc_within(found[part], right, generators[part]),
        }
        for key, value in figures.items():
            within.setdefault(f"{key}/{name}", []).append(value)


def _with_interval(table: NDArray[np.float64]) -> dict[str, float]:
    """Mean over the questions that were held out at least once, and its 95 % interval."""
    import numpy as np

    from airls_ray.evaluation.ranking import confidence_interval

    means = np.nanmean(table[:, np.isfinite(table).any(0)], 0)
    low, high = confidence_interval(means)
    return {"right": float(means.mean()), "low": low, "high": high}


def show(figures: dict[str, Any], title: str, progress: Progress) -> None:
    """One table: ways without a PRM, then the PRMs."""
    names = {
        "mean": "one at random",
        "policy_log_prob": "log-probability (control)",
        "majority": "majority of the answers",
        "one_generator": "always the generator that is best elsewhere",
        "oracle": "any right",
    }
    rows = []
    for name, label in {**names, **OBJECTIVES}.items():
        one = figures["choice"][name]
        rows.append([label, one["right"], one["low"], one["high"], *(one.get(key) for key in KEYS)])
    columns = ("choice", "right", "95 % from", "to", "AUROC", "within question", "within generator")
    progress.table(title, rows, columns)


if __name__ == "__main__":
    common.run(main)
