"""Settings of search at test time. Sources of the defaults: docs/search.md."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import ScorerConfig
from airls_ray.config.model_sections import Probability, Resources, TopK, TopP

AlgorithmName = str
"""A file of `airls_ray/search/algorithms`, or a name of the user's (docs/doors.md)."""
AnswerRule = Literal["best", "majority", "weighted", "hybrid", "reward_frequency"]


def _best_of_n() -> list[AlgorithmName]:
    return ["best_of_n"]


def built_in_searches() -> list[AlgorithmName]:
    """Names of the built-in algorithms: the files of their folder, none of which is imported."""
    folder = Path(__file__).parents[1] / "search" / "algorithms"
    return sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))


def search_label(name: AlgorithmName) -> str:
    """What records, tables and curves call an algorithm: the end of its name, or the whole of it where a
    built-in algorithm is called like that end."""
    end = name.rpartition(":")[2]
    return name if end in built_in_searches() else end


class TreeConfig(StrictModel):
    """How beam search, its lookahead form, DVTS and early rejection grow their trees."""

    expansion: PositiveInt = 4
    """m: continuations of every prefix that is kept; width / m prefixes are kept."""
    lookahead: PositiveInt = 2
    """Steps that `lookahead` generates greedily after each step, scores with it and throws away."""
    partial_tokens: PositiveInt = 32
    """Tokens of a step after which `early_rejection` chooses."""
    distinct: bool = True
    """[C] Equal prefixes count once when the best are kept."""


class RebaseConfig(StrictModel):
    """REBASE (arXiv 2408.00724) and ETS (arXiv 2502.13575)."""

    temperature: PositiveFloat = 0.2
    """[P] T_b: continuations are shared out in proportion to exp(score / T_b)."""
    cost_weight: NonNegativeFloat = 1.0
    """[P] lambda_c of ETS: price of a node that is kept."""
    coverage_weight: NonNegativeFloat = 1.0
    """lambda_s of ETS: worth of covering different continuations ([P] 1.4 to 1.5 with clusters of sentence
    embeddings; ours are clusters of tokens)."""


class ParticleConfig(StrictModel):
    """Particle filter and particle Gibbs (arXiv 2502.01618)."""

    temperature: PositiveFloat = 1.0
    """[P] Weights are proportional to (odds of the score) ** (1 / temperature)."""
    resampling: Literal["systematic", "multinomial"] = "systematic"
    """[C] `multinomial` [P] keeps fewer different particles."""
    ess_threshold: Probability = 0.5
    """[C] Resample when the effective sample size is below this share of the particles; 1 [P] always."""
    iterations: PositiveInt = 4
    """Sweeps of particle Gibbs, over which the width is shared out."""


class MCTSConfig(StrictModel):
    """Monte Carlo tree search over steps."""

    expansion: PositiveInt = 2
    """Children that a node gets at a time."""
    selection: Literal["uct", "puct"] = "puct"
    """How a child is chosen on the way down."""
    exploration: NonNegativeFloat = 0.1
    """[C] Weight of the exploration term. Scores of prefixes differ by a tenth or so: at a weight of 1 this
    term decides alone."""
    value: Literal["prm", "rollout"] = "prm"
    """Value of a new leaf: its score, or that of a whole response continued from it."""
    widening: bool = True
    """Whether a node gets more children when nothing is left to expand; else the search ends there, often
    long before its budget."""
    widening_power: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.7
    """[C] a: a node with n visits gets more children on the way down while it has fewer than n^a (progressive
    widening); 0: only when nothing is left to expand."""


class ChunkResetConfig(StrictModel):
    """Chunk reset of StepWiser (arXiv 2508.19229)."""

    threshold: Probability = 0.5
    """[C] A step whose score is below is sampled again (the paper's judge says good or bad)."""
    attempts: PositiveInt = 5
    """[P] Samples of one step at most; then the best of them stays ([C])."""


class AdaptiveConsistencyConfig(StrictModel):
    """Adaptive consistency (arXiv 2305.11860)."""

    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """[P] Sampling stops when the leading answer is the most probable one with this probability."""
    batch: PositiveInt = 1
    """Samples of a round after the first ([P] 1); more of them are faster, and some for nothing."""
    criterion: Literal["beta", "dirichlet"] = "beta"
    """[P] `beta` compares the two most frequent answers, `dirichlet` all."""


class InstanceAdaptiveConfig(StrictModel):
    """Instance-adaptive scaling (arXiv 2506.09338)."""

    confidence: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """[P] C: so many responses are sampled that one of them is right with this probability."""
    pilot: PositiveInt = 4
    """[C] Responses of the first round, whose mean score says how many are needed, without a calibration."""
    calibration: Path | None = None
    """File of `airls-ray calibrate`; null: the mean score itself is the chance of success."""


class ABMCTSConfig(StrictModel):
    """AB-MCTS of the package treequest (arXiv 2503.04412)."""

    distribution: Literal["gaussian", "beta"] = "gaussian"
    """[P] Of the scores below a node, from which Thompson sampling draws."""
    batch: PositiveInt = 1
    """Steps of a round; more are faster and make the tree wider (treequest advises 5 at most)."""
    value: Literal["prm", "rollout"] = "rollout"
    """[C] Score of a node: that of a response which goes on from it, or of its prefix."""


class AutoConfig(StrictModel):
    """The search that a plan names for a problem's difficulty (arXiv 2408.03314)."""

    plan: Path | None = None
    """File of `airls-ray plan-search`, by scores; null: there is none, and `auto` cannot be chosen."""
    probe: PositiveInt = 4
    """[C] Whole responses of the first round, whose mean score says how hard the problem is."""
    budget: PositiveFloat | None = None
    """Most mean cost of a problem, on the plan's axis; null: as much as the width allows."""


class VoteConfig(StrictModel):
    """The answer rules of UnPRM (arXiv 2508.01773)."""

    share: Probability = 0.5
    """[C] `hybrid` takes the majority's answer where more than this share of the responses give it."""
    reward_weight: Probability = 0.5
    """[C] Weight of the scores in `reward_frequency`; that of the votes is the rest."""


class AbstainConfig(StrictModel):
    """When a search gives no answer rather than one that it is not sure of."""

    vote_share: Probability = 0.0
    """Least share of the finished responses that give the chosen answer."""
    score: Probability = 0.0
    """Least score of the chosen response."""


VOTE, ABSTAIN = VoteConfig(), AbstainConfig()
"""As they are unless somebody says otherwise."""


class SearchConfig(StrictModel):
    """Test samples before and after training, and `airls-ray search`."""

    problems: PositiveInt = 200
    """Test problems."""
    samples: Literal[1, 2, 4, 8, 16, 32, 64] = 16
    """Samples of each problem before and after training; every power of two below is reported from them."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature of the candidates."""
    top_p: TopP = 1.0
    """Sample candidates among the most probable tokens that together have this probability; 1: among all."""
    top_k: TopK = 0
    """Sample candidates among so many of the most probable tokens; 0 (or -1): among all."""
    min_p: Probability = 0.0
    """Sample candidates among tokens that have at least this share of the probability of the most probable
    one; 0: among all."""
    problems_per_call: PositiveInt = 50
    """Problems sampled between two steps of the progress bar."""
    algorithms: list[AlgorithmName] = Field(default_factory=_best_of_n, min_length=1)
    """What `airls-ray search` runs, one after the other: built-in ones (`airls-ray list search`) or your own
    (docs/doors.md)."""
    budgets: list[PositiveInt] = Field(default_factory=lambda: [16], min_length=1)
    """Widths N: each algorithm runs once with each."""
    scorer: ScorerConfig = ScorerConfig(name="prm")
    """Who scores steps: the PRM (`prm`), the policy's own log-probability (`policy_log_prob`, the control),
    the task's step truth (`oracle`, an upper bound), or a scorer of your own (docs/doors.md)."""
    answer: AnswerRule | None = None
    """How the answer is chosen among the finished responses; null: what the algorithm's authors do."""
    vote: VoteConfig = VoteConfig()
    """Settings of the answer rules `hybrid` and `reward_frequency`."""
    abstain: AbstainConfig = AbstainConfig()
    """Summaries count how many problems are answered so, and how many of those rightly."""
    aggregate: Literal["last", "min", "prod", "mean", "geometric_mean", "odds", "mean_odds"] | None = None
    """How step scores become the score of a prefix; null: as the PRM says (`prm.search_aggregate`)."""
    live_problems: PositiveInt = 64
    """Problems that are searched at once: their wishes are merged into one call of the engines and one of
    the scorers."""
    overlap: bool = False
    """[C] Sample one half of the live problems while the other is scored, where a PRM or a scorer of your own
    scores in a process of its own, or the policy is behind an endpoint. It is faster where sampling half of
    them takes clearly less time than all (docs/search.md)."""
    max_steps: PositiveInt = 40
    """Depth: a response that has so many steps and is not over ends there."""
    max_step_tokens: PositiveInt = 256
    """A step that has not ended after so many tokens ends its response there."""
    limits: dict[
        Literal[
            "generations", "policy_tokens", "prefill_tokens", "prm_tokens", "flops", "kv_tokens", "seconds"
        ],
        PositiveFloat,
    ] = Field(default_factory=dict)
    """Most that the search of one problem may cost on any axis of the ledger, such as
    {policy_tokens: 5000}; a search that reaches one ends with what it has."""
    keep_nodes: bool = False
    """Write every node of every tree to the records, too."""
    scorer_cache_tokens: NonNegativeInt = 1_000_000
    """Tokens whose keys and values a scorer keeps, so that a child costs only its own tokens; 0: none."""
    tree: TreeConfig = TreeConfig()
    """Beam search and its relatives."""
    rebase: RebaseConfig = RebaseConfig()
    """REBASE and ETS."""
    particles: ParticleConfig = ParticleConfig()
    """Particle filter and particle Gibbs."""
    mcts: MCTSConfig = MCTSConfig()
    """Monte Carlo tree search."""
    chunk_reset: ChunkResetConfig = ChunkResetConfig()
    """Chains whose bad steps are sampled again."""
    adaptive_consistency: AdaptiveConsistencyConfig = AdaptiveConsistencyConfig()
    """Samples until the vote is decided."""
    instance_adaptive: InstanceAdaptiveConfig = InstanceAdaptiveConfig()
    """As many samples as a problem needs."""
    ab_mcts: ABMCTSConfig = ABMCTSConfig()
    """Tree search that goes wider or deeper, by a package."""
    auto: AutoConfig = AutoConfig()
    """The search that a plan names for the problem's difficulty."""
    scorers: PositiveInt = 1
    """Actors that hold the PRM; the problems are shared out over them."""
    resources: Resources = Resources()
    """Of each scorer."""

    @field_validator("algorithms")
    @classmethod
    def _are_known(cls, names: list[AlgorithmName]) -> list[AlgorithmName]:
        known = built_in_searches()
        for name in names:
            # The entry points come last: finding them reads a file of every installed package.
            if name in known or ":" in name or entry_points(group="airls_ray.search", name=name):
                continue
            near = get_close_matches(name, known, n=1)
            maybe = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"there is no search {name!r}{maybe}: there are {', '.join(known)}, and file.py:NAME or "
                "package.module:NAME for your own"
            )
        return names

    @model_validator(mode="after")
    def _fits(self) -> SearchConfig:
        labels = [search_label(name) for name in self.algorithms]
        for field, given in (("algorithms", labels), ("budgets", self.budgets)):
            if len(set(given)) < len(given):
                raise ValueError(f"{field} must not name anything twice, but is {getattr(self, field)}")
        for axis in ("generations", "policy_tokens"):
            limit = self.limits.get(axis)
            if limit is not None and limit < max(self.budgets):
                raise ValueError(
                    f"limits.{axis} must be at least the largest of budgets ({max(self.budgets)}), since the "
                    f"first round samples so many continuations, but is {limit:g}"
                )
        return self
