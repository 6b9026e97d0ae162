"""Models: log-probabilities against a naive computation, layouts, saving, and errors in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from airls_ray.errors import ModelError
from airls_ray.learning.batches import Sequences
from airls_ray.models.check import check_model_folder
from airls_ray.models.load import DType, load_policy_module, load_prm_module, quiet_transformers, save_hf
from airls_ray.tensors import TokenBatch, make_batch
from tests.tiny import make_policy_folder, make_rollouts


def batch_of(layout: str, rows: int = 4) -> TokenBatch:
    sequences = Sequences.of(make_rollouts(rows, 1))
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    return make_batch(*columns, torch.arange(rows), layout, pad_id=0)


def naive(folder: Path, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row, full logits in float64, no batching."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    logprobs, entropies = [], []
    for row in make_rollouts(4, 1).to_pylist():
        tokens = torch.tensor([row["prompt"] + row["response"]])
        logits = model(tokens).logits[0].double() / temperature
        for place, token in enumerate(row["response"], start=len(row["prompt"])):
            p = logits[place - 1].softmax(-1)
            logprobs.append(p[token].log())
            entropies.append(torch.distributions.Categorical(p).entropy())
    return torch.stack(logprobs), torch.stack(entropies)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropies_equal_the_naive_ones(folder: Path, layout: str, temperature: float) -> None:
    module = load_policy_module(folder)
    inputs = batch_of(layout).model_inputs()
    logprobs, entropies = module(**inputs, temperature=temperature, entropy=True)
    expected_logprobs, expected_entropies = naive(folder, temperature)
    torch.testing.assert_close(logprobs.double(), expected_logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies.double(), expected_entropies, atol=1e-5, rtol=0)


def test_padded_and_packed_give_the_same_gradients(folder: Path) -> None:
    gradients = []
    for layout in ("padded", "packed"):
        module = load_policy_module(folder)
        module(**batch_of(layout).model_inputs())[0].sum().backward()
        gradients.append([p.grad for _, p in module.hf_parameters()])
    for padded, packed in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, packed, atol=1e-4, rtol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours(folder: Path) -> None:
    module = load_policy_module(folder)
    alone = module(**batch_of("padded", 1).model_inputs())[0]
    for layout in ("padded", "packed"):
        together = module(**batch_of(layout, 4).model_inputs())[0]
        torch.testing.assert_close(together[: alone.numel()], alone, atol=1e-5, rtol=0)


def test_an_entropy_without_gradient_has_the_same_value(folder: Path) -> None:
    module = load_policy_module(folder)
    inputs = batch_of("padded").model_inputs()
    with_gradient = module(**inputs, entropy=True)[1]
    without = module(**inputs, entropy=True, entropy_gradient=False)[1]
    assert not without.requires_grad
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient, without)


def test_a_new_scalar_head_is_zero_everywhere(folder: Path) -> None:
    f, h = load_prm_module(folder, "scalar_head")(**batch_of("padded").model_inputs())
    assert h is None
    assert torch.equal(f, torch.zeros_like(f))


def test_the_scalar_head_reads_the_token_and_shaping_reads_the_state_before_it(folder: Path) -> None:
    module = load_prm_module(folder, "scalar_head", shaping=True)
    with torch.no_grad():
        module.model.score.weight.normal_()
    batch = batch_of("padded")
    f, h = module(**batch.model_inputs())
    row = make_rollouts(4, 1).to_pylist()[0]
    tokens = torch.tensor([row["prompt"] + row["response"]])
    scores = module.model.score(module.model.base_model(input_ids=tokens).last_hidden_state[0])
    start, length = len(row["prompt"]), len(row["response"])
    torch.testing.assert_close(f[:length], scores[start:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(h[:length], scores[start - 1 : -1, 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["linear", "policy"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_is_computed_in_fp32_whatever_its_weights_are(folder: Path, dtype: Any, head: Any) -> None:
    module = load_prm_module(folder, "scalar_head", dtype, head=head)
    own = torch.Generator().manual_seed(0)
    for weight in module.model.score.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=own))
    hidden = torch.randn(500, 32, generator=own).to(getattr(torch, dtype))
    exact = hidden.double()
    for number, layer in enumerate(one for one in module.model.score.modules() if hasattr(one, "weight")):
        bias = None if layer.bias is None else layer.bias.double()
        exact = torch.nn.functional.linear(exact.relu() if number else exact, layer.weight.double(), bias)
    torch.testing.assert_close(module.values(hidden).double(), exact[:, 0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tie", [False, True])
def test_a_saved_policy_loads_equal_by_transformers(tmp_path: Path, tie: bool) -> None:
    source = make_policy_folder(tmp_path / "source", tie=tie)
    module = load_policy_module(source)
    with torch.no_grad():
        module.model.get_input_embeddings().weight.mul_(2.0)
    save_hf(module, dict(module.hf_parameters()), source, tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens = torch.tensor([[3, 4, 5]])
    # Weights that are mapped from a file lie elsewhere in memory, which can change the last bit of a product.
    torch.testing.assert_close(loaded(tokens).logits, module.model(tokens).logits, rtol=1e-5, atol=1e-6)
    assert loaded.generation_config.eos_token_id == 1
    assert (tmp_path / "saved" / "tokenizer_config.json").is_file()


def test_a_saved_scalar_head_loads_equal_and_is_not_zeroed(folder: Path, tmp_path: Path) -> None:
    module = load_prm_module(folder, "scalar_head")
    with torch.no_grad():
        module.model.score.weight.fill_(0.5)
    save_hf(module, None, folder, tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.score.weight, module.model.score.weight)
    again = load_prm_module(tmp_path, "scalar_head")
    inputs = batch_of("padded").model_inputs()
    theirs, ours = again.state_dict(), module.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    torch.testing.assert_close(again(**inputs)[0], module(**inputs)[0], rtol=1e-5, atol=1e-6)


def test_the_head_of_a_reward_model_is_kept_and_gets_a_bias_of_zero(folder: Path, tmp_path: Path) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    theirs.save_pretrained(tmp_path)
    shutil.copy(folder / "tokenizer_config.json", tmp_path)
    head = load_prm_module(tmp_path, "scalar_head").model.score
    assert torch.equal(head.weight, theirs.score.weight)
    assert torch.equal(head.bias, torch.zeros(1))


@pytest.mark.parametrize("words", [0, 1, 2, 3])
def test_where_a_file_holds_its_weights_decides_nothing(folder: Path, tmp_path: Path, words: int) -> None:
    """Weights begin at a multiple of 64 bytes, whatever the length of the file's header."""
    weights = load_file(folder / "model.safetensors")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    save_file(weights, copy / "model.safetensors", {"format": "pt", "note": 8 * words * "x"})
    model = load_policy_module(copy).model
    assert {weight.data_ptr() % 64 for weight in model.parameters()} == {0}
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


def test_a_new_policy_depends_on_its_seed_only(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    weights = [
        load_policy_module(make_policy_folder(tmp_path / str(number), seed=seed)).model.lm_head.weight
        for number, seed in enumerate((3, 3, 4))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(state, torch.get_rng_state())


def test_a_new_policy_keeps_the_dtype_that_was_asked_for(tmp_path: Path) -> None:
    module = load_policy_module(make_policy_folder(tmp_path, dtype="bfloat16"), "bfloat16")
    assert module.model.lm_head.weight.dtype == torch.bfloat16
    assert module(**batch_of("padded").model_inputs())[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "context", "kernel"),
    [("bfloat16", 64, "eager"), ("bfloat16", 1024, "sdpa"), ("float32", 64, "sdpa")],
)
def test_only_short_rows_in_bfloat16_on_a_cpu_leave_the_fused_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: DType, context: int, kernel: str
) -> None:
    folder = make_policy_folder(tmp_path, dtype=dtype)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": context}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_policy_module(folder, dtype).model.config._attn_implementation == kernel


def test_attention_has_no_dropout_where_its_configuration_asks_for_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.5}))
    module, batch = load_policy_module(tmp_path / "copy"), batch_of("padded")
    assert module.model.training
    one, other = (module(**batch.model_inputs())[0] for _ in range(2))
    assert torch.equal(one, other)


def test_an_attention_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    folder = make_policy_folder(tmp_path, dtype="bfloat16")
    module = load_policy_module(folder, "bfloat16", attention="sdpa")
    assert module.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_attention_of_short_rows_gives_the_naive_logprobs(tmp_path: Path, layout: str) -> None:
    folder = make_policy_folder(tmp_path)
    module = load_policy_module(folder, attention="eager")
    logprobs, _ = module(**batch_of(layout).model_inputs())
    torch.testing.assert_close(logprobs.double(), naive(folder, 1.0)[0], atol=1e-5, rtol=0)


def test_a_complete_folder_passes_the_check(folder: Path) -> None:
    info = check_model_folder(folder, context_tokens=64, vocab_size=12)
    assert (info.model_type, info.vocab_size, info.context_tokens, info.eos_token) == (
        "qwen3",
        12,
        64,
        "<eos>",
    )


def test_a_hub_name_is_not_checked_here() -> None:
    assert not check_model_folder("Qwen/Qwen3-0.6B").is_folder


def broken(folder: Path, how: str) -> dict[str, object]:
    """Break a good folder in one way; return the options of the check."""
    weights = folder / "model.safetensors"
    if how == "config":
        (folder / "config.json").write_text("{")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-8])
    elif how == "no eos":
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": None}))
    elif how == "no tokenizer":
        (folder / "tokenizer_config.json").unlink()
    return {"vocabulary": {"vocab_size": 99}, "context": {"context_tokens": 65}}.get(how, {})


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("config", ["config.json", "cannot be read"]),
        ("no config", ["config.json", "missing"]),
        ("no weights", ["lacks weights", "model.safetensors"]),
        ("cut weights", ["model.safetensors", "promises"]),
        ("no eos", ["end-of-sequence", "eos_token"]),
        ("no tokenizer", ["tokenizer_config.json", "missing"]),
        ("vocabulary", ["12", "99", "tokenizer"]),
        ("context", ["64", "65", "model.context_tokens"]),
    ],
)
def test_a_broken_folder_gives_one_sentence(tmp_path: Path, how: str, words: list[str]) -> None:
    folder = make_policy_folder(tmp_path / "model")
    options = broken(folder, how)
    with pytest.raises(ModelError) as error:
        check_model_folder(folder, **options)
    assert all(word in str(error.value) for word in [*words, str(folder)])
    assert "\n" not in str(error.value)


def test_a_model_that_reads_images_too_has_the_context_of_its_text_part(tmp_path: Path) -> None:
    folder = make_policy_folder(tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": "gemma3", "text_config": json.loads(file.read_text())}))
    with pytest.raises(ModelError, match=r"takes 64 tokens .* model\.context_tokens is 65"):
        check_model_folder(folder, context_tokens=65)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        check_model_folder(tmp_path / "nothing")


def test_a_path_below_an_existing_folder_is_no_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no model folder runs/demo"):
        check_model_folder("runs/demo")


def test_a_classifier_is_refused_as_a_policy(folder: Path, tmp_path: Path) -> None:
    save_hf(load_prm_module(folder, "scalar_head"), None, folder, tmp_path)
    with pytest.raises(ModelError, match="Qwen3ForTokenClassification"):
        load_policy_module(tmp_path)


def test_a_head_of_another_size_is_refused(folder: Path, tmp_path: Path) -> None:
    save_hf(load_prm_module(folder, "scalar_head", shaping=True), None, folder, tmp_path)
    with pytest.raises(ModelError, match=r"prm\.shaping"):
        load_prm_module(tmp_path, "scalar_head")


def test_deepspeed_which_a_save_imports_has_no_gpu_to_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "")  # so that it is as before afterwards
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with quiet_transformers():
        assert os.environ["DS_ACCELERATOR"] == "cpu"
