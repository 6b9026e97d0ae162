"""How much memory the actors of a run take, per GPU (or per process on a CPU). All sizes in bytes.

Exact: weights, gradients, master weights and AdamW states (sizes follow from the parameter count and from
what DeepSpeed 0.19 keeps). Estimates: activations, logits, buffers and `CONTEXT`; they are upper ones, for
a full micro-batch in which every token is a response token. Fragmentation of the allocator is not counted.

Sources: ZeRO, arXiv 1910.02054, section 3 (2 + 2 + 12 bytes a parameter in mixed precision) and DeepSpeed's
own `estimate_zero2_model_states_mem_needs` (2 P + 18 P / ranks, with gradients summed in bfloat16);
activations after Korthikanti et al., arXiv 2205.05198, section 4, counted anew for gated MLPs and grouped
attention without a score matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

from airls_ray.config.model_sections import LOGIT_CHUNK_MIB, logit_chunk_tokens
from airls_ray.config.schema import EngineConfig, LearnerConfig
from airls_ray.planning.shapes import ModelShape

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
MOMENTS = 8  # AdamW's two, in fp32 whatever the weights are
MUON_SAVES = 4  # Muon has one, of the layers' matrices
CONTEXT = GIB  # CUDA context, NCCL and kernels of one process; on a CPU its libraries
BUCKET = 500_000_000  # DeepSpeed's default reduce_bucket_size, in elements
LIVE = 1_000_000_000  # its default stage3_max_live_parameters and sub_group_size, in elements

# Bytes per logit that live at once in `PolicyModule` (counted on a real forward and backward pass)
LOGITS_ENTROPY_GRADIENT = 20
LOGITS_ENTROPY = 16
LOGITS_TRAIN = 12
LOGITS_FORWARD = 8


@dataclass(frozen=True)
class Memory:
    """What one actor holds; `total` is its largest moment."""

    weights: int
    context: int = CONTEXT
    gradients: int = 0
    optimizer: int = 0
    """fp32 master weights and the optimiser's moments."""
    activations: int = 0
    logits: int = 0
    buffers: int = 0
    """Of ZeRO in the backward pass: buckets, and under stage 3 gathered weights."""
    update: int = 0
    """fp32 gradients of the optimiser's step."""
    gathered: int = 0
    """Whole copy of the weights at a weight sync (rank 0) and a checkpoint, under stage 3 and with LoRA."""
    host: int = 0
    """What an offloaded optimiser keeps in the node's memory; no part of `total`."""

    @property
    def states(self) -> int:
        """What stays: weights, gradients, optimiser, context."""
        return self.weights + self.gradients + self.optimizer + self.context

    @property
    def total(self) -> int:
        """States and the largest of the three phases: forward and backward, optimiser step, sync."""
        passes = self.activations + self.logits + self.buffers
        return self.states + max(passes, self.update, self.gathered)


@dataclass(frozen=True)
class EngineMemory:
    """What one rollout engine holds on each of its GPUs."""

    weights: int
    workspace: int
    """Context, activations of the largest prefill and logits of all sequences (estimate)."""
    cache: int
    """Left for keys and values; negative where the rest does not fit."""
    sequences: int
    """Sequences of full length that the cache holds."""
    total: int
    """What vLLM claims."""


def layer_activations(shape: ModelShape, width: int) -> int:
    """Bytes that autograd keeps of one layer, per token; `width` is the bytes of a value.

    Per layer: two RMS norms (input in fp32, normalised, output: 4 + 2 w, and an fp32 scale each), queries,
    attention output, keys and values (w each; no score matrix: attention is fused, and its log-sum-exp takes
    4 bytes a head), four times the width of the MLP (gate, its activation, up, product; w each). Qwen3's
    norms of queries and keys keep 4 + w and a scale per head. Equal to the saved tensors of transformers'
    models (tests/unit/test_planning.py).
    """
    heads = shape.q_width + shape.kv_width
    size = 2 * (4 + 2 * width) * shape.hidden + 8
    size += 2 * width * heads + 4 * shape.heads
    size += 4 * width * shape.intermediate
    if shape.qk_norm:
        size += (4 + width) * heads + 4 * (shape.heads + shape.kv_heads)
    return size


def train_activations(shape: ModelShape, width: int, checkpointing: bool) -> int:
    """Bytes of activations per token of a micro-batch at the backward pass of a layer.

    With checkpointing: the input of every layer and one layer recomputed (Korthikanti et al., section 5).
    Both: the last norm, and the gradients inside one layer (about two MLP widths and two widths).
    """
    layer = layer_activations(shape, width)
    held = shape.layers * width * shape.hidden + layer if checkpointing else shape.layers * layer
    return held + (4 + 2 * width) * shape.hidden + 2 * width * (shape.intermediate + shape.hidden)


def adapter_activations(shape: ModelShape, width: int, learner: LearnerConfig) -> int:
    """Bytes of A x per token that the adapters keep (x itself is counted with the layer)."""
    kept = sum(name in shape.linear_layers for name in learner.lora.target_modules)
    layers = 1 if learner.gradient_checkpointing else shape.layers
    return layers * kept * learner.lora.rank * width


def logit_memory(
    shape: ModelShape, tokens: int, logit_bytes: int, chunk_mib: int, weight_bytes: int = 0
) -> int:
    """Bytes of the logits of `tokens` tokens: of all, or of one chunk where they are more than that.

    With chunks the output layer's gradient (`weight_bytes` a weight, 0 where it does not learn) is summed
    beside them, in fp32, from those of the chunks.
    """
    most = logit_chunk_tokens(shape.vocab, chunk_mib)
    if most is None or tokens <= most or not logit_bytes:
        return tokens * shape.vocab * logit_bytes
    gradients = (4 + weight_bytes) * shape.vocab * shape.hidden if weight_bytes else 0
    return most * shape.vocab * logit_bytes + gradients


def learner_memory(
    shape: ModelShape,
    parameters: int,
    learner: LearnerConfig,
    *,
    dtype: str,
    context_tokens: int,
    logit_bytes: int,
    on_gpu: bool,
    head: int = 0,
) -> Memory:
    """Return the memory of one rank of a DeepSpeed learner as `actors/learn/deepspeed_engine.py` sets it up.

    With P parameters of w bytes, N ranks (bfloat16 has at least stage 1; 12 P / N are fp32 masters,
    which fp32 weights have too, and two moments, of which Muon has one for the layers' matrices; sizes
    seen in the tensors of two real ranks on a CPU):
    stage 0 (fp32 only): weights, gradients 4 P each, moments 8 P.
    stage 1 bfloat16 (BF16_Optimizer): weights 2 P, gradients 2 P and summed in fp32 4 P, 12 P / N.
    stage 1 fp32: weights and gradients w P each, 12 P / N, a copy of the own gradients at the step.
    stage 2: weights w P, gradients summed in fp32 4 P / N, 12 P / N, fp32 gradients 4 P / N at the step.
    stage 3: weights w P / N, gradients summed in fp32 4 P / N, 12 P / N, fp32 gradients of one sub-group at
    the step, at most 1e9 gathered weights and the gradient of the largest matrix in the backward pass, all
    weights at a sync.
    Stages 1 to 3 hold a bucket of 5e8 gradients (not stage 1 in bfloat16, which reduces in place).

    With LoRA gradients, masters and moments are those of the L parameters that learn; the weights are P + L,
    and a sync merges them into a copy of P. An optimiser that is offloaded from a GPU leaves no masters,
    moments and fp32 gradients there, under stage 2 no gradients at all (DeepSpeed's own estimates with
    cpu_offload: `estimate_zero2_model_states_mem_needs`, `estimate_zero3_model_states_mem_needs`); it takes
    16 bytes a parameter that learns, over N, in the node's memory.

    Args:
        shape: of the network.
        parameters: P.
        learner: ranks, stage, micro-batches, checkpointing, LoRA, offload.
        dtype: of the weights.
        context_tokens: longest row; one that is longer than the token budget is a micro-batch alone.
        logit_bytes: bytes per logit at the peak, 0 where there are none.
        on_gpu: whether empty buffers take memory (on a CPU only what is touched does).
        head: parameters of a scalar head, which learn beside adapters.
    """
    width, ranks = BYTES[dtype], learner.ranks
    mixed = width == 2
    stage = max(learner.zero_stage, 1) if mixed else learner.zero_stage
    lora = bool(learner.lora.rank)
    adapters = shape.adapter_parameters(learner.lora.rank, learner.lora.target_modules)
    learns, weights = (adapters + head, parameters + adapters) if lora else (parameters, parameters)
    share = -(-learns // ranks)
    masters = 4 * share if stage else 0
    moments = MOMENTS * (share if stage else learns)
    if learner.optimizer == "muon":
        moments -= MUON_SAVES * (shape.layer_matrices // ranks if stage else shape.layer_matrices)
    gradients = 4 * share if stage >= 2 else width * learns
    update = 4 * (min(share, LIVE) if stage == 3 else share) if stage else 0
    bucket = width * (BUCKET if on_gpu else min(BUCKET, learns)) if stage else 0
    if stage == 1 and mixed:
        gradients, update, bucket = 6 * learns, 0, 0
    if stage == 3:
        largest = 0 if lora else shape.vocab * shape.hidden  # whose gradient is whole for a moment
        bucket += width * (min(weights, LIVE) + largest)
    host = 0
    if learner.offload_optimizer and on_gpu:
        host, masters, moments, update = masters + moments + 4 * share, 0, 0, 0
        gradients = width * share if stage == 3 else 0  # the sums are with the optimiser
    tokens = max(learner.tokens_per_microbatch, context_tokens)
    return Memory(
        weights=width * (-(-weights // ranks) if stage == 3 else weights),
        gradients=gradients,
        optimizer=masters + moments,
        activations=tokens
        * (
            train_activations(shape, width, learner.gradient_checkpointing)
            + adapter_activations(shape, width, learner)
        ),
        logits=logit_memory(shape, tokens, logit_bytes, learner.logit_chunk_mib, 0 if lora else width),
        buffers=bucket,
        update=update,
        gathered=width * parameters if stage == 3 or lora else 0,
        host=host,
    )


def inference_memory(
    shape: ModelShape, parameters: int, *, dtype: str, tokens: int, logit_bytes: int
) -> Memory:
    """Return the memory of a model that only runs forward (reference server, a frozen PRM).

    Args:
        shape: of the network.
        parameters: how many it has.
        dtype: of the weights.
        tokens: of one micro-batch.
        logit_bytes: bytes per logit, 0 where there are none.
    """
    width = BYTES[dtype]
    return Memory(
        weights=width * parameters,
        activations=tokens * width * (3 * shape.intermediate + 4 * shape.hidden),
        logits=logit_memory(shape, tokens, logit_bytes, LOGIT_CHUNK_MIB),
    )


def cache_bytes_per_token(shape: ModelShape, width: int, tensor_parallel: int = 1) -> int:
    """Bytes of one token's keys and values on one GPU; key heads fewer than GPUs are repeated."""
    heads = max(shape.kv_heads // tensor_parallel, 1)
    return 2 * shape.layers * heads * shape.head_dim * width


def engine_memory(
    shape: ModelShape,
    engine: EngineConfig,
    *,
    dtype: str,
    context_tokens: int,
    gpu_memory: int | None,
) -> EngineMemory:
    """Return the memory of a vLLM engine as `actors/rollout/vllm_engine.py` starts it.

    On a GPU: `gpu_memory_utilization` of it less the engine's share of the weights and the workspace of
    vLLM's largest prefill (16,384 tokens from 70 GiB on, else 8,192: `EngineArgs.get_batch_defaults` of
    vLLM 0.32) is the cache. On a CPU (`gpu_memory` None) the cache has a size of its own.
    """
    width = BYTES[dtype if engine.dtype == "auto" else engine.dtype]
    parallel = engine.tensor_parallel
    weights = width * -(-shape.parameters // parallel)
    batched = 4096 if gpu_memory is None else 16384 if gpu_memory >= 70 * GIB else 8192
    workspace = CONTEXT + batched * width * (3 * shape.intermediate // parallel + 3 * shape.hidden)
    workspace += engine.max_sequences * shape.vocab * LOGITS_TRAIN
    if gpu_memory is None:
        cache = int(engine.kv_cache_gib * GIB)
        total = weights + workspace + cache
    else:
        total = int(gpu_memory * engine.gpu_memory_utilization)
        cache = total - weights - workspace
    per_sequence = context_tokens * cache_bytes_per_token(shape, width, parallel)
    return EngineMemory(weights, workspace, cache, max(cache // per_sequence, 0), total)
