"""Search here beside two peers on the same policy, PRM, problems, width and step ends: problems a second.

    its_hub     its own algorithms over an OpenAI-compatible vLLM server, all problems side by side
                (`its_hub_search.py`; an environment of its own)
    plain loop  one `vllm.LLM`, all problems in one call at every step, after search-and-learn
                (`plain_search.py`)
    airls-ray   `airls-ray search`: Ray's actors, a rollout worker, a step scorer, a verifier

The same for all: weights, float32, vLLM's settings (eager, blocks of 32 tokens, most sequences, no chunked
prefill), temperature, most tokens and steps, all problems live at once, and the PRM, which is the policy's
own weights: speed does not depend on what it has learned. Both peers score every new prefix whole, in padded
batches of plain transformers (`whole_pass_prm.py`).

Not the same: its_hub sends text and one request for each sample, limits the tokens of a step and not of a
response, begins a beam with width / expansion prefixes, and copies finished prefixes too. Both peers resample
particles at every step, as published; ours when few are left that count. Our seconds hold the grading of all
responses; the peers' choices are graded afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from environments import version_in
from search_peer_processes import Measured, Peer, its_hub, its_hub_python, plain_loop, vllm_server
from search_speed import prm_like

if TYPE_CHECKING:
    from actors.search.search_setup import SearchParts
    from airls_ray.config.schema import Config
    from airls_ray.tasks.base import Problem

ALGORITHMS = ("best_of_n", "beam", "particle_filter")
PEERS = ("its_hub", "plain loop")
STEPS = 12
"""Most steps of a response; the task's have six, and the end of sequence may be one."""


def main(
    problems: Annotated[int, typer.Option(min=1, help="Searched at once.")] = 32,
    width: Annotated[int, typer.Option(min=4, help="Width N, a multiple of 4.")] = 16,
    turns: Annotated[int, typer.Option(min=1, help="Measurements of each side, in turn.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Rollout workers here; each peer has one engine.")] = 1,
) -> None:
    """Time search by its_hub, by a plain loop and here, and write `results/search_peers.json`.

    What was measured with another number of workers stays in the file.
    """
    common.use_all_cores()
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress
    from airls_ray.errors import ConfigError
    from airls_ray.tasks import make_task

    progress = make_progress()
    config = load_config(
        common.CONFIG,
        [
            f"search.live_problems={problems}",
            f"search.max_steps={STEPS}",
            f"rollout.min_workers={workers}",
            f"rollout.max_workers={workers}",
        ],
    )
    if width % config.search.tree.expansion:
        raise ConfigError(f"--width {width} is no multiple of the beam's {config.search.tree.expansion}")
    policy = common.warm_started_policy(config, progress)
    prm = prm_like(policy, config)
    asked = list(islice(make_task(config.task).problems("test", config.seed), problems))
    seen: dict[str, dict[str, list[Measured]]] = {name: {} for name in ALGORITHMS}
    with all_sides(config, policy, prm, asked, width) as sides:
        for name in ALGORITHMS:  # warms up
            for side in sides.values():
                side(name)
        for turn in range(turns):
            for name in ALGORITHMS:
                for who, side in sides.items():
                    seen[name].setdefault(who, []).append(side(name))
                last = ", ".join(f"{who} {found[-1]['seconds']:.2f} s" for who, found in seen[name].items())
                progress.say(f"{name}, turn {turn + 1} of {turns}: {last}")
    figures = {name: summary(found) for name, found in seen.items()}
    rows = [(name, who, *found.values()) for name in figures for who, found in figures[name]["sides"].items()]
    columns = ("", "", "problems/s", "accuracy", "tokens scored")
    progress.table(f"{problems} problems at once, width {width}, medians", rows, columns)
    for name, one in figures.items():
        progress.say(f"{name}: here over the better peer {one['ratio']:.2f}")
    version = version_in(its_hub_python(), "its_hub")
    settings = {"problems": problems, "width": width, "turns": turns, "its_hub": version}
    measured = {**settings, "search" if workers == 1 else f"search_{workers}_workers": figures}
    path = common.RESULTS / "search_peers.json"
    kept: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    progress.say(f"written to {common.write_result('search_peers', {**kept, **measured})}")


def summary(found: dict[str, list[Measured]]) -> dict[str, Any]:
    """Medians of each side, and our problems a second over those of the better peer, turn by turn."""
    ours = [one["problems_per_second"] for one in found["airls-ray"]]
    best = [max(found[who][turn]["problems_per_second"] for who in PEERS) for turn in range(len(ours))]
    ratio = common.Spread.of([one / other for one, other in zip(ours, best, strict=True)])
    names = ("problems_per_second", "accuracy", "scored_tokens")
    return {
        "ratio": ratio.median,
        "ratio_range": [ratio.low, ratio.high],
        "sides": {
            who: {name: median(one[name] for one in runs) for name in names} for who, runs in found.items()
        },
    }


@contextmanager
def all_sides(
    config: Config, policy: Path, prm: Path, asked: Sequence[Problem], width: int
) -> Iterator[dict[str, Callable[[str], Measured]]]:
    """Everything that is measured, started once; a side is silent while another one searches."""
    job = {
        "policy": str(policy), "prm": str(prm), "width": width, "expansion": config.search.tree.expansion,
        "tokens": config.rollout.max_response_tokens, "steps": STEPS, "step_end": ";",
    }  # fmt: skip
    with (
        vllm_server(config, policy) as endpoint,
        closing(its_hub(job, endpoint)) as hub,
        closing(plain_loop(config, job)) as plain,
        our_side(config, policy, prm, len(asked), width) as ours,
    ):
        yield {
            "its_hub": lambda name: peer_search(hub, name, config, asked),
            "plain loop": lambda name: peer_search(plain, name, config, asked),
            "airls-ray": ours,
        }


def peer_search(peer: Peer, name: str, config: Config, problems: Sequence[Problem]) -> Measured:
    """Search all problems by a peer; its choices are graded afterwards."""
    from airls_ray.tasks import make_task

    task = make_task(config.task)
    found = peer.ask({"algorithm": name, "prompts": [problem.prompt for problem in problems]})
    texts = found.pop("texts")
    right = [task.grade(one, text).outcome > 0.5 for one, text in zip(problems, texts, strict=True)]
    count = len(problems)
    return {**found, "problems_per_second": count / found["seconds"], "accuracy": sum(right) / count}


@contextmanager
def our_side(
    config: Config, policy: Path, prm: Path, problems: int, width: int
) -> Iterator[Callable[[str], Measured]]:
    """The parts of `airls-ray search`, and what searches with them."""
    from actors.search.search_setup import start
    from actors.train.start import connected
    from airls_ray.console.choose import make_progress
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    table = ProblemStream(make_task(config.task), "test", config.seed).take(problems)
    codec = TextCodec.from_folder(policy, make_task(config.task))
    with connected(config), closing(start(config, policy, prm, table, codec, make_progress())) as parts:
        yield lambda name: our_search(parts, name, problems, width)


def our_search(parts: SearchParts, name: str, problems: int, width: int) -> Measured:
    """Search all problems together."""
    from actors.search.search import search_batch
    from actors.search.search_parts import ScorerGroup
    from airls_ray.search.records import Run
    from airls_ray.search.registry import make_searcher

    assert isinstance(parts.scorer, ScorerGroup)
    searcher = make_searcher(name, parts.config.search, width, parts.aggregate)
    before = parts.scorer.tokens()[0]
    start = time.perf_counter()
    records, _ = search_batch(parts, searcher, Run(name, "prm", width, 0, "best"), range(problems))
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "problems_per_second": problems / seconds,
        "accuracy": sum(record["outcome"] > 0.5 for record in records) / problems,
        "scored_tokens": parts.scorer.tokens()[0] - before,
    }


if __name__ == "__main__":
    common.run(main)
