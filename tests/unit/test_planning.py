from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from airls_ray.config import Config, load_config
from airls_ray.config.schema import EngineConfig, LearnerConfig
from airls_ray.errors import ModelError
from airls_ray.planning import Plan, make_plan
from airls_ray.planning.memory import (
    GIB,
    LOGITS_ENTROPY,
    LOGITS_ENTROPY_GRADIENT,
    LOGITS_FORWARD,
    LOGITS_TRAIN,
    Memory,
    cache_bytes_per_token,
    engine_memory,
    layer_activations,
    learner_memory,
)
from airls_ray.planning.placement import ActorDemand, place
from airls_ray.planning.shapes import PUBLISHED, ModelShape, parse_shape, policy_shape

SMALL: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
ARCHITECTURES = [
    pytest.param(Qwen2Config, {}, id="qwen2"),
    pytest.param(Qwen3Config, {"head_dim": 8}, id="qwen3"),
    pytest.param(Qwen3Config, {"head_dim": 8, "attention_bias": True}, id="qwen3 with bias"),
    pytest.param(LlamaConfig, {}, id="llama"),
    pytest.param(LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 10}, id="llama, bias"),
    pytest.param(MistralConfig, {}, id="mistral"),
]
TINY = ModelShape(
    hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocab=10, tied=False, context=64
)
SEVEN_B = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]


def shape_of(config: PreTrainedConfig) -> ModelShape:
    return parse_shape(json.loads(config.to_json_string(use_diff=False)), "here")


def numel(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "more"), ARCHITECTURES)
def test_the_parameter_count_is_that_of_the_real_model(kind, more, tied):
    config = kind(**SMALL, **more, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config).parameters == numel(model)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_parameter_count_of_a_scalar_head_is_that_of_the_real_token_classifier(labels):
    config = Qwen3Config(**SMALL, head_dim=8, num_labels=labels)
    with torch.device("meta"):
        model = AutoModelForTokenClassification.from_config(config)
    assert shape_of(config).head_parameters(labels) == numel(model)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # the model cards' totals
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-3B-Instruct", 3_085_938_688),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
    ],
)
def test_the_published_shapes_give_the_published_parameter_counts(name, parameters):
    assert PUBLISHED[name].parameters == parameters


def test_a_new_model_is_counted_as_it_will_be_made(tmp_path):
    from airls_ray.models.create import qwen3_config
    from airls_ray.tasks import make_task
    from airls_ray.text import TextCodec, build_tokenizer

    config = load_config(None, ["model.layers=2", "model.tie_embeddings=true"])
    task = make_task(config.task)
    build_tokenizer(task, tmp_path)
    with torch.device("meta"):
        codec = TextCodec.from_folder(tmp_path, task)
        model = AutoModelForCausalLM.from_config(qwen3_config(config.model, codec))
    shape = policy_shape(config)
    assert isinstance(shape, ModelShape)
    assert shape.parameters == numel(model)


def test_a_config_file_without_a_size_is_named():
    with pytest.raises(ModelError, match=r"x/config.json has no hidden_size"):
        parse_shape({"model_type": "llama"}, "x/config.json")


def test_a_hub_name_that_is_not_known_has_a_reason_in_place_of_a_shape(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = make_plan(load_config(None, ["model.path=someone/model"]))
    assert plan.shape is None
    assert plan.unknown == "the sizes of someone/model are not known before it is downloaded"
    assert not plan.memory


def test_a_hub_name_in_the_local_cache_is_read_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--someone--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    config = Qwen2Config(**SMALL)
    config.save_pretrained(folder)
    assert make_plan(load_config(None, ["model.path=someone/model"])).shape == shape_of(config)


# -------------------------------------------------------------------------------------- memory
def memory_of(stage: int, dtype: str, *, on_gpu: bool = False, **fields: Any) -> Memory:
    learner = LearnerConfig(ranks=2, zero_stage=stage, tokens_per_microbatch=100, **fields)
    return learner_memory(TINY, 1000, learner, dtype=dtype, context_tokens=64, logit_bytes=16, on_gpu=on_gpu)


@pytest.mark.parametrize(
    ("dtype", "stage", "weights", "gradients", "optimizer", "update", "gathered"),
    [  # 1,000 parameters on two ranks, by hand
        ("float32", 0, 4000, 4000, 8000, 0, 0),
        ("float32", 1, 4000, 4000, 6000, 2000, 0),
        ("float32", 2, 4000, 2000, 6000, 2000, 0),
        ("float32", 3, 2000, 2000, 6000, 2000, 4000),
        ("bfloat16", 0, 2000, 6000, 6000, 0, 0),  # stage 1 is used
        ("bfloat16", 1, 2000, 6000, 6000, 0, 0),
        ("bfloat16", 2, 2000, 1000, 6000, 2000, 0),
        ("bfloat16", 3, 1000, 1000, 6000, 2000, 2000),
    ],
)
def test_the_states_of_every_stage(dtype, stage, weights, gradients, optimizer, update, gathered):
    memory = memory_of(stage, dtype)
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, gradients, optimizer)
    assert (memory.update, memory.gathered) == (update, gathered)


LORA = {"rank": 4, "target_modules": ["q_proj", "down_proj"]}
ADAPTERS = 2 * 4 * ((8 + 8) + (16 + 8))  # layers, rank, inputs and outputs of both: 320


def test_adapters_are_counted_as_peft_makes_them():
    from peft import LoraConfig, get_peft_model

    config = Qwen3Config(**SMALL, head_dim=10)
    model = get_peft_model(
        AutoModelForCausalLM.from_config(config), LoraConfig(r=3, target_modules="all-linear")
    )
    learns = sum(one.numel() for one in model.parameters() if one.requires_grad)
    shape = shape_of(config)
    assert shape.adapter_parameters(3, list(shape.linear_layers)) == learns


@pytest.mark.parametrize(
    ("dtype", "stage", "weights", "gradients", "optimizer", "update", "gathered"),
    [  # 1,000 frozen parameters and 320 that learn, on two ranks, by hand
        ("float32", 0, 5280, 1280, 2560, 0, 4000),
        ("float32", 2, 5280, 640, 1920, 640, 4000),
        ("float32", 3, 2640, 640, 1920, 640, 4000),
        ("bfloat16", 1, 2640, 1920, 1920, 0, 2000),
        ("bfloat16", 3, 1320, 320, 1920, 640, 2000),
    ],
)
def test_with_lora_gradients_and_optimiser_are_those_of_the_adapters(
    dtype, stage, weights, gradients, optimizer, update, gathered
):
    memory = memory_of(stage, dtype, lora=LORA)
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, gradients, optimizer)
    assert (memory.update, memory.gathered) == (update, gathered)


def test_adapters_keep_their_inner_values_and_a_head_learns_beside_them():
    plain, lora = memory_of(0, "float32"), memory_of(0, "float32", lora=LORA)
    assert lora.activations - plain.activations == 100 * 2 * 2 * 4 * 4  # tokens, layers, targets, rank, bytes
    learner = LearnerConfig(lora=LORA)
    memory = learner_memory(
        TINY, 1000, learner, dtype="float32", context_tokens=64, logit_bytes=0, on_gpu=False, head=9
    )
    assert memory.optimizer == 8 * (ADAPTERS + 9)


@pytest.mark.parametrize(("stage", "gradients"), [(2, 0), (3, 1000)])
def test_an_offloaded_optimiser_is_in_the_nodes_memory(stage, gradients):
    memory = memory_of(stage, "bfloat16", on_gpu=True, offload_optimizer=True)
    assert (memory.gradients, memory.optimizer, memory.update) == (gradients, 0, 0)
    assert memory.host == 16 * 500
    kept = memory_of(stage, "bfloat16", on_gpu=True)
    assert (kept.host, kept.optimizer) == (0, 12 * 500)


def test_the_weights_of_an_offloading_learner_agree_with_deepspeeds_own_estimate():
    # estimate_zero2_model_states_mem_needs(1000, 2, 1, True)[1]: two bytes a parameter stay on the GPU
    memory = memory_of(2, "bfloat16", on_gpu=True, offload_optimizer=True)
    assert memory.weights + memory.gradients + memory.optimizer + memory.update == 2000


def test_on_a_cpu_offloading_changes_nothing():
    assert memory_of(2, "float32", offload_optimizer=True) == memory_of(2, "float32")


def test_stage_2_in_bfloat16_agrees_with_deepspeeds_own_estimate():
    # deepspeed.runtime.zero.stage_1_and_2.estimate_zero2_model_states_mem_needs(1000, 2, 1, False)[1]
    memory = memory_of(2, "bfloat16")
    assert memory.weights + memory.gradients + memory.optimizer + memory.update == 11000


@pytest.mark.parametrize(("stage", "buffers"), [(0, 0), (1, 0), (2, 10**9), (3, 10**9 + 2 * (1000 + 80))])
def test_the_buffers_of_zero_on_a_gpu_in_bfloat16(stage, buffers):
    assert memory_of(stage, "bfloat16", on_gpu=True).buffers == buffers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "more"), [ARCHITECTURES[0], ARCHITECTURES[1], ARCHITECTURES[3]])
def test_a_layers_activations_are_the_tensors_that_autograd_saves(kind, more, dtype):
    tokens = 32

    def saved(layers: int) -> int:
        config = kind(**{**SMALL, **more, "num_hidden_layers": layers})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype).train()
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model.base_model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        assert output.last_hidden_state.requires_grad
        return sum(storage.nbytes() for storage in kept.values())

    per_layer = saved(3) - saved(2)
    shape = shape_of(kind(**{**SMALL, **more}))
    assert per_layer == tokens * layer_activations(shape, 4 if dtype == torch.float32 else 2)


def test_checkpointing_keeps_the_input_of_every_layer_and_one_layer():
    assert layer_activations(TINY, 2) == 128 + 8 + 48 + 8 + 128  # norms, scales, attention, its sums, MLP
    with_all = memory_of(3, "bfloat16")
    checkpointed = memory_of(3, "bfloat16", gradient_checkpointing=True)
    outside = 8 * 8 + 2 * 2 * (16 + 8)  # last norm; gradients inside a layer
    assert with_all.activations == 100 * (2 * 320 + outside)
    assert checkpointed.activations == 100 * (2 * 2 * 8 + 320 + outside)


def test_a_row_longer_than_the_token_budget_counts_whole():
    learner = LearnerConfig(tokens_per_microbatch=10)
    memory = learner_memory(
        TINY, 1000, learner, dtype="float32", context_tokens=64, logit_bytes=16, on_gpu=False
    )
    assert memory.logits == 64 * 10 * 16


def test_the_peak_is_the_states_and_the_largest_phase():
    memory = Memory(1, context=2, gradients=3, optimizer=4, activations=5, logits=6, buffers=7, update=9)
    assert memory.total == 10 + 18
    assert Memory(1, context=0, activations=5, gathered=20).total == 21


@pytest.mark.parametrize(
    ("gradient", "entropy", "entropy_gradient", "bytes_per_logit"),
    [
        (True, True, True, LOGITS_ENTROPY_GRADIENT),
        (True, True, False, LOGITS_ENTROPY),
        (True, False, False, LOGITS_TRAIN),
        (False, False, False, LOGITS_FORWARD),
    ],
)
def test_the_bytes_per_logit_are_those_of_a_real_pass(gradient, entropy, entropy_gradient, bytes_per_logit):
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    from airls_ray.models.modules import PolicyModule

    class Peak(TorchDispatchMode):
        """Follows the bytes of all live storages."""

        def __init__(self) -> None:
            super().__init__()
            self.live: dict[int, int] = {}
            self.peak = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for tensor in tree_iter(result):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.live:
                    storage = tensor.untyped_storage()
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
            self.peak = max(self.peak, sum(self.live.values()))
            return result

    tokens, vocab = 64, 4096
    config = Qwen2Config(**{**SMALL, "vocab_size": vocab, "num_hidden_layers": 1}, tie_word_embeddings=False)
    module = PolicyModule(AutoModelForCausalLM.from_config(config).to(torch.bfloat16).train())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    index = torch.arange(tokens)
    inputs = {"input_ids": index[None], "position_ids": index[None], "predict_index": index, "targets": index}
    mask = torch.ones(1, tokens, dtype=torch.long)
    peak = Peak()
    with peak, torch.set_grad_enabled(gradient):
        logprobs, entropies = module(
            **inputs, attention_mask=mask, entropy=entropy, entropy_gradient=entropy_gradient
        )
        if gradient:
            (logprobs.sum() + (entropies.sum() if entropy_gradient else 0)).backward()
    # The rest of so small a model is below two bytes a logit.
    assert bytes_per_logit <= peak.peak / tokens / vocab < bytes_per_logit + 2


def test_the_cache_of_an_engine_is_what_its_share_of_the_gpu_leaves():
    engine = EngineConfig(gpu_memory_utilization=0.5, max_sequences=256)
    memory = engine_memory(SEVEN_B, engine, dtype="bfloat16", context_tokens=4096, gpu_memory=80 * GIB)
    assert memory.weights == 15_231_233_024
    assert memory.total == 40 * GIB
    assert memory.cache == 40 * GIB - memory.weights - memory.workspace
    assert cache_bytes_per_token(SEVEN_B, 2) == 57_344  # 2 x 28 layers x 4 heads x 128 x 2 bytes
    assert memory.sequences == memory.cache // (4096 * 57_344)


def test_tensor_parallel_engines_share_weights_and_repeat_key_heads():
    assert cache_bytes_per_token(SEVEN_B, 2, 4) == 57_344 // 4
    assert cache_bytes_per_token(SEVEN_B, 2, 8) == 57_344 // 4
    engine = EngineConfig(tensor_parallel=4)
    memory = engine_memory(SEVEN_B, engine, dtype="bfloat16", context_tokens=4096, gpu_memory=80 * GIB)
    assert memory.weights == 2 * 7_615_616_512 // 4


def test_an_engine_on_a_cpu_has_a_cache_of_its_own():
    engine = EngineConfig(kv_cache_gib=0.25)
    memory = engine_memory(TINY, engine, dtype="float32", context_tokens=64, gpu_memory=None)
    assert memory.cache == GIB // 4
    assert memory.sequences == GIB // 4 // (64 * 64)


# ----------------------------------------------------------------------------------- placement
def test_actors_go_on_the_first_node_with_room_and_the_largest_first():
    demands = [ActorDemand("small", 3, 1, 1), ActorDemand("large", 2, 2, 4), ActorDemand("none", 1, 0.5, 0)]
    placement = place(demands, gpus_per_node=6)
    assert [dict(node.actors) for node in placement.nodes] == [
        {"large": 1, "small": 2, "none": 1},
        {"large": 1, "small": 1},
    ]
    assert [node.cpus for node in placement.nodes] == [4.5, 3]


def test_shares_of_a_gpu_go_together_and_whole_ones_do_not():
    placement = place([ActorDemand("half", 3, 0, 0.5), ActorDemand("whole", 1, 0, 1)], gpus_per_node=3)
    assert placement.nodes[0].gpus == [["whole"], ["half", "half"], ["half"]]


def test_an_actor_that_never_fits_is_a_sentence():
    placement = place([ActorDemand("rollout worker", 1, 1, 16), ActorDemand("rank", 1, 1, 1)], 8)
    assert placement.never == (
        "a rollout worker can never be placed: it needs 16 GPUs of one node, and a node has 8",
    )
    assert dict(placement.nodes[0].actors) == {"rank": 1}


def test_a_share_above_one_gpu_is_refused_as_ray_does():
    assert "Ray gives whole GPUs above 1" in place([ActorDemand("rank", 1, 1, 1.5)], 8).never[0]


# ---------------------------------------------------------------------------------------- plan
def plan_of(*overrides: str) -> Plan:
    return make_plan(load_config(None, ["model.path=Qwen/Qwen2.5-3B-Instruct", *overrides]))


def test_the_actors_are_those_that_training_starts():
    from actors.start import demands

    for overrides in ([], ["method=grpo"], ["method=prime"], ["method=pure", "prm.learner.ranks=2"]):
        config = load_config(None, [*overrides, "rollout.min_workers=2", "rollout.max_workers=2"])
        asked = {one.name: (one.count, one.resources.cpus) for one in demands(config)}
        assert {one.name: (one.count, one.cpus) for one in make_plan(config).demands} == asked


def test_an_engine_over_several_gpus_stands_on_one_node():
    plan = plan_of("rollout.engine.tensor_parallel=4", "rollout.resources.gpus=4", "policy.resources.gpus=1")
    workers = [gpu for gpu in plan.placement.nodes[0].gpus if gpu == ["rollout worker"]]
    assert len(workers) == 4


def test_the_sizes_of_an_iteration():
    sizes = plan_of(
        "train.problems_per_iteration=8", "train.rollouts_per_problem=4", "model.context_tokens=100",
        "method.updates_per_iteration=2", "train.iterations=10", "policy.ranks=2",
        "policy.tokens_per_microbatch=300", "prm.replay_iterations=1", "prm.warmup_iterations=5",
    ).sizes  # fmt: skip
    assert sizes["most tokens per iteration (with prompts)"] == 3200
    assert sizes["most tokens per policy update"] == 1600
    assert sizes["policy micro-batches per update and rank"] == 3
    assert sizes["policy updates in all"] == 20
    assert sizes["PRM sequences per iteration (at most)"] == 80  # (32 rollouts + 8 traces), as many old
    assert sizes["PRM updates in all"] == 30


def test_bytes_of_a_sync_and_of_a_checkpoint():
    sizes = plan_of("model.dtype=bfloat16", "prm.parameterisation=scalar_head").sizes
    policy, prm = 3_085_938_688, 3_085_938_688 + 2049  # the head has 2,048 weights and a bias
    assert sizes["GiB per weight sync"] == 2 * policy / GIB
    assert sizes["GiB per checkpoint"] == pytest.approx(14 * (policy + prm) / GIB)


def test_a_method_without_a_prm_plans_none():
    plan = plan_of("method=grpo")
    assert set(plan.memory) == {"policy learner"}
    assert not any("PRM" in name and "sequences" in name for name in plan.sizes)


def test_a_frozen_prm_is_one_server_without_an_optimiser():
    plan = plan_of("method=pure", "prm.learner.ranks=3")
    assert [one.count for one in plan.demands if one.name == "PRM"] == [1]
    assert plan.memory["PRM"].optimizer == 0


# ------------------------------------------------------------------------------------ warnings
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=pure"], "method pure needs a trained PRM: set prm.path"),
        (["policy.resources.gpus=1", "model.dtype=float32"], "the GPU of policy learner needs about"),
        (["rollout.engine.tensor_parallel=2", "rollout.resources.gpus=1"], "rollout.resources.gpus is 1"),
        (["rollout.engine.tensor_parallel=3", "rollout.resources.gpus=3"], "must divide the model's 16"),
        (["rollout.engine.weight_transfer=nccl"], "needs GPUs for rollout workers and policy learner"),
        (["model.dtype=bfloat16"], "train.sync_tolerance is 0.0001 nats"),
        (["ray.object_store_gib=5"], "a weight sync puts 11.5 GiB into the object store"),
        (["policy.resources.gpus=2"], "a rank of a learner uses one GPU"),
        (["policy.lora.rank=2", "policy.lora.target_modules=[wq]"], "policy.lora.target_modules names wq"),
        (["rollout.resources.gpus=1", "model.context_tokens=40000"], "the policy takes 32768 tokens"),
        (["rollout.engine.kv_cache_gib=0.001"], "no room for one sequence"),
        (["rollout.resources.gpus=16"], "it needs 16 GPUs of one node"),
        (["rollout.resources.gpus=0.9", "policy.resources.gpus=0.1"], "give each a GPU of its own"),
    ],
)
def test_what_a_run_would_stumble_over_is_said(overrides, words):
    assert words in " | ".join(plan_of(*overrides).warnings)


def test_a_checkpoint_with_lora_has_states_of_the_adapters_alone():
    def gib(*overrides: str) -> float:
        return plan_of("method=grpo", *overrides).sizes["GiB per checkpoint"]

    adapters = 36 * 4 * (2048 + 2048)  # layers, rank, inputs and outputs of the queries' projection
    lora = ["policy.lora.rank=4", "policy.lora.target_modules=[q_proj]"]
    assert gib() * GIB == pytest.approx(3_085_938_688 * (4 + 12))
    assert gib(*lora) * GIB == pytest.approx(3_085_938_688 * 4 + adapters * (4 + 12))


def test_a_run_without_a_policy_to_start_from_is_told(tmp_path):
    config = load_config(None, [f"output={tmp_path}"])
    assert any("run `airls-ray sft` first" in one for one in make_plan(config).warnings)
    (tmp_path / "run" / "sft").mkdir(parents=True)
    assert not make_plan(config).warnings


def test_planning_imports_neither_torch_nor_ray():
    code = (
        "import sys; from airls_ray.config import Config; from airls_ray.planning import make_plan; "
        "make_plan(Config()); print(sorted({'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_model_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        make_plan(Config.model_validate({"model": {"path": str(tmp_path)}}))
