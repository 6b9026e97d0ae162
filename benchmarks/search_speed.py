"""Speed of search: many problems at once, one at a time and in halves; the driver's share, tokens scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer

if TYPE_CHECKING:
    from actors.search.search_setup import SearchParts
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

FOLDER = common.RUNS / "search_speed"
ALGORITHMS = ("best_of_n", "beam", "rebase", "mcts")
LIVE = 64


def main(
    width: Annotated[int, typer.Option(min=2, help="Width N.")] = 16,
    pairs: Annotated[int, typer.Option(min=1, help="Alternating pairs.")] = 3,
    alone: Annotated[int, typer.Option(min=1, help="Problems that are searched one at a time.")] = 4,
) -> None:
    """Problems a second of 64 problems together over those of one at a time, on the same engine, in turn.

    Then one half of them sampled while the other is scored (search.overlap), in turn with all at once. Also
    the shares of sampling, scoring and driver, and how many tokens the scorer computed. Some minutes.
    """
    common.use_all_cores()
    from actors.search.search_setup import start
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    progress = make_progress()
    config = load_config(common.CONFIG, [f"search.live_problems={LIVE}"])
    base = common.warm_started_policy(config, progress)
    prm = prm_like(base, config)
    problems = ProblemStream(make_task(config.task), "test", config.seed).take(LIVE)
    codec = TextCodec.from_folder(base, make_task(config.task))
    figures: dict[str, Any] = {"width": width, "live": LIVE}
    with (
        connected(config),
        closing(start(config, base, prm, problems, codec, progress)) as parts,
        progress.track("Searching", 2 * len(ALGORITHMS) * pairs) as bar,
    ):
        for name in ALGORITHMS:
            figures[name] = measure(parts, name, width, pairs, alone, bar)
    report(figures, progress)


def prm_like(base: Path, config: Config) -> Path:
    """A log-probability PRM with the policy's own weights: speed does not depend on what it has learned."""
    from airls_ray.prm.folder import write_prm_form

    folder = FOLDER / "prm"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    write_prm_form(config.prm, folder)
    return folder


def measure(parts: SearchParts, name: Any, width: int, pairs: int, alone: int, bar: Any) -> dict[str, Any]:
    """Ratio of problems a second, the driver's share at 64 live problems, tokens scored and in prefixes."""
    from actors.search.search import search_batch
    from actors.search.search_parts import ScorerGroup
    from airls_ray.search.records import Run
    from airls_ray.search.registry import make_searcher

    searcher = make_searcher(name, parts.config.search, width, parts.aggregate)
    run = Run(name, "prm", width, 0, "best")
    spent: list[Any] = []
    assert isinstance(parts.scorer, ScorerGroup)
    halves = replace(parts, settings=replace(parts.settings, overlap=True))

    def together() -> float:
        _, seconds = search_batch(parts, searcher, run, range(LIVE))
        spent.append(seconds)
        return LIVE / seconds.total

    def in_halves() -> float:
        return LIVE / search_batch(halves, searcher, run, range(LIVE))[1].total

    def one_by_one() -> float:
        total = sum(search_batch(parts, searcher, run, range(at, at + 1))[1].total for at in range(alone))
        return alone / total

    before = parts.scorer.tokens()
    together()
    after = parts.scorer.tokens()
    measured = common.measure_pairs(together, one_by_one, pairs, bar)
    last = spent[-pairs:]
    overlapped = common.measure_pairs(in_halves, together, pairs, bar)
    return {
        "problems_per_second": common.Spread.of(measured.ours).figures(),
        "one_at_a_time": common.Spread.of(measured.bare).figures(),
        "ratio": measured.ratio.figures(),
        "overlap_problems_per_second": common.Spread.of(overlapped.ours).figures(),
        "overlap_ratio": overlapped.ratio.figures(),
        "score_share": common.Spread.of([one.score / one.total for one in last]).figures(),
        "driver_share": common.Spread.of([one.driver / one.total for one in last]).figures(),
        "generate_share": common.Spread.of([one.generate / one.total for one in last]).figures(),
        "scored_tokens": after[0] - before[0],
        "prefix_tokens": after[1] - before[1],
    }


def report(figures: dict[str, Any], progress: Progress) -> None:
    """Print the table, write the result."""
    median: Callable[[str, str], float] = lambda name, key: figures[name][key]["median"]  # noqa: E731
    progress.table(
        f"Search of {LIVE} problems at once, width {figures['width']}",
        [
            (
                name,
                f"{median(name, 'problems_per_second'):.2f}",
                f"{median(name, 'ratio'):.1f}",
                f"{median(name, 'overlap_ratio'):.2f}",
                f"{median(name, 'score_share'):.1%}",
                f"{median(name, 'driver_share'):.1%}",
                figures[name]["scored_tokens"],
                figures[name]["prefix_tokens"],
            )
            for name in ALGORITHMS
        ],
        (
            "",
            "problems/s",
            "over one at a time",
            "in halves over all at once",
            "scoring",
            "driver",
            "tokens scored",
            "tokens in prefixes",
        ),
    )
    worst = min(median(name, "ratio") for name in ALGORITHMS)
    driver = max(median(name, "driver_share") for name in ALGORITHMS)
    progress.say(f"least ratio {worst:.1f} ({common.verdict(worst, 3.0)})")
    progress.say(f"largest share of the driver {driver:.1%} ({common.verdict(driver, 0.05, at_most=True)})")
    progress.say(f"written to {common.write_result('search_speed', figures)}")


if __name__ == "__main__":
    common.run(main)
