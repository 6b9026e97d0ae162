"""A sampler of problems that is not the default, tried on the first problems before anything is spent.

`python -m airls_ray.data.check_sampler` is the process in which one of the user's own is tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airls_ray.console.progress import Progress
from airls_ray.data.problem_sampler import SamplerMaker
from airls_ray.data.problems import ProblemStream
from airls_ray.data.training_problems import TrainingProblems, window_of
from airls_ray.errors import DoorError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.trial import main_of, run_trial

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

_ITERATIONS = 3


def try_sampler(config: Config, progress: Progress) -> None:
    """Try the sampler by `choose_and_restore`: one of the user's own in a process of its own.

    Raises:
        DoorError: as of `choose_and_restore`, or it hangs.
        DataError, RunError: as of `choose_and_restore`; or the process itself failed.
    """
    named = config.train.problem_sampler
    if named.door().source != "built-in":
        given = config.model_dump(mode="json")
        run_trial("airls_ray.data.check_sampler", given, named.where, named.shown, progress)
    else:
        choose_and_restore(config)


def choose_and_restore(config: Config) -> None:
    """Let the sampler choose for some iterations with made-up outcomes, and once more after a restart.

    Raises:
        DoorError: it does not open, raises, returns no indices of its candidates, or chooses otherwise after
            its memory was saved and restored, so that no run could be resumed.
        DataError: the training problems cannot be read.
        RunError: it chooses too few, or there are too few different problems.
    """
    named, count = config.train.problem_sampler, config.train.problems_per_iteration
    if named.door().source == "built-in" and window_of(named, named.open(), count) == count:
        return  # it takes what comes

    def problems(position: int, iteration: int, saved: Mapping[str, Any] | None) -> TrainingProblems:
        stream = ProblemStream(
            make_task(config.task), "train", derive_seed(config.seed, "problems"), position
        )
        seed = derive_seed(config.seed, "problem_sampler")
        return TrainingProblems(stream, named, seed, count, iteration=iteration, saved=saved)

    tried = problems(0, 0, None)
    for iteration in range(_ITERATIONS):
        chosen = tried.choose(iteration, count)["problem_id"].to_pylist()
        if tried.learns:
            tried.seen(iteration, [(name, (at % 2, at % 3 / 2)) for at, name in enumerate(chosen)])
    position, saved = tried.position, json.loads(json.dumps(tried.saved(_ITERATIONS)))
    choices = [
        one.choose(_ITERATIONS, count)["problem_id"].to_pylist()
        for one in (tried, problems(position, _ITERATIONS, saved))
    ]
    if choices[0] != choices[1]:
        raise DoorError(
            f"{named.where}: {named.name} chooses otherwise after restore(state()), so that no run could be "
            "resumed: draw by the given rng, and keep in state() all that a choice depends on"
        )


def problems_drawn(config: Config) -> int:
    """Return how many problems of the stream a run may draw, as far as its sampler takes all of an iteration
    from one window; those that replace groups (`train.refill_rounds`) are counted as if all were."""
    named, train = config.train.problem_sampler, config.train
    maker: SamplerMaker = named.open()
    refills = train.refill_rounds * train.problems_per_iteration
    return config.iterations * (window_of(named, maker, train.problems_per_iteration) + refills)


def _try(given: Mapping[str, Any]) -> None:
    from airls_ray.config.schema import Config

    choose_and_restore(Config.model_validate(given))


if __name__ == "__main__":
    sys.exit(main_of(_try))
