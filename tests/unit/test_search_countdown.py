"""Every step search, led by the true worth of a step, solves what can be solved."""

from __future__ import annotations

from functools import cache
from itertools import combinations, islice

import pytest

from airls_ray.config.schema import CountdownTaskConfig
from airls_ray.config.search_section import AlgorithmName, SearchConfig
from airls_ray.search.registry import make_searcher
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Expansion, Finish, SearchState
from airls_ray.tasks.base import Problem
from airls_ray.tasks.countdown_solver import combine_texts
from airls_ray.tasks.families.countdown import CountdownTask, read_prompt

STEP_SEARCHES: tuple[AlgorithmName, ...] = (
    "beam", "lookahead", "dvts", "early_rejection", "rebase", "ets",
    "particle_filter", "particle_gibbs", "mcts", "chunk_reset",
)  # fmt: skip
WIDTH, EXPANSION = 144, 36
"""There are at most 36 moves at four numbers; neighbouring seeds make different ones. After seven
characters of a step both of its numbers are known."""
SETTINGS = SearchConfig.model_validate(
    {"mcts": {"expansion": EXPANSION}, "tree": {"expansion": EXPANSION, "partial_tokens": 7}}
)


class AllMoves:
    """A policy that makes each legal move in its turn; a token is a character.

    Moves and worths are computed once for each prefix: all searches meet the same ones.
    """

    def __init__(self, task: CountdownTask, problem: Problem) -> None:
        self.task = task
        self.problem = problem
        self._moves = cache(self._find_moves)
        self._worth = cache(self._find_worth)

    def answer(self, state: SearchState, expansion: Expansion) -> list[Child]:
        """All children of an expansion."""
        want = expansion.want
        before = "".join(map(chr, state.response(want.node)))
        seeds = range(expansion.seed, expansion.seed + want.count)
        return [self._child(before, seed, want.max_tokens, want.lookahead) for seed in seeds]

    def _child(self, before: str, turn: int, limit: int | None, lookahead: int) -> Child:
        begun = before.rpartition(",")[2]
        moves, finish = self._moves(before.removesuffix(begun), begun)
        text = moves[turn % len(moves)][len(begun) :]
        score = self._worth(before + text)
        if limit is not None and len(text) > limit:  # worth what the best step is that begins so
            text, finish = text[:limit], "partial"
            ends = [move for move in moves if move.startswith(begun + text)]
            score = max(self._worth(before.removesuffix(begun) + move) for move in ends)
        ahead: list[float] = []
        seen, state = before + text, finish
        while len(ahead) < lookahead and state == "step":  # greedily: by the best move
            further, state = self._moves(seen, "")
            seen = max((seen + move for move in further), key=self._worth)
            ahead.append(self._worth(seen))
        return Child(
            tokens=tuple(map(ord, text)),
            log_prob=-1.0,
            scores=(score,),
            finish=finish,
            closes=False,
            step_ends=(len(text),),
            step_log_probs=(-1.0,),
            ahead=tuple(ahead),
        )

    def _find_moves(self, before: str, begun: str) -> tuple[list[str], Finish]:
        """The legal moves that go on as `begun`, and what they end."""
        pool = list(read_prompt(self.problem.prompt)[0])
        for step in filter(None, before.split(",")):
            formula, _, result = step.partition("=")
            for number in map(int, formula.translate(str.maketrans("+-*/", "    ")).split()):
                pool.remove(number)
            pool.append(int(result))
        last = len(pool) == 2
        moves = [
            text + ("" if last else ",")
            for i, j in combinations(range(len(pool)), 2)
            for _, text in combine_texts(pool[i], pool[j])
            if text.startswith(begun)
        ]
        return moves, "stop" if last else "step"

    def _find_worth(self, response: str) -> float:
        pieces = response.split(",")
        steps = [*(piece + "," for piece in pieces[:-1]), *([pieces[-1]] if pieces[-1] else [])]
        return float(self.task.step_truth(self.problem, steps)[-1])


def search(searcher: Searcher, moves: AllMoves, seed: int) -> SearchState:
    state = searcher.start(seed)
    while asks := searcher.ask(state):
        for ask in asks:
            searcher.tell(state, ask.ticket, moves.answer(state, ask))
    return state


@cache
def policies(numbers: int) -> list[AllMoves]:
    task = CountdownTask(CountdownTaskConfig(numbers=numbers, test_problems=12))
    return [AllMoves(task, problem) for problem in islice(task.problems("test", 0), 12)]


@pytest.mark.parametrize("numbers", [3, 4])
@pytest.mark.parametrize("name", STEP_SEARCHES)
def test_an_oracle_solves_every_problem(name: AlgorithmName, numbers: int) -> None:
    searcher = make_searcher(name, SETTINGS, WIDTH, "last")
    for number, moves in enumerate(policies(numbers)):
        state = search(searcher, moves, number)
        best = max(searcher.leaves(state), key=lambda leaf: state.value(leaf, "last"))
        response = "".join(map(chr, state.response(best)))
        assert moves.task.grade(moves.problem, response).outcome == 1.0, (moves.problem.prompt, response)
