"""What other packages call our settings: a key of theirs that somebody tries is answered with ours.

Names and meanings are those of their sources and documentation of 2025 and 2026: TRL (`GRPOConfig`,
`PRMConfig`, `ModelConfig` and the `TrainingArguments` below them), verl (`ppo_trainer.yaml`, whole paths) and
OpenRLHF (`train_ppo_ray`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class ForeignKey(NamedTuple):
    """A setting of another package."""

    whose: str
    """The package."""
    ours: tuple[str, ...]
    """Our settings in its place; none where there is nothing like it."""
    remark: str = ""
    """What differs, in a few words."""


_TOKENS = "ours counts tokens, not rows"
_PROBLEMS = "problems, each with train.rollouts_per_problem rollouts"
_KL = "in the loss, never in the reward"
_BOTH_LENGTHS = "of prompt and response together"
_UPDATES = "how many updates a batch is cut into, not how large one is"
_METHOD = "method.name sets a whole method"
_ENTROPY = "above 0 it raises the entropy"
_TRACKED = "beside metrics.jsonl and tensorboard/, which every run writes"

FOREIGN_KEYS: dict[str, ForeignKey] = {
    # TRL
    "num_generations": ForeignKey("TRL", ("train.rollouts_per_problem",)),
    "max_completion_length": ForeignKey("TRL", ("rollout.max_response_tokens",)),
    "max_prompt_length": ForeignKey("TRL", ("model.context_tokens",), _BOTH_LENGTHS),
    "beta": ForeignKey("TRL", ("method.kl_coefficient",), "the beta of PRIME is prm.prime.beta"),
    "epsilon": ForeignKey("TRL", ("method.clip_low", "method.clip_high")),
    "epsilon_high": ForeignKey("TRL", ("method.clip_high",)),
    "num_iterations": ForeignKey("TRL", ("method.epochs",), "passes over the rollouts of an iteration"),
    "loss_type": ForeignKey(
        "TRL", ("method.aggregation",), "grpo: sequence_mean, dapo: token_mean, dr_grpo: constant"
    ),
    "scale_rewards": ForeignKey("TRL", ("method.outcome_advantage",), "grpo scales, dr_grpo does not"),
    "vllm_importance_sampling_cap": ForeignKey(
        "TRL", ("method.importance_cap",), "weights of tokens, truncated"
    ),
    "vllm_tensor_parallel_size": ForeignKey("TRL", ("rollout.engine.tensor_parallel",)),
    "vllm_gpu_memory_utilization": ForeignKey("TRL", ("rollout.engine.gpu_memory_utilization",)),
    "per_device_train_batch_size": ForeignKey("TRL", ("policy.tokens_per_microbatch",), _TOKENS),
    "gradient_accumulation_steps": ForeignKey(
        "TRL", ("policy.tokens_per_microbatch",), "as many micro-batches as the tokens of an update fill"
    ),
    "max_steps": ForeignKey("TRL", ("train.iterations",), "search.max_steps is the depth of a search"),
    "max_grad_norm": ForeignKey("TRL", ("policy.gradient_clip",)),
    "warmup_steps": ForeignKey("TRL", ("policy.lr_warmup_updates",)),
    "save_steps": ForeignKey("TRL", ("train.checkpoint_every",), "iterations"),
    "eval_steps": ForeignKey("TRL and OpenRLHF", ("train.evaluate_every",), "iterations; 0: none"),
    "save_total_limit": ForeignKey("TRL", ("train.keep_checkpoints",)),
    "output_dir": ForeignKey("TRL", ("output",), "the run folder is output/name"),
    "run_name": ForeignKey("TRL", ("name",)),
    "report_to": ForeignKey("TRL", ("train.trackers",), _TRACKED),
    "model_name_or_path": ForeignKey("TRL", ("model.path",)),
    "attn_implementation": ForeignKey("TRL and OpenRLHF", ("model.attention",)),
    "lora_r": ForeignKey("TRL", ("policy.lora.rank",), "for the PRM prm.learner.lora.rank"),
    "reward_funcs": ForeignKey("TRL", ("task.reward",), "as file.py:NAME, one or several"),
    "reward_weights": ForeignKey("TRL", ("task.reward",), "each with its weight"),
    "chat_template_kwargs": ForeignKey("TRL", ("model.chat_template_kwargs",)),
    "mask_truncated_completions": ForeignKey("TRL", ("method.row_filters",), "untruncated"),
    "importance_sampling_level": ForeignKey("TRL", ("method.policy_loss",), "token: clipped, sequence: gspo"),
    "delta": ForeignKey(
        "TRL", ("method.policy_loss",), "dual_clip bounds the ratio where the advantage is negative"
    ),
    "bf16": ForeignKey("TRL and OpenRLHF", ("model.dtype",), "bfloat16 or float32"),
    "use_vllm": ForeignKey("TRL", (), "vLLM samples all rollouts (rollout.engine)"),
    "num_train_epochs": ForeignKey("TRL", ("train.iterations",), "iterations, not passes over the data"),
    "warmup_ratio": ForeignKey("TRL", ("policy.lr_warmup_updates",), "updates, not a share of them"),
    "lr_scheduler_type": ForeignKey(
        "TRL", ("policy.lr_warmup_updates", "policy.lr_decay_updates"), "linear up, and down to a tenth"
    ),
    "sync_ref_model": ForeignKey("TRL", (), "the reference model (reference.path) never changes in a run"),
    "step_separator": ForeignKey("TRL", ("task.step_delimiter",), "with task.name=file"),
    # verl
    "data.train_files": ForeignKey("verl", ("task.train_file",), "with task.name=file"),
    "data.val_files": ForeignKey("verl", ("task.test_file",), "with task.name=file"),
    "data.train_batch_size": ForeignKey("verl", ("train.problems_per_iteration",), _PROBLEMS),
    "data.max_prompt_length": ForeignKey("verl", ("model.context_tokens",), _BOTH_LENGTHS),
    "data.max_response_length": ForeignKey("verl", ("rollout.max_response_tokens",)),
    "data.prompt_key": ForeignKey("verl", ("task.fields.prompt",), "with task.name=file"),
    "data.apply_chat_template_kwargs": ForeignKey("verl", ("model.chat_template_kwargs",)),
    "data.reward_fn_key": ForeignKey("verl", ("task.grader",), "one grader for all problems of a task"),
    "custom_reward_function.path": ForeignKey("verl", ("task.reward",), "as file.py:NAME"),
    "custom_reward_function.name": ForeignKey("verl", ("task.reward",), "as file.py:NAME"),
    "actor_rollout_ref.model.path": ForeignKey("verl", ("model.path",)),
    "actor_rollout_ref.model.enable_gradient_checkpointing": ForeignKey(
        "verl", ("policy.gradient_checkpointing",)
    ),
    "actor_rollout_ref.actor.optim.lr": ForeignKey("verl", ("policy.learning_rate",)),
    "actor_rollout_ref.actor.optim.lr_warmup_steps": ForeignKey("verl", ("policy.lr_warmup_updates",)),
    "actor_rollout_ref.actor.ppo_mini_batch_size": ForeignKey(
        "verl", ("method.updates_per_iteration",), _UPDATES
    ),
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": ForeignKey(
        "verl", ("policy.tokens_per_microbatch",), _TOKENS
    ),
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": ForeignKey(
        "verl", ("policy.tokens_per_microbatch",)
    ),
    "actor_rollout_ref.actor.ppo_epochs": ForeignKey("verl", ("method.epochs",)),
    "actor_rollout_ref.actor.clip_ratio": ForeignKey("verl", ("method.clip_low", "method.clip_high")),
    "actor_rollout_ref.actor.clip_ratio_low": ForeignKey("verl", ("method.clip_low",)),
    "actor_rollout_ref.actor.clip_ratio_high": ForeignKey("verl", ("method.clip_high",)),
    "actor_rollout_ref.actor.grad_clip": ForeignKey("verl", ("policy.gradient_clip",)),
    "actor_rollout_ref.actor.entropy_coeff": ForeignKey("verl", ("method.entropy_coefficient",), _ENTROPY),
    "actor_rollout_ref.actor.loss_agg_mode": ForeignKey("verl", ("method.aggregation",)),
    "actor_rollout_ref.actor.use_kl_loss": ForeignKey("verl", ("method.kl_coefficient",), "0 turns it off"),
    "actor_rollout_ref.actor.kl_loss_coef": ForeignKey("verl", ("method.kl_coefficient",)),
    "actor_rollout_ref.actor.kl_loss_type": ForeignKey(
        "verl", ("method.kl_estimator",), "low_var_kl is k3, mse is k2"
    ),
    "actor_rollout_ref.rollout.n": ForeignKey("verl", ("train.rollouts_per_problem",)),
    "actor_rollout_ref.rollout.temperature": ForeignKey("verl", ("rollout.temperature",)),
    "actor_rollout_ref.rollout.top_p": ForeignKey("verl", ("rollout.top_p",)),
    "actor_rollout_ref.rollout.top_k": ForeignKey("verl", ("rollout.top_k",)),
    "actor_rollout_ref.rollout.val_kwargs.top_p": ForeignKey("verl", ("search.top_p",)),
    "actor_rollout_ref.rollout.val_kwargs.top_k": ForeignKey("verl", ("search.top_k",)),
    "actor_rollout_ref.rollout.val_kwargs.temperature": ForeignKey("verl", ("search.temperature",)),
    "actor_rollout_ref.rollout.response_length": ForeignKey("verl", ("rollout.max_response_tokens",)),
    "actor_rollout_ref.rollout.max_num_seqs": ForeignKey("verl", ("rollout.engine.max_sequences",)),
    "actor_rollout_ref.rollout.gpu_memory_utilization": ForeignKey(
        "verl", ("rollout.engine.gpu_memory_utilization",)
    ),
    "actor_rollout_ref.rollout.tensor_model_parallel_size": ForeignKey(
        "verl", ("rollout.engine.tensor_parallel",)
    ),
    "algorithm.adv_estimator": ForeignKey("verl", ("method.outcome_advantage",), _METHOD),
    "algorithm.kl_ctrl.kl_coef": ForeignKey("verl", ("method.kl_coefficient",), _KL),
    "algorithm.filter_groups.enable": ForeignKey("verl", ("method.drop_constant_groups",)),
    "critic": ForeignKey("verl", (), "no critic is trained; a PRM gives the rewards of steps (prm)"),
    "trainer.total_training_steps": ForeignKey("verl", ("train.iterations",)),
    "trainer.total_epochs": ForeignKey("verl", ("train.iterations",), "iterations, not passes over the data"),
    "trainer.save_freq": ForeignKey("verl", ("train.checkpoint_every",)),
    "trainer.test_freq": ForeignKey("verl", ("train.evaluate_every",), "0: none"),
    "trainer.max_actor_ckpt_to_keep": ForeignKey("verl", ("train.keep_checkpoints",)),
    "trainer.experiment_name": ForeignKey("verl", ("name",)),
    "trainer.n_gpus_per_node": ForeignKey(
        "verl", ("policy.ranks", "policy.resources.gpus"), "each actor says what it needs"
    ),
    "trainer.nnodes": ForeignKey(
        "verl", ("policy.ranks", "rollout.max_workers"), "Ray places the actors on the nodes that there are"
    ),
    "trainer.logger": ForeignKey("verl", ("train.trackers",), _TRACKED),
    # OpenRLHF
    "pretrain": ForeignKey("OpenRLHF", ("model.path",)),
    "reward_pretrain": ForeignKey("OpenRLHF", ("prm.path",)),
    "remote_rm_url": ForeignKey("OpenRLHF", ("task.reward",), "a URL or file.py:NAME"),
    "prompt_data": ForeignKey("OpenRLHF", ("task.train_file",), "with task.name=file"),
    "input_key": ForeignKey("OpenRLHF", ("task.fields.prompt",), "with task.name=file"),
    "label_key": ForeignKey("OpenRLHF", ("task.fields.answer",), "with task.name=file"),
    "apply_chat_template": ForeignKey("OpenRLHF", ("model.prompt_template",), "chat or plain"),
    "n_samples_per_prompt": ForeignKey("OpenRLHF", ("train.rollouts_per_problem",)),
    "rollout_batch_size": ForeignKey("OpenRLHF", ("train.problems_per_iteration",), _PROBLEMS),
    "train_batch_size": ForeignKey("OpenRLHF", ("method.updates_per_iteration",), _UPDATES),
    "micro_train_batch_size": ForeignKey("OpenRLHF", ("policy.tokens_per_microbatch",), _TOKENS),
    "micro_rollout_batch_size": ForeignKey(
        "OpenRLHF", ("reference.tokens_per_microbatch",), f"{_TOKENS}; engines make batches of their own"
    ),
    "train_max_tokens_per_gpu": ForeignKey("OpenRLHF", ("policy.tokens_per_microbatch",)),
    "generate_max_len": ForeignKey("OpenRLHF", ("rollout.max_response_tokens",)),
    "prompt_max_len": ForeignKey("OpenRLHF", ("model.context_tokens",), _BOTH_LENGTHS),
    "actor_learning_rate": ForeignKey("OpenRLHF", ("policy.learning_rate",)),
    "init_kl_coef": ForeignKey("OpenRLHF", ("method.kl_coefficient",), _KL),
    "kl_coef": ForeignKey("TRL and verl", ("method.kl_coefficient",), _KL),
    "advantage_estimator": ForeignKey("OpenRLHF", ("method.outcome_advantage",), _METHOD),
    "eps_clip": ForeignKey("OpenRLHF", ("method.clip_low", "method.clip_high")),
    "eps_clip_low_high": ForeignKey("OpenRLHF", ("method.clip_low", "method.clip_high")),
    "colocate_all_models": ForeignKey(
        "OpenRLHF",
        ("policy.resources.gpus", "rollout.resources.gpus"),
        "shares below 1 let actors stand on one GPU",
    ),
    "entropy_loss_coef": ForeignKey("OpenRLHF", ("method.entropy_coefficient",), _ENTROPY),
    "max_norm": ForeignKey("OpenRLHF", ("policy.gradient_clip",)),
    "adam_offload": ForeignKey("OpenRLHF", ("policy.offload_optimizer",)),
    "packing_samples": ForeignKey("OpenRLHF", ("policy.layout",), "packed or padded"),
    "vllm_num_engines": ForeignKey("OpenRLHF", ("rollout.min_workers", "rollout.max_workers")),
    "dynamic_filtering": ForeignKey("OpenRLHF", ("method.drop_constant_groups",)),
    "overlong_buffer_len": ForeignKey("OpenRLHF", ("method.overlong_buffer_tokens",)),
    "vllm_is_truncated_threshold": ForeignKey("OpenRLHF", ("method.importance_cap",)),
    "async_train": ForeignKey("OpenRLHF", ("train.max_staleness",), "1 or more is asynchronous"),
}
"""Their keys, by name or by the whole path."""


def answer_to(key: str, value: Any) -> str | None:
    """Return the end of a sentence that names our settings for the unknown `key`, or None.

    Args:
        key: path of the key that we do not know; only its end need be theirs (`train.num_generations`).
        value: what was given for it. Where that is a section (`actor_rollout_ref` with all below it), the
            first key in it that we can answer counts.
    """
    for path in _paths(key, value):
        parts = path.split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            if name in FOREIGN_KEYS:
                return _words(name, FOREIGN_KEYS[name])
    return None


def answer_to_part(key: str) -> str | None:
    """The same where `key` is only the end of one of their paths, such as `rollout.n`; None unless it is of
    exactly one."""
    found = [name for name in FOREIGN_KEYS if name.endswith(f".{key}")]
    return _words(found[0], FOREIGN_KEYS[found[0]]) if len(found) == 1 else None


def _words(name: str, key: ForeignKey) -> str:
    if not key.ours:
        return f"{key.whose}'s {name} has no counterpart here: {key.remark}"
    remark = f" ({key.remark})" if key.remark else ""
    return f"{key.whose}'s {name} is {' and '.join(key.ours)} here{remark}"


def _paths(key: str, value: Any) -> Iterator[str]:
    """The key itself and, in a section, everything below it."""
    yield key
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _paths(f"{key}.{name}", below)
