"""The first start of what a run starts, by `requirements/install.py`: `first_start.py engine|learners`.

It proves that the large libraries load and work here, and leaves what later starts read instead of making it
again: byte code of the modules that are used (of 60,000 files most never are), and vLLM's compiled sampler.
"""

import os
import sys
import tempfile
from pathlib import Path

# Many container images set it, and then every process compiles every module that it imports, each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # for the processes that Ray starts


def engine() -> None:
    """Sample with a tiny policy on vLLM."""
    from actors.rollout.vllm_engine import VLLMEngine
    from airls_ray.config.schema import ArithmeticTaskConfig, EngineConfig, ModelConfig
    from airls_ray.models.create import create_policy
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec, build_tokenizer

    task = make_task(ArithmeticTaskConfig())
    sizes = ModelConfig(hidden_size=64, layers=1, heads=2, intermediate_size=64, context_tokens=64)
    with tempfile.TemporaryDirectory() as folder:
        build_tokenizer(task, Path(folder))
        codec = TextCodec.from_folder(folder, task)
        create_policy(sizes, codec, Path(folder), seed=0)
        settings = EngineConfig(kv_cache_gib=0.05, max_sequences=8, gpu_memory_utilization=0.1)
        made = VLLMEngine(folder, settings, dtype="float32", context_tokens=64, eos_ids=[codec.eos_id])
        made.warm_up()


def learners() -> None:
    """Import what learners, commands and reports import, and start and end a Ray cluster with one actor."""
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    import airls_ray.report
    import airls_ray.tasks.math_grader  # noqa: F401
    from actors.cluster import cluster, processes
    from airls_ray.config.schema import RayConfig, Resources

    cluster.connect(RayConfig(object_store_gib=0.1))
    actor = processes.start_actor("pathlib:PurePath", "", Resources(cpus=0.0))
    cluster.fetch(actor.as_posix.remote(), 120.0, "the first actor")
    cluster.disconnect()


if __name__ == "__main__":
    {"engine": engine, "learners": learners}[sys.argv[1]]()
