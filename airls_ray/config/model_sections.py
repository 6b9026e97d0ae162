"""Settings of models, of the resources of an actor and of the learners."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

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

_SET_BY_US = frozenset(
    {
        "messages", "conversation", "conversations", "chat_template", "add_generation_prompt",
        "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors",
        "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
    }
)  # fmt: skip
"""Arguments of `apply_chat_template` that say what it is called with and what it returns."""
LOGIT_CHUNK_MIB = 512
"""[C] `logit_chunk_mib` of a learner, and of every model that only runs forward (reference, scorers)."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
_Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
TopP = Annotated[float, Field(gt=0.0, le=1.0)]
TopK = Annotated[int, Field(ge=-1, lt=2**31)]


def logit_chunk_tokens(vocabulary: int, chunk_mib: int) -> int | None:
    """Tokens (at least one) whose fp32 logits fill a chunk of `chunk_mib` MiB; None for 0: no chunks."""
    return max(chunk_mib * 2**20 // (4 * vocabulary), 1) if chunk_mib else None


class ModelConfig(StrictModel):
    """The policy: a folder or hub name in Hugging Face format, or the size of a new Qwen3 model."""

    path: str | None = None
    """Model folder or hub name; null makes a model from scratch (then run `sft`)."""
    vocabulary: NonNegativeInt = 0
    """For a new model of a task without words of its own (file): size of a byte-level BPE tokenizer that is
    trained on the training problems; 0: none is."""
    trust_remote_code: bool = False
    """Whether code inside the model folder may run."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of weights in the learners and in the engines."""
    attention: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"] = "auto"
    """Attention of the models that this project runs itself (not the engines'). `auto`: in bfloat16 on a GPU
    `flash_attention_2` where the package flash-attn is installed; elsewhere PyTorch's fused one (`sdpa`), or
    plain products (`eager`) where those are faster or needed. With flash attention, and with
    `flex_attention` (by name; needs Triton), `layout: auto` packs rows instead of padding them."""
    prompt_template: Literal["plain", "chat"] = "plain"
    """`chat`: wrap the prompt by the tokenizer's chat template."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keywords for the chat template (`prompt_template: chat`), such as {enable_thinking: false}, wherever it
    is applied; one that the template does not use changes nothing."""
    hidden_size: PositiveInt = 128
    """For a new model: width."""
    layers: PositiveInt = 4
    """For a new model: number of transformer layers."""
    heads: PositiveInt = 4
    """For a new model: number of attention heads (and key-value heads) of `head_dim` each."""
    head_dim: Literal[32, 64, 96, 128] = 32
    """For a new model: width of a head (the sizes that vLLM's CPU attention takes)."""
    intermediate_size: PositiveInt = 384
    """For a new model: width of the MLP."""
    tie_embeddings: bool = False
    """For a new model: whether the output layer shares the input embeddings."""
    context_tokens: PositiveInt = 256
    """Longest prompt and response together, in tokens."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_for_the_template(cls, given: dict[str, Any]) -> dict[str, Any]:
        taken = next((name for name in given if name in _SET_BY_US), None)
        if taken is not None:
            raise ValueError(f"must hold variables of the template, but {taken} is set by this program")
        try:
            json.dumps(given, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"must hold texts, numbers, lists and the like ({error})") from None
        return given

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.chat_template_kwargs and self.prompt_template != "chat":
            raise ValueError("chat_template_kwargs are for a chat template: set prompt_template=chat")
        if self.attention == "flash_attention_2" and self.dtype != "bfloat16":
            raise ValueError("attention=flash_attention_2 needs dtype=bfloat16, but it is float32")
        return self


class Resources(StrictModel):
    """What one actor asks of Ray, and how many threads it computes with."""

    cpus: NonNegativeFloat = 0.25
    """Ray CPUs per actor: a share is fine, since the synchronous loop runs one stage at a time."""
    gpus: NonNegativeFloat = 0.0
    """Ray GPUs per actor (per rank of a learner); a fraction colocates several on one GPU."""
    threads: NonNegativeInt = 0
    """OpenMP threads of the process; 0 means all cores of the node divided by the ranks."""
    custom: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom Ray resources, for example {"rollout": 1} to pin a node type."""


class LoraConfig(StrictModel):
    """Low-rank adapters (LoRA, arXiv 2106.09685): of W + alpha / rank * B A only A and B learn."""

    rank: NonNegativeInt = 0
    """Rank of A and B; 0 turns LoRA off, and all weights learn."""
    alpha: PositiveFloat = 32.0
    """Scale: the product of the adapters counts alpha / rank times."""
    dropout: NonNegativeFloat = 0.0
    """Must be 0: old and new log-probabilities must come from the same network."""
    target_modules: list[Annotated[str, Field(pattern=r"^\w+$")]] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )
    """Names of the linear layers, inside the transformer layers, that get adapters."""

    @model_validator(mode="after")
    def _fits(self) -> LoraConfig:
        if self.dropout:
            raise ValueError(
                f"lora.dropout must be 0, but is {self.dropout:g}: with dropout the old and the new "
                "log-probabilities would come from different networks"
            )
        return self


class LearnerConfig(StrictModel):
    """A DeepSpeed learner: optimiser, sharding and micro-batches."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the matrices of the layers, AdamW for embeddings, output layer, heads and vectors. Its
    step has the size of AdamW's, so the settings below serve both. On a CPU it needs a C++ compiler."""
    learning_rate: PositiveFloat = 2e-4
    """Learning rate after warm-up."""
    lr_warmup_updates: NonNegativeInt = 0
    """Updates over which the learning rate rises linearly from 0."""
    lr_decay_updates: NonNegativeInt = 0
    """Updates (counted from the first) over which the learning rate falls linearly to a tenth; 0: flat."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay, in units of the learning rate."""
    adam_betas: tuple[_Decay, _Decay] = (0.9, 0.95)
    """AdamW beta 1 and beta 2, below 1."""
    gradient_clip: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    tokens_per_microbatch: PositiveInt = 16384
    """Token budget (padding counted) of one forward and backward pass of one rank."""
    layout: Literal["auto", "padded", "packed"] = "auto"
    """`padded`: rows of similar length, padded. `packed`: one row, variable-length attention.
    `auto`: packed on a GPU with flash or flex attention, where the model keeps the rows apart, else padded
    (on a CPU measured, benchmarks/packing.py)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    logit_chunk_mib: NonNegativeInt = LOGIT_CHUNK_MIB
    """Largest part of a language model's logits (response tokens x vocabulary x 4 bytes) that is computed at
    once, in MiB. More are computed in parts, and again in the backward pass; 0: all at once."""
    compile: bool = False
    """Fuse each layer's kernels with torch.compile: a minute at the start, then 1.5 times as fast on a CPU.
    Needs a C++ compiler there."""
    ranks: PositiveInt = 1
    """Data-parallel processes."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage: what is sharded over the ranks."""
    offload_optimizer: bool = False
    """Keep optimiser states in the node's memory and step there (ZeRO-Offload); needs `zero_stage` 2 or 3.
    Frees GPU memory at the price of slower steps; on a CPU it changes nothing."""
    lora: LoraConfig = LoraConfig()
    """Train low-rank adapters in place of all weights; engines get the merged weights, or the adapter
    (`rollout.engine.lora`)."""
    resources: Resources = Resources()
    """Per rank."""

    @model_validator(mode="after")
    def _offload_fits(self) -> LearnerConfig:
        if self.offload_optimizer and self.zero_stage < 2:
            raise ValueError(
                f"offload_optimizer needs zero_stage 2 or 3, but it is {self.zero_stage}: set zero_stage=2 "
                "(with one rank, too)"
            )
        return self

    def check_muon(self, where: str, dtype: str) -> None:
        """Raise ValueError where `optimizer=muon` does not go with the rest; `where` names the section."""
        if self.optimizer != "muon":
            return
        if self.lora.rank:
            raise ValueError(
                f"{where}.optimizer=muon is for whole matrices, but lora.rank is {self.lora.rank}: set "
                "optimizer=adamw, or lora.rank=0"
            )
        # At the others DeepSpeed clips what Muon made of the gradients, which leaves next to nothing.
        if self.zero_stage > (1 if dtype == "bfloat16" else 0):
            raise ValueError(
                f"{where}.optimizer=muon needs zero_stage 0, or 1 with model.dtype=bfloat16, but zero_stage "
                f"is {self.zero_stage} and model.dtype {dtype}"
            )


class SFTLearnerConfig(LearnerConfig):
    """The learner of the warm start, with its own defaults (a subclass, so that a file that sets one key
    of the section keeps the others)."""

    learning_rate: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    lr_warmup_updates: NonNegativeInt = 50
    """Updates over which the learning rate rises linearly from 0."""

    @model_validator(mode="after")
    def _trains_all_weights(self) -> SFTLearnerConfig:
        if self.lora.rank:
            raise ValueError(
                f"lora.rank must be 0 in sft.learner, but is {self.lora.rank}: the warm start trains all "
                "weights; LoRA is for policy.lora and prm.learner.lora"
            )
        return self


class PRMLearnerConfig(LearnerConfig):
    """The learner of the PRM, with its own defaults."""

    learning_rate: PositiveFloat = 3e-4
    """Learning rate after warm-up."""


class VerifierResources(Resources):
    """Of the actor that owns the grading processes: next to nothing."""

    cpus: NonNegativeFloat = 0.1
    """Ray CPUs of the actor."""
    threads: NonNegativeInt = 1
    """OpenMP threads of the process; 0 means all cores of the node."""
