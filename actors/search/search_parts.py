"""What a search runs on: rollout workers that sample, actors that score, the verifier as an oracle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from actors.cluster import cluster, processes
from actors.rollout.rollout_pool import RolloutPool
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.errors import ProcessLost, RunError
from airls_ray.evaluation.steps import ScoreKind
from airls_ray.prm.in_search import ScoresTexts, TextSearchScorer
from airls_ray.search.own_scorer import open_own
from airls_ray.search.scoring import Continuation, Scores
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec

if TYPE_CHECKING:
    from airls_ray.prm.prefix_scores import PrefixScorer


class PoolGenerator:
    """The rollout pool as the search's generator."""

    def __init__(self, pool: RolloutPool) -> None:
        """`pool`: started workers."""
        self._pool = pool

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        """See `Generator.expand`: every worker samples its problems' rows, in one batch."""
        counts = expansions["count"].to_numpy()
        shares = self._pool.expand(expansions, owners)
        tables = cluster.resolve([ref for _, ref in shares])
        numbers = []
        for (rows, _), table in zip(shares, tables, strict=True):
            local = np.repeat(np.arange(len(rows)), counts[rows])
            if not np.array_equal(local, table["expansion"].to_numpy()):
                raise RunError("a rollout worker answered other expansions than it was asked for")
            numbers.append(np.repeat(np.asarray(rows), counts[rows]))
        number = np.concatenate(numbers)
        order = np.argsort(number, kind="stable")
        column = pa.array(number[order], CONTINUATIONS.field(0).type)
        found = pa.concat_tables(tables).unify_dictionaries().take(pa.array(order))
        return found.set_column(0, CONTINUATIONS.field(0), column)


class StepScorer:
    """An actor that holds a PRM, one of this project (new tokens alone are computed) or another's, or a
    scorer of the user's own."""

    def __init__(self, name: str, config: Config, policy: str, prm: str | None) -> None:
        """`policy`: whose tokenizer is used; `prm`: folder of the PRM."""
        self._name = name
        self._config = config
        self._policy = policy
        self._prm = prm

    def __repr__(self) -> str:
        """Name in Ray's dashboard."""
        return f"StepScorer({self._name})"

    def start(self) -> float:
        """Load the model; returns seconds."""
        start = time.perf_counter()
        if self._config.search.scorer.needs == "texts":
            self._scorer: PrefixScorer | TextSearchScorer = self._of_texts(
                open_own(self._config.search.scorer)
            )
        else:
            assert self._prm is not None
            ours = is_prm_of_ours(Path(self._prm))
            self._scorer = self._of_ours(self._prm) if ours else self._of_others(self._prm)
        return time.perf_counter() - start

    def _of_ours(self, folder: str) -> PrefixScorer:
        from airls_ray.learning.engine import own_device
        from airls_ray.models.load import load_prm_module
        from airls_ray.prm.prefix_scores import PrefixScorer

        model, prm = self._config.model, self._config.prm
        device = own_device()
        module = load_prm_module(folder, prm.parameterisation, model.dtype, outcome_beta=prm.outcome_head).to(
            device
        )
        return PrefixScorer(
            module,
            prm,
            temperature=self._config.rollout.temperature,
            device=device,
            cache_tokens=self._config.search.scorer_cache_tokens,
            tokens_per_microbatch=prm.learner.tokens_per_microbatch,
        )

    def _of_others(self, folder: str) -> TextSearchScorer:
        from airls_ray.prm.load import load_step_scorer

        model, learner = self._config.model, self._config.prm.learner
        prm = load_step_scorer(folder, dtype=model.dtype, batch_tokens=learner.tokens_per_microbatch)
        return self._of_texts(prm)

    def _of_texts(self, scorer: ScoresTexts) -> TextSearchScorer:
        codec = TextCodec.for_model(self._config.model, self._policy, make_task(self._config.task))
        return TextSearchScorer(scorer, codec)

    def score(self, items: Sequence[Continuation]) -> Scores:
        """Scores of the steps of all continuations, and the tokens computed for each."""
        return self._scorer.score(items)

    def forget(self) -> None:
        """Drop all cached prefixes."""
        self._scorer.forget()

    def tokens(self) -> tuple[int, int]:
        """Tokens computed since the start, and tokens of all prefixes that were asked about."""
        return self._scorer.computed_tokens, self._scorer.prefix_tokens


class ScorerGroup:
    """Several scorers as one; a problem stays on one of them, whose cache holds its tree."""

    def __init__(
        self,
        actors: Sequence[Any],
        deadline_seconds: float,
        restart: Callable[[], Any] | None = None,
        attempts: int = 1,
        kind: ScoreKind = "probability",
    ) -> None:
        """Share scoring out over some actors.

        Args:
            actors: started StepScorers.
            deadline_seconds: longest time for one call.
            restart: starts another one in the place of one that is lost; None: the others take its share.
            attempts: times that a share is tried where scorers are replaced.
            kind: what their scores are.
        """
        self.kind = kind
        self._actors = list(actors)
        self._deadline = deadline_seconds
        self._restart = restart
        self._attempts = attempts

    def score(self, items: Sequence[Continuation]) -> Scores:
        """See `StepScorer.score`. The share of a scorer that is lost is scored again.

        Raises:
            RunError: no scorer is left, or a share was lost too often.
        """
        return self.begin(items)()

    def begin(self, items: Sequence[Continuation]) -> Callable[[], Scores]:
        """See `ScoresElsewhere.begin`; what it returns raises as `score` does."""
        asked = self._ask(items, range(len(items)))
        return lambda: self._collect(items, asked)

    def _ask(self, items: Sequence[Continuation], left: Sequence[int]) -> list[tuple[Any, list[int], Any]]:
        """Send each scorer its share of the items in `left`: the scorer, the items, the reference."""
        actors = list(self._actors)
        shares = [
            (actor, [at for at in left if items[at].problem % len(actors) == number])
            for number, actor in enumerate(actors)
        ]
        return [
            (actor, share, actor.score.remote([items[at] for at in share]))
            for actor, share in shares
            if share
        ]

    def _collect(self, items: Sequence[Continuation], asked: list[tuple[Any, list[int], Any]]) -> Scores:
        """Wait for all shares; those of scorers that are lost are asked for again."""
        scores: list[tuple[float, ...]] = [()] * len(items)
        costs = [0] * len(items)
        tries = 0
        while asked:
            tries += 1
            left: list[int] = []
            for actor, share, ref in asked:
                try:
                    answer: Scores = cluster.fetch(ref, self._deadline, "step scoring")
                except ProcessLost as error:
                    self._replace(actor, error, tries)
                    left += share
                    continue
                for at, one, cost in zip(share, *answer, strict=True):
                    scores[at], costs[at] = one, cost
            asked = self._ask(items, left)
        return scores, costs

    def forget(self) -> None:
        """Drop all cached prefixes; a scorer that is lost has none any more."""
        for actor, ref in [(actor, actor.forget.remote()) for actor in self._actors]:
            try:
                cluster.fetch(ref, self._deadline, "step scorers")
            except ProcessLost as error:
                self._replace(actor, error, 1)

    def close(self) -> None:
        """End all scorers."""
        for actor in self._actors:
            processes.end(actor)

    def tokens(self) -> tuple[int, int]:
        """Tokens computed, and tokens of prefixes asked about, over all scorers."""
        found = cluster.fetch(
            [actor.tokens.remote() for actor in self._actors], self._deadline, "step scorers"
        )
        return sum(one for one, _ in found), sum(other for _, other in found)

    def _replace(self, actor: Any, error: ProcessLost, tries: int) -> None:
        """Put another scorer in the place of one that died or hung, or go on without it.

        `tries`: how often the batch was asked for. Several that are lost at once, as with their node, are one
        loss.
        """
        processes.kill(actor)
        at = self._actors.index(actor)
        if self._restart is None:
            del self._actors[at]
            if not self._actors:
                raise RunError(f"the last step scorer died: {error}") from error
            return
        logging.getLogger(__name__).warning("%s; a step scorer is started again", error)
        self._actors[at] = self._restart()
        if tries >= self._attempts:
            raise RunError(f"step scorers were lost {tries} times in one batch, the last time: {error}")


class OracleScorer:
    """The task's step truth as scores 1 and 0; the last step of a finished response scores its outcome."""

    kind: ScoreKind = "probability"

    def __init__(self, verifier: VerifierHandle, problems: pa.Table) -> None:
        """`problems`: schema PROBLEMS, by the numbers of the search."""
        self._verifier = verifier
        self._problems = problems

    def score(self, items: Sequence[Continuation]) -> Scores:
        """See `StepScorer.score`."""
        responses, ends = [], []
        for item in items:
            before = item.prefix[item.prompt_tokens :]
            responses.append([*before, *item.tokens])
            whole = [len(before) + end for end in item.step_ends]
            ends.append([*item.prefix_ends, *whole])
        grades = self._verifier.call(
            "judge", self._problems, [item.problem for item in items], responses, ends
        )
        scores = []
        for item, truth, outcome in zip(
            items, grades["step_truth"].to_pylist(), grades["outcome"].to_pylist(), strict=True
        ):
            if truth is None:
                raise RunError(
                    "search.scorer=oracle needs a task that knows the truth of every step, and this one does "
                    "not; use prm or policy_log_prob"
                )
            found = [float(value) for value in truth[len(truth) - len(item.step_ends) :]]
            if item.over:
                found[-1] = min(found[-1], float(outcome))
            scores.append(tuple(found))
        return scores, [0] * len(items)


def is_prm_of_ours(folder: Path) -> bool:
    """Whether a folder holds a PRM that this project wrote."""
    from airls_ray.prm.folder import FILE

    return (folder / FILE).is_file()
