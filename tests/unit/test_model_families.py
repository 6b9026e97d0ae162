"""Log-probabilities as each family of models gives them itself: its caps, its scales, its windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GptOssConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from airls_ray.config.schema import PRMConfig
from airls_ray.errors import ModelError
from airls_ray.learning.batches import Sequences
from airls_ray.learning.engine import FrozenEngine, resolve_layout
from airls_ray.models.load import load_policy_module, save_hf
from airls_ray.prm.heads import load_backbone, token_pair_head
from airls_ray.prm.prefix_scores import PrefixScorer
from airls_ray.search.scoring import Continuation
from airls_ray.tensors import make_batch
from tests.tiny import make_rollouts

SIZES: dict[str, Any] = {
    "vocab_size": 12, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
WINDOW = {"head_dim": 8, "sliding_window": 4}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "mistral": lambda: MistralConfig(**SIZES, **WINDOW),
    # Caps so low that they bite at this size; the real ones are 30 (logits) and 50 (attention).
    "gemma2": lambda: Gemma2Config(
        **SIZES, **WINDOW, final_logit_softcapping=2.0, attn_logit_softcapping=0.5, query_pre_attn_scalar=1
    ),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, **WINDOW, final_logit_softcapping=2.0),
    "phi3": lambda: Phi3Config(**SIZES, sliding_window=4),
    "olmo2": lambda: Olmo2Config(**SIZES),
    "granite": lambda: GraniteConfig(
        **SIZES, logits_scaling=8.0, embedding_multiplier=6.0, residual_multiplier=0.5
    ),
    "cohere": lambda: CohereConfig(**SIZES, logit_scale=0.25),
    # Not one of the ten: the same name as Granite's, and the other way round.
    "hyperclovax": lambda: HyperCLOVAXConfig(**SIZES, logits_scaling=0.25),
}
OTHERS: dict[str, Callable[[], Any]] = {
    # Keys are wider than values, and the router's biases are buffers, not parameters.
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4}, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=12, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
        moe_intermediate_size=16, first_k_dense_replace=1, n_group=1, topk_group=1,
    ),
    # Their layers carry a state from token to token.
    "lfm2": lambda: Lfm2Config(**SIZES, full_attn_idxs=[1], conv_L_cache=3),
    "qwen3_5": lambda: Qwen3_5TextConfig(
        **SIZES, head_dim=8, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"],
    ),
    "mamba2": lambda: Mamba2Config(**SIZES, num_heads=8, head_dim=8, state_size=8, n_groups=1),
    # PyTorch's fused attention leaves the sinks of its heads out.
    "gpt_oss": lambda: GptOssConfig(
        **SIZES, **WINDOW, num_local_experts=4, num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
    ),
    # Its layers have heads of several widths.
    "gemma4": lambda: Gemma4TextConfig(
        **SIZES, **WINDOW, global_head_dim=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=12,
        num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    ),
    # Its class names another backbone than it has.
    "llama4": lambda: Llama4TextConfig(
        **SIZES, head_dim=8, num_local_experts=2, intermediate_size_mlp=48, attention_chunk_size=8
    ),
    # It does not read off the positions where a row begins.
    "falcon": lambda: FalconConfig(**SIZES, new_decoder_architecture=True),
}  # fmt: skip
"""Families that are tested where they are unlike the others."""
TEMPERATURE = 0.7
EXACT = 1e-5
"""Nats, in fp32."""


def make_family(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config((FAMILIES | OTHERS)[name]())
    with torch.no_grad():  # spread out, so that scales and caps matter
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    return folder


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def own(folder: Path) -> Any:
    """The model by itself: float64, plain attention (the fused kernels leave Gemma 2's cap out)."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double()


def own_logprobs(model: Any, tokens: list[int]) -> torch.Tensor:
    """Log-probability of every token but the first."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0] / TEMPERATURE
    return logits.log_softmax(-1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_learner_has_the_models_own_log_probabilities(folder: Path, own: Any, layout: str) -> None:
    rollouts = make_rollouts(4, 1)
    sequences = Sequences.of(rollouts)
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    batch = make_batch(*columns, torch.arange(4), layout, pad_id=0)
    with torch.no_grad():
        found, _ = load_policy_module(folder)(**batch.model_inputs(), temperature=TEMPERATURE)
    expected = [
        own_logprobs(own, row["prompt"] + row["response"])[-len(row["response"]) :]
        for row in rollouts.to_pylist()
    ]
    torch.testing.assert_close(found.double(), torch.cat(expected), atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", ["gpt_oss", "gemma4"])
def test_auto_takes_an_attention_that_the_model_has(tmp_path: Path, name: str) -> None:
    folder = make_family(tmp_path, name)
    tokens = [5, 6, 7, 2, 3, 4, 8, 9]
    own = own_logprobs(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"), tokens)
    with torch.no_grad():
        found, _ = load_policy_module(folder)(
            torch.tensor([tokens]),
            torch.arange(8)[None],
            torch.arange(7),
            torch.tensor(tokens[1:]),
            torch.ones(1, 8, dtype=torch.long),
            temperature=TEMPERATURE,
        )
    torch.testing.assert_close(found, own, atol=EXACT, rtol=0)


def test_rows_of_a_packed_line_stay_apart(folder: Path) -> None:
    assert load_policy_module(folder).packs


@pytest.mark.parametrize("name", ["lfm2", "qwen3_5", "falcon"])
def test_a_model_whose_rows_would_see_each_other_is_not_packed(tmp_path: Path, name: str) -> None:
    engine = FrozenEngine(load_policy_module(make_family(tmp_path, name)))
    with pytest.raises(ModelError, match=r"layout=packed is not for .* set layout to auto or padded"):
        resolve_layout("packed", engine)


def test_auto_pads_a_model_whose_rows_would_see_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FrozenEngine(load_policy_module(make_family(tmp_path, "lfm2")))
    assert not engine.module.packs  # before the model is told of a kernel that this machine lacks
    monkeypatch.setattr(FrozenEngine, "device", torch.device("cuda"))
    engine.module.model.config._attn_implementation = "flash_attention_2"
    assert resolve_layout("auto", engine) == "padded"


def test_a_search_reads_the_same_log_probabilities_step_by_step(folder: Path, own: Any) -> None:
    scorer = PrefixScorer(
        load_policy_module(folder), PRMConfig(), temperature=TEMPERATURE, device=torch.device("cpu")
    )
    prompt, steps = (5, 6, 7), ((2, 3, 4), (8, 9), (10, 2, 11, 3))
    prefix, found = prompt, []
    for step in steps:
        scores, _ = scorer.score([Continuation(prefix, step, (len(step),), (0.0,), keep=len(step))])
        found += scores[0]
        prefix = (*prefix, *step)
    log_phi = own_logprobs(own, list(prefix))[len(prompt) - 1 :]
    expected = torch.stack([part.mean() for part in log_phi.split([len(step) for step in steps])])
    # A search sees the mean over a step's tokens.
    torch.testing.assert_close(torch.tensor(found).log().double(), expected, atol=3e-5, rtol=0)


def assert_search_reads_the_models_own(folder: Path) -> None:
    """Step by step, beside a longer solution of another problem."""
    own = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    scorer = PrefixScorer(
        load_policy_module(folder), PRMConfig(), temperature=TEMPERATURE, device=torch.device("cpu")
    )
    other = Continuation((3, 4), (5, 6, 7, 8, 9, 10, 11, 3), (8,), (0.0,))
    prompt, steps = (5, 6, 7), ((2, 3, 4), (8, 9), (10, 2, 11, 3))
    prefix, found = prompt, []
    for step in steps:
        one = Continuation(prefix, step, (len(step),), (0.0,), keep=len(step))
        found += scorer.score([one, other])[0][0]
        prefix = (*prefix, *step)
    log_phi = own_logprobs(own, list(prefix))[len(prompt) - 1 :]
    expected = torch.stack([part.mean() for part in log_phi.split([len(step) for step in steps])])
    torch.testing.assert_close(torch.tensor(found).log(), expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("name", ["lfm2", "qwen3_5", "mamba2"])
def test_a_search_reads_a_model_that_carries_a_state(tmp_path: Path, name: str) -> None:
    assert_search_reads_the_models_own(make_family(tmp_path, name))


def test_a_search_reads_a_model_whose_keys_are_wider_than_its_values(tmp_path: Path) -> None:
    assert_search_reads_the_models_own(make_family(tmp_path, "deepseek_v3"))


@pytest.mark.parametrize("name", ["gemma2", "granite", "cohere"])
def test_a_judgement_by_two_tokens_has_the_models_own_odds(tmp_path: Path, name: str) -> None:
    folder = make_family(tmp_path, name)
    backbone = load_backbone(folder, None, "float32")
    tokens = torch.tensor([[5, 6, 7, 8]])
    own = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        found = token_pair_head(folder, backbone, 3, 4)(backbone(input_ids=tokens).last_hidden_state[0])
        expected = own(input_ids=tokens).logits[0, :, [3, 4]]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_logits_that_are_changed_in_an_unknown_way_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_family(tmp_path, "llama")
    own = AutoModelForCausalLM.from_pretrained(folder)
    real = type(own).forward

    def squared(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = real(self, *args, **kwargs)
        output.logits = output.logits.square()
        return output

    monkeypatch.setattr(type(own), "forward", squared)
    with pytest.raises(ModelError, match=r"\(llama\) changes its logits .* take another model"):
        load_policy_module(folder)


def test_a_model_whose_backbone_is_not_found_is_refused(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "llama4")
    with pytest.raises(ModelError, match=r"\(llama4_text\) has no backbone .* take another model"):
        load_policy_module(folder)


def test_fused_attention_is_refused_where_the_model_caps_its_scores(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="attention=sdpa leaves out"):
        load_policy_module(make_family(tmp_path, "gemma2"), attention="sdpa")


def test_a_saved_model_has_the_buffers_of_its_folder(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "source", "deepseek_v3")
    module = load_policy_module(folder)
    biases = module.model.model.layers[1].mlp.gate.e_score_correction_bias
    biases.copy_(torch.arange(4.0))
    save_hf(module, dict(module.hf_parameters()), folder, tmp_path / "saved")
    again = load_policy_module(tmp_path / "saved").model.model.layers[1].mlp.gate.e_score_correction_bias
    assert torch.equal(again, biases)
