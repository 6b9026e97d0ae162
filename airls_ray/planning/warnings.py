"""What a configuration lacks or contradicts, in words; none of it stops a plan."""

from __future__ import annotations

from collections.abc import Iterator

from airls_ray.adapter_sync import sends_adapter
from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.config.task_choice import parts_of
from airls_ray.config.task_sections import CodeTaskConfig, FileTaskConfig
from airls_ray.data.sources import is_hub
from airls_ray.planning.memory import BYTES, GIB
from airls_ray.planning.shapes import ModelShape
from airls_ray.truncation import Truncation

_ROUGH_TOLERANCE = 1e-2  # nats; bfloat16 weights agree with the sampler to about three digits


def missing_settings(config: Config, shape: ModelShape | None) -> Iterator[str]:
    """Yield a sentence for each thing that the run would stumble over.

    Args:
        config: of the run.
        shape: of the policy, where it is known.
    """
    yield from _models(config, shape)
    yield from _engine(config, shape)
    yield from _learner("policy", config.policy, shape)
    if config.uses_prm:
        yield from _learner("prm.learner", config.prm.learner, shape)
    if config.rough_log_probs and config.train.sync_check and config.sync_tolerance < _ROUGH_TOLERANCE:
        yield (
            f"train.sync_tolerance is {config.sync_tolerance:g} nats, which bfloat16 weights do not "
            "hold: raise it (0.05) or set train.sync_check=false"
        )
    if config.rough_log_probs and config.train.iterations > 0 and config.method.importance_cap == 0:
        yield (
            "sampler and learner differ in bfloat16, which nothing corrects: set method.importance_cap (2 is "
            "usual)"
        )
    yield from truncated_rollouts(config)
    by_min_form = any(one.name == "min_form" for one in config.method.transforms)
    if by_min_form and config.prm.reward == "probability":
        yield (
            "method.step_transform=min_form cannot point at a mistake among rewards in [0, 1] "
            "(prm.reward=probability): set prm.reward=signed_probability"
        )
    yield from absent_files(config, test=True)


def absent_files(config: Config, *, test: bool) -> Iterator[str]:
    """Yield a sentence for each task whose files of training problems, or `test` problems, are not there."""
    for task in parts_of(config.task).values():
        if not isinstance(task, FileTaskConfig | CodeTaskConfig):
            continue
        files = (task.train_file, task.test_file) if test else (task.train_file,)
        absent = [str(file) for file in files if not is_hub(file) and not file.is_file()]
        if absent:
            yield f"there is no problem file {' or '.join(absent)} here"


def truncated_rollouts(config: Config) -> Iterator[str]:
    """Yield a sentence where what is learned from is not sampled from the policy as a whole."""
    given = Truncation.of(config.rollout).given()
    if given and config.train.iterations > 0:
        named = ", ".join(f"rollout.{name}={value:g}" for name, value in given.items())
        yield (
            f"with {named} the rollouts lack tokens that the policy may say, and learners take them for "
            "samples of the whole policy: a bias that no importance weight removes (docs/methods.md)"
        )


def _models(config: Config, shape: ModelShape | None) -> Iterator[str]:
    if config.uses_prm and not config.prm_learns and config.prm.path is None:
        lacking = (
            "a teacher: set prm.path to the folder or hub name of a language model"
            if config.prm.is_teacher
            else "a trained PRM: set prm.path to its folder (`airls-ray train-prm` makes one)"
        )
        yield f"method {config.method.name} needs {lacking}"
    made = config.output / config.name / "sft"
    if config.model.path is None and not made.exists():
        yield f"there is no policy to start from yet: run `airls-ray sft` first ({made} does not exist)"
    needed = config.model.context_tokens
    if shape is not None and shape.context is not None and shape.context < needed:
        yield f"the policy takes {shape.context} tokens, but model.context_tokens is {needed}: lower it"


def _engine(config: Config, shape: ModelShape | None) -> Iterator[str]:
    engine, gpus = config.rollout.engine, config.rollout.resources.gpus
    if engine.tensor_parallel > 1 and gpus != engine.tensor_parallel:
        yield (
            f"rollout.engine.tensor_parallel is {engine.tensor_parallel}, but rollout.resources.gpus is "
            f"{gpus:g}: set them to the same number"
        )
    if shape is not None and shape.heads % engine.tensor_parallel:
        yield (
            f"rollout.engine.tensor_parallel must divide the model's {shape.heads} attention heads, but is "
            f"{engine.tensor_parallel}"
        )
    if engine.weight_transfer == "nccl":
        if not gpus or not config.policy.resources.gpus:
            yield "rollout.engine.weight_transfer=nccl needs GPUs for rollout workers and policy learner"
    elif shape is not None and config.ray.address is None and not sends_adapter(config):
        needed = shape.parameters * BYTES[config.model.dtype] / GIB
        if needed > config.ray.object_store_gib:
            yield (
                f"a weight sync puts {needed:.1f} GiB into the object store: where the command starts the "
                f"cluster itself, ray.object_store_gib ({config.ray.object_store_gib:g}) must be above that"
            )


def _learner(section: str, learner: LearnerConfig, shape: ModelShape | None) -> Iterator[str]:
    if learner.resources.gpus > 1:
        yield (
            f"a rank of a learner uses one GPU, but {section}.resources.gpus is {learner.resources.gpus:g}: "
            f"set it to 1 and raise {section}.ranks"
        )
    if learner.lora.rank and shape is not None:
        unknown = [name for name in learner.lora.target_modules if name not in shape.linear_layers]
        if unknown:
            yield (
                f"{section}.lora.target_modules names {unknown[0]}, which is no linear layer of the model: "
                f"choose from {', '.join(shape.linear_layers)}"
            )
