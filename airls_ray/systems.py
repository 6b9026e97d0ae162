"""The systems of neighbouring papers by the name that their authors gave them, and what they are called here.

`airls-ray list systems` prints them. docs/systems.md says of each where it is, what it was tested against and
what was measured, and what of a paper is left out.
"""

from __future__ import annotations

from typing import NamedTuple


class System(NamedTuple):
    """A paper's system as a line of configuration."""

    name: str
    papers: tuple[str, ...]
    """arXiv numbers."""
    settings: str
    """Overrides, as the command line takes them; empty where the command is all."""
    command: str = "train"
    """Of `airls-ray`, with its options."""

    @property
    def line(self) -> str:
        """What to type."""
        return " ".join(["airls-ray", self.command, *([self.settings] if self.settings else [])])


_TRAIN_PRM, _SEARCH, _SCORER = "train-prm CONFIG", "search CONFIG", "{{name: {}, options: {{endpoint: URL}}}}"
_SCALAR = "prm.parameterisation=scalar_head"


def _labels(name: str, papers: tuple[str, ...], rule: str) -> System:
    return System(name, papers, f"supervised_prm.labels={rule}", _TRAIN_PRM)


def _critic(name: str, papers: tuple[str, ...], scorer: str) -> System:
    return System(name, papers, f"'search.scorer={_SCORER.format(scorer)}'", _SEARCH)


def _search(name: str, papers: tuple[str, ...], algorithm: str) -> System:
    return System(name, papers, f"'search.algorithms=[{algorithm}]'", _SEARCH)


def _train(name: str, papers: tuple[str, ...], settings: str) -> System:
    return System(name, papers, settings, "train CONFIG")


SYSTEMS: tuple[System, ...] = (
    # Adversarial: policy and PRM together
    _train("AIRL-S", ("2508.14313",), "method=airl_s"),
    _train("rePIRL", ("2602.07832",), "method=repirl"),
    # PRMs from labels
    _labels("Math-Shepherd", ("2312.08935",), "math_shepherd_soft"),
    _labels("ORM, outcome reward model", ("2305.20050",), "outcome"),
    _labels("GenPRM, relative progress", ("2504.00891",), "relative_progress"),
    _labels("StepWiser, effective progress", ("2508.19229",), "relative_effective"),
    _labels("ER-PRM", ("2412.11006",), "er_prm"),
    System(
        "PAV, process advantage verifier",
        ("2410.08146",),
        "supervised_prm.labels=process_advantage supervised_prm.step_loss=mean_squared_error",
        _TRAIN_PRM,
    ),
    _labels("OmegaPRM, binary search", ("2406.06592",), "omega_prm"),
    System(
        "consensus filtering of Qwen2.5-Math-PRM (Lessons)",
        ("2501.07301",),
        f"'supervised_prm.consensus={_SCORER.format('think_prm')}'",
        _TRAIN_PRM,
    ),
    System(
        "PQM",
        ("2410.11287",),
        "supervised_prm.labels=math_shepherd_hard supervised_prm.step_loss=pqm",
        _TRAIN_PRM,
    ),
    System(
        "implicit PRM, free process rewards",
        ("2412.01981",),
        "supervised_prm.labels=outcome supervised_prm.step_loss=implicit_prm",
        _TRAIN_PRM,
    ),
    System(
        "implicit PRM by DPO (implicit_prm_kto: by KTO)",
        ("2412.01981",),
        "supervised_prm.labels=outcome supervised_prm.step_loss=implicit_prm_dpo",
        _TRAIN_PRM,
    ),
    System(
        "SPA-RL",
        ("2505.20732",),
        f"supervised_prm.labels=outcome supervised_prm.step_loss=spa_rl {_SCALAR}",
        _TRAIN_PRM,
    ),
    System(
        "BiRM",
        ("2503.04618",),
        f"method=math_shepherd prm.outcome_head=1.0 supervised_prm.step_loss=mean_squared_error {_SCALAR}",
        _TRAIN_PRM,
    ),
    System("GRM", ("2406.10216",), f"supervised_prm.text_loss=0.01 {_SCALAR}", _TRAIN_PRM),
    System(
        "SPRM of MetaStone-S1",
        ("2507.01951",),
        f"supervised_prm.labels=outcome supervised_prm.step_loss=sprm {_SCALAR} prm.head=policy",
        _TRAIN_PRM,
    ),
    System("Let's Verify, PRM800K", ("2305.20050",), "", "train-prm CONFIG --steps FILE"),
    # Critics and judges
    _critic("ThinkPRM", ("2504.16828",), "think_prm"),
    _critic("GenORM, GenRM-CoT", ("2510.00492", "2408.15240"), "gen_orm"),
    _critic("R-PRM", ("2503.21295",), "r_prm"),
    _critic("GenPRM", ("2504.00891",), "gen_prm"),
    System(
        "StepWiser and GenRM, a judge trained by RL",
        ("2508.19229", "2408.15240"),
        "",
        "train examples/judge.yaml",
    ),
    System("One Token to Fool LLM-as-a-Judge, probes", ("2507.08794",), "", "evaluate-prm DATA --probes 50"),
    System("Lessons, evaluation", ("2501.07301",), "", "evaluate-prm DATA"),
    # Credit, shaping, policy losses
    _train("PRIME", ("2502.01456",), "method=prime"),
    _train("PURE", ("2504.15275",), "method=pure"),
    _train("GRPO", ("2402.03300",), "method=grpo"),
    _train("Dr. GRPO", ("2503.20783",), "method=dr_grpo"),
    _train("RLOO", ("2402.14740",), "method=rloo"),
    _train("DAPO", ("2503.14476",), "method=dapo train.refill_rounds=2"),
    _train("DAPO, overlong filtering", ("2503.14476",), "method.row_filters=untruncated"),
    _train("REINFORCE++", ("2501.03262",), "method=grpo method.outcome_advantage=none method.whiten=true"),
    _train("GDPO", ("2601.05242",), "method=grpo method.separate_rewards=true method.whiten=true"),
    _train(
        "Pass@k Training",
        ("2508.10751",),
        "method=grpo method.outcome_advantage=pass_at_k method.pass_at_k=2",
    ),
    _train("dual clip", ("1912.09729",), "method.policy_loss=dual_clip"),
    _train("PRL", ("2601.10201",), "method=grpo method.policy_loss=prl method.kl_coefficient=0.005"),
    _train(
        "GSPO",
        ("2507.18071",),
        "method=grpo method.policy_loss=gspo method.aggregation=sequence_mean method.clip_low=3.0e-4 "
        "method.clip_high=4.0e-4",
    ),
    _train("CISPO", ("2506.13585",), "method.policy_loss=cispo method.clip_low=1.0"),
    _train("Clip and Delta", ("2410.15115",), "'method.step_transforms=[clip, delta]'"),
    _train("G-RA, gated step rewards", ("2508.10548",), "method.step_transforms=gated"),
    _train("PPR, ReNorm", ("2509.25598",), "method.step_transforms=renorm"),
    _train("Kimi k1.5, length reward", ("2501.12599",), "method.outcome_terms=kimi_length"),
    _train("LASER (laser_d: LASER-D)", ("2505.15612",), "method.outcome_terms=laser"),
    _train("Demystifying long CoT, cosine reward", ("2502.03373",), "method.outcome_terms=cosine"),
    _train("Demystifying long CoT, repetition penalty", ("2502.03373",), "task.reward=repetition"),
    _train("POLAR", ("2507.05197",), "'task.reward={name: polar, options: {endpoint: URL}}'"),
    _train("PROF", ("2509.03403",), "method=airl_s method.row_filters=prof method.step_weight=0"),
    _train("CAPO", ("2508.02298",), "method.step_transforms=capo"),
    _train("PAR", ("2502.18770",), "method.outcome_terms=par"),
    _train("SAR", ("2509.05489",), "method.outcome_terms=sar"),
    _train(
        "IGPO", ("2510.14967",), "method=grpo method.step_transforms=information_gain method.step_weight=1"
    ),
    # Rewards that a policy makes itself
    _train("TTRL", ("2504.16084",), "method=grpo method.outcomes=vote"),
    _train(
        "Co-Reward", ("2508.00410",), "method=grpo method.outcomes=cross_vote train.problem_sampler=pairs"
    ),
    System(
        "Cooper",
        ("2508.05613",),
        f"supervised_prm.labels=outcome supervised_prm.step_loss=cooper supervised_prm.spoiled=true "
        f"{_SCALAR} prm.search_aggregate=last",
        _TRAIN_PRM,
    ),
    System("ReST-MCTS*, self-training", ("2406.03816",), "self_train.prm=values", "self-train CONFIG"),
    System("B-STaR", ("2412.17256",), "'self_train.balance.temperatures=[0.7, 1.0]'", "self-train CONFIG"),
    # Compute at test time
    _search("beam, lookahead, DVTS", ("2408.03314",), "beam, lookahead, dvts"),
    _search("REBASE", ("2408.00724",), "rebase"),
    _search("ETS", ("2502.13575",), "ets"),
    _search("particle filter, particle Gibbs", ("2502.01618",), "particle_filter, particle_gibbs"),
    _search("early rejection", (), "early_rejection"),
    _search("MCTS of ReST-MCTS* and AIRL-S", ("2406.03816", "2508.14313"), "mcts"),
    _search("adaptive consistency", ("2305.11860",), "adaptive_consistency"),
    System("UnPRM, votes", ("2508.01773",), "search.answer=hybrid", _SEARCH),
    System(
        "abstention, risk and coverage",
        ("1705.08500", "1805.08206"),
        "search.abstain.vote_share=0.5",
        _SEARCH,
    ),
    System("calibrated PRM", ("2506.09338",), "", "calibrate RECORDS --output PRM"),
    _search("instance-adaptive scaling", ("2506.09338",), "instance_adaptive"),
    System("compute-optimal scaling", ("2408.03314",), "", "plan-search RECORDS"),
    _search("AB-MCTS", ("2503.04412",), "ab_mcts"),
    _search("StepWiser, chunk reset", ("2508.19229",), "chunk_reset"),
    # Problems and teachers
    System("CrossThink, mixtures of tasks", ("2504.13941",), "", "train CONFIG with task: mixture"),
    System("PrefixRL", ("2601.18795",), "", "train CONFIG with task: prefix_rl"),
    _train("prioritised problems of Kimi k1.5", ("2501.12599",), "train.problem_sampler=prioritised"),
    _train("learnability", (), "train.problem_sampler=learnability"),
    _train("on-policy distillation", ("2602.12125",), "method=opd prm.path=TEACHER"),
    _train("G-OPD, ExOPD", ("2602.12125",), "method=exopd prm.path=TEACHER prm.distillation_scale=1.25"),
)


def find_systems(word: str | None = None) -> list[System]:
    """Return the systems whose name, paper or line has the word, in any case; all of them without one."""
    if word is None:
        return list(SYSTEMS)
    wanted = word.lower()
    return [one for one in SYSTEMS if wanted in " ".join((one.name, *one.papers, one.line)).lower()]
