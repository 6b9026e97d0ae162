"""LoRA: what is merged, what learns, what is saved, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, GPT2Config, GPT2LMHeadModel

from airls_ray.config import load_config
from airls_ray.config.schema import LearnerConfig, LoraConfig
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.batches import Sequences
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.save import save_trained
from airls_ray.models.check import check_model_folder
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.models.lora import LowRank, load_with_adapters, merged_weight
from airls_ray.models.modules import PRMModule, layers_of
from airls_ray.tensors import TokenBatch, make_batch
from tests.tiny import make_policy_folder, make_rollouts

LORA = LoraConfig(rank=3, alpha=5.0, target_modules=["q_proj", "down_proj"])
TOKENS = torch.tensor([[3, 4, 5, 6]])


def adapted(
    folder: Path | str, lora: LoraConfig = LORA, *, kind: str = "policy", resumed: bool = False, **options
) -> PRMModule:
    def load(path: str) -> PRMModule:
        if kind == "policy":
            return load_policy_module(path, **options)
        return load_prm_module(path, "scalar_head", **options)

    return load_with_adapters(load, str(folder), lora, seed=7, resumed=resumed)


def trained(module: PRMModule) -> TorchEngine:
    """An engine whose adapters (and head) have left their start."""
    engine = TorchEngine(module, LearnerConfig(learning_rate=0.05))
    for _ in range(2):
        values, _ = module(**batch().model_inputs())
        engine.backward((values - 1.0).square().mean(), last=True)
        engine.step()
    return engine


def batch() -> TokenBatch:
    sequences = Sequences.of(make_rollouts(4, 1))
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    return make_batch(*columns, torch.arange(4), "padded", pad_id=0)


# --------------------------------------------------------------------------------------- merging
def test_a_merged_weight_is_w_plus_alpha_over_rank_b_a_in_float64(folder: Path) -> None:
    engine = trained(adapted(folder))
    start = dict(load_policy_module(folder).hf_parameters())
    factors = dict(engine.module.model.named_parameters())
    for name, weight in engine.named_weights():
        expected = start[name].double()
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            layer = name.removesuffix(".weight")
            a, b = (factors[f"{layer}.lora_{side}.default.weight"].double() for side in "AB")
            assert (b @ a).abs().max() > 1e-3
            expected = expected + 5.0 / 3 * (b @ a)
        torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=0)


def test_a_bfloat16_weight_is_rounded_once() -> None:
    """Just above the middle of 1 and 1 + 2^-7; the product alone, rounded, would be on it and fall to 1."""
    w, a, b = (torch.tensor([[value]], dtype=torch.bfloat16) for value in (1.0, 1.0, 2.0**-8))
    update = LowRank(torch.nn.Parameter(a), torch.nn.Parameter(b), 1 + 2.0**-9)
    assert merged_weight(w, update).item() == 1 + 2.0**-7


def test_merged_weights_have_the_usual_names_and_give_the_learners_log_probabilities(folder: Path) -> None:
    engine = trained(adapted(folder))
    merged = load_policy_module(folder)
    merged.model.load_state_dict(dict(engine.named_weights()))  # strict
    with torch.no_grad():
        ours = engine.module(**batch().model_inputs())[0]
        theirs = merged(**batch().model_inputs())[0]
        before = load_policy_module(folder)(**batch().model_inputs())[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert float((ours - before).abs().max()) > 0.1


# ---------------------------------------------------------------------------------------- learning
def test_nothing_changes_before_the_first_update(folder: Path) -> None:
    inputs = batch().model_inputs()
    assert torch.equal(adapted(folder)(**inputs)[0], load_policy_module(folder)(**inputs)[0])


def test_only_adapters_learn(folder: Path) -> None:
    start = dict(load_policy_module(folder).hf_parameters())
    module = trained(adapted(folder)).module
    assert all(".lora_" in name for name, _ in module.trainable_parameters())
    assert sum(parameter.numel() for _, parameter in module.trainable_parameters()) == 2 * 3 * (
        (32 + 64) + (48 + 32)
    )
    for name, parameter in module.hf_parameters():
        assert torch.equal(parameter, start[name])


def test_a_scalar_head_learns_whole_and_the_body_by_adapters(folder: Path) -> None:
    module = adapted(folder, kind="prm")
    learns = {name for name, _ in module.trainable_parameters()}
    assert {"score.weight", "score.bias"} <= learns
    assert all(".lora_" in name or name.startswith("score.") for name in learns)
    trained(module)
    assert module.model.score.weight.abs().max() > 1e-2


def test_adapters_depend_on_their_seed_and_leave_the_global_random_state(folder: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = dict(adapted(folder).trainable_parameters())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    second = dict(adapted(folder).trainable_parameters())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_checkpointed_activations_give_the_same_gradients(folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        module = adapted(folder, gradient_checkpointing=checkpointing)
        module(**batch().model_inputs())[0].sum().backward()
        gradients.append([parameter.grad for _, parameter in module.trainable_parameters()])
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients[0])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_adapters_have_the_models_type(tmp_path: Path) -> None:
    module = adapted(make_policy_folder(tmp_path, dtype="bfloat16"), dtype="bfloat16")
    assert {parameter.dtype for _, parameter in module.trainable_parameters()} == {torch.bfloat16}
    assert module(**batch().model_inputs())[0].isfinite().all()


def test_tied_embeddings_stay_as_they_are(tmp_path: Path) -> None:
    source = make_policy_folder(tmp_path / "source", tie=True)
    engine = trained(adapted(source))
    save_trained(engine, source, tmp_path / "saved")
    saved, start = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "saved", source))
    assert torch.equal(saved.get_input_embeddings().weight, start.get_input_embeddings().weight)
    with torch.no_grad():
        ours = engine.module.model(TOKENS).logits
        torch.testing.assert_close(saved(TOKENS).logits, ours, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------ saving
@pytest.mark.parametrize("kind", ["policy", "prm"])
def test_a_saved_folder_holds_the_merged_model_and_the_adapter_in_pefts_format(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    engine = trained(adapted(folder, kind=kind))
    save_trained(engine, folder, tmp_path)
    auto = AutoModelForCausalLM if kind == "policy" else AutoModelForTokenClassification
    merged = auto.from_pretrained(tmp_path)
    by_peft = PeftModel.from_pretrained(auto.from_pretrained(folder, num_labels=1), tmp_path / "adapter")
    with torch.no_grad():
        ours = engine.module.model(TOKENS).logits
        torch.testing.assert_close(merged(TOKENS).logits, ours, atol=1e-5, rtol=0)
        torch.testing.assert_close(by_peft(TOKENS).logits, ours, atol=1e-5, rtol=0)
    assert check_model_folder(tmp_path).architecture == type(engine.module.model).__name__
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folder)
    assert (settings["r"], settings["lora_alpha"]) == (3, 5.0)
    assert settings["modules_to_save"] == (["score"] if kind == "prm" else None)


@pytest.mark.parametrize("kind", ["policy", "prm"])
def test_a_resumed_learner_goes_on_to_the_same_bits(folder: Path, tmp_path: Path, kind: str) -> None:
    engine = trained(adapted(folder, kind=kind))
    save_trained(engine, folder, tmp_path)
    engine.save_state(tmp_path / "state")
    again = TorchEngine(adapted(tmp_path, kind=kind, resumed=True), engine.config)
    again.load_state(tmp_path / "state")
    for each in (engine, again):
        values, _ = each.module(**batch().model_inputs())
        each.backward(values.square().mean(), last=True)
        each.step()
    for (name, mine), (_, theirs) in zip(again.named_weights(), engine.named_weights(), strict=True):
        assert torch.equal(mine, theirs), name


def test_without_lora_no_adapter_is_saved(folder: Path, tmp_path: Path) -> None:
    save_trained(TorchEngine(adapted(folder, LoraConfig()), LearnerConfig()), folder, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_a_new_run_starts_from_the_merged_model(folder: Path, tmp_path: Path) -> None:
    engine = trained(adapted(folder))
    save_trained(engine, folder, tmp_path)
    inputs = batch().model_inputs()
    with torch.no_grad():
        torch.testing.assert_close(adapted(tmp_path)(**inputs)[0], engine.module(**inputs)[0])


def test_the_adapters_file_holds_nothing_but_the_adapter(folder: Path, tmp_path: Path) -> None:
    save_trained(trained(adapted(folder)), folder, tmp_path)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 2  # layers, targets, A and B
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors


# ----------------------------------------------------------------------------------------- refusals
def test_a_model_with_another_name_for_its_layers_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=20))
    with pytest.raises(ModelError, match="GPT2LMHeadModel does not call its transformer layers `layers`"):
        layers_of(model)


@pytest.mark.parametrize("name", ["lm_head", "query", "embed_tokens"])
def test_a_target_outside_the_layers_is_refused_with_those_there_are(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"{name}, which is no linear layer .* down_proj, .*, v_proj"):
        adapted(folder, LoraConfig(rank=2, target_modules=["q_proj", name]))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("full", "saved without an adapter"),
        ("rank", "resume with the saved values"),
        ("base", "which is gone"),
        ("weights", "adapter_model.safetensors cannot be read"),
        ("kind", "holds other weights"),
    ],
)
def test_a_resume_that_does_not_fit_is_one_sentence(tmp_path: Path, how: str, words: str) -> None:
    source, saved = make_policy_folder(tmp_path / "source"), tmp_path / "saved"
    save_trained(trained(adapted(source, LoraConfig() if how == "full" else LORA)), source, saved)
    if how == "base":
        shutil.rmtree(source)
    if how == "weights":
        (saved / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    lora = LORA.model_copy(update={"rank": 4}) if how == "rank" else LORA
    with pytest.raises(ModelError, match=words) as error:
        adapted(saved, lora, resumed=True, kind="prm" if how == "kind" else "policy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("policy.lora.dropout=0.1", "lora.dropout must be 0"),
        ("sft.learner.lora.rank=4", "the warm start trains all weights"),
        ("policy.lora.target_modules=[]", "target_modules"),
        ("prm.learner.offload_optimizer=true", "offload_optimizer needs zero_stage 2 or 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: str, words: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=words):
        load_config(None, [setting])


def test_the_sections_load_from_the_command_line() -> None:
    config = load_config(
        None, ["policy.lora.rank=8", "prm.learner.lora.rank=4", "prm.learner.lora.target_modules=[q_proj]"]
    )
    assert (config.policy.lora.rank, config.prm.learner.lora.target_modules) == (8, ["q_proj"])
