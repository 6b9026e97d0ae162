"""Estimated memory of learners and engines, against real models and DeepSpeed's own estimates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Qwen3Config,
)

from airls_ray.config.schema import EngineConfig, LearnerConfig
from airls_ray.planning.memory import (
    GIB,
    Memory,
    cache_bytes_per_token,
    engine_memory,
    layer_activations,
    learner_memory,
)
from tests.unit.model_shapes import ARCHITECTURES, SEVEN_B, SMALL, TINY, shape_of


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
        ("bfloat16", 2, 2000, 2000, 6000, 2000, 0),
        ("bfloat16", 3, 1000, 2000, 6000, 2000, 2000),
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
        ("bfloat16", 3, 1320, 640, 1920, 640, 2000),
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
    # says 11000 with gradients summed in bfloat16: two bytes less for each of this rank's 500.
    assert memory.weights + memory.gradients + memory.optimizer + memory.update == 11000 + 2 * 500


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
