"""What a sync of an adapter alone sends, who falls back to merged weights, and what engines start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from actors.learn.learners import PolicyLearner
from actors.rollout.workers import without_adapters
from actors.weights.adapter_slot import adapter_arguments, write_adapter
from airls_ray.adapter_sync import engine_model, engine_rank, merged_because, sends_adapter
from airls_ray.config import load_config
from airls_ray.config.schema import Config, LearnerConfig, LoraConfig
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_policy_module
from airls_ray.models.lora import adapter_file_weights, adapter_settings, load_with_adapters
from airls_ray.weights import WeightBuffer, pack_weights, unpack_weights
from tests.tiny import make_policy_folder

ADAPTER = ["rollout.engine.lora=adapter", "policy.lora.rank=4"]
LORA = LoraConfig(rank=3, alpha=5.0, target_modules=["q_proj", "v_proj", "down_proj"])


def config(*settings: str) -> Config:
    return load_config(None, [*ADAPTER, *settings])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def learner(folder: Path) -> Iterator[TorchEngine]:
    """An engine whose adapters have left their start."""
    module = load_with_adapters(load_policy_module, str(folder), LORA, seed=7, resumed=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, weight in module.trainable_parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    yield TorchEngine(module, LearnerConfig())


def buffer(learner: TorchEngine) -> WeightBuffer:
    packed = pack_weights(
        adapter_file_weights(learner.adapter_weights()), 3, adapter_settings(learner.module)
    )
    packed.data.flags.writeable = False  # as Ray maps it
    return packed


@pytest.mark.parametrize(("rank", "holds"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (512, 512)])
def test_an_engine_is_started_for_the_least_rank_that_vllm_knows(rank: int, holds: int) -> None:
    assert engine_rank(rank) == holds
    assert adapter_arguments(rank)["max_lora_rank"] == holds


def test_an_engine_of_merged_weights_has_no_room_for_adapters() -> None:
    assert adapter_arguments(0) == {}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ([], None),
        (["rollout.engine.lora=merged"], None),
        (["policy.lora.rank=513"], "vLLM takes adapters up to rank 512, and policy.lora.rank is 513"),
        (["policy.lora.target_modules=[q_proj,router]"], "vLLM may not adapt router"),
        (["rollout.engine.weight_transfer=nccl"], "weight_transfer=nccl sends whole weights alone"),
    ],
)
def test_what_vllm_does_not_take_falls_back_to_merged_weights_and_says_why(
    settings: list[str], why: str | None
) -> None:
    found = merged_because(config(*settings))
    assert (
        (found is None)
        if why is None
        else (found is not None and found.startswith((why, f"rollout.engine.{why}")))
    )
    assert sends_adapter(config(*settings)) == (settings == [])


def test_adapters_for_the_engine_need_a_policy_with_adapters() -> None:
    with pytest.raises(ConfigError, match=r"set policy\.lora\.rank above 0"):
        load_config(None, ["rollout.engine.lora=adapter"])


def test_workers_that_get_no_new_weights_have_no_room_for_adapters() -> None:
    asked = config()
    other = without_adapters(asked)
    assert (sends_adapter(asked), sends_adapter(other)) == (True, False)
    assert other.model_dump() == load_config(None, [*ADAPTER, "rollout.engine.lora=merged"]).model_dump()


def test_what_is_sent_is_the_adapter_by_pefts_names(learner: TorchEngine) -> None:
    sent = {name: tuple(value.shape) for name, value in unpack_weights(buffer(learner))}
    shapes = {"self_attn.q_proj": (64, 32), "self_attn.v_proj": (64, 32), "mlp.down_proj": (32, 48)}
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        for name, (out, inputs) in shapes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            expected |= {f"{prefix}.lora_A.weight": (3, inputs), f"{prefix}.lora_B.weight": (out, 3)}
    assert sent == expected


@pytest.mark.parametrize(("form", "count"), [("adapter", 12), ("merged", 25)])
def test_the_policy_learner_exports_what_the_engines_take(
    learner: TorchEngine, folder: Path, form: str, count: int
) -> None:
    own = PolicyLearner(0, config(f"rollout.engine.lora={form}"), str(folder))
    own._engine, own._version = learner, 5  # type: ignore[assignment]  # one rank needs no DeepSpeed
    sent = own.export_weights()
    assert sent is not None
    assert (sent.version, len(sent.names), bool(sent.adapter)) == (5, count, form == "adapter")
    assert all(("lora_" in name) == (form == "adapter") for name in sent.names)


def test_peft_reads_the_sent_adapter_as_the_model_of_the_learner(
    learner: TorchEngine, folder: Path, tmp_path: Path
) -> None:
    write_adapter(buffer(learner), tmp_path)
    read: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path))
    tokens = torch.randint(2, 12, (4, 60), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        own = learner.module.model(tokens).logits
        base = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        torch.testing.assert_close(read(tokens).logits, own, atol=1e-5, rtol=0)
    assert float((own - base).abs().max()) > 0.01


def test_engines_with_adapters_begin_again_from_what_the_adapter_was_trained_on(
    learner: TorchEngine, folder: Path, tmp_path: Path
) -> None:
    save_trained(learner, folder, tmp_path)  # the merged model, on which an adapter would count twice
    assert engine_model(config(), str(tmp_path)) == str(folder)
    assert engine_model(config("rollout.engine.lora=merged"), str(tmp_path)) == str(tmp_path)
    assert engine_model(config(), str(folder)) == str(folder)
    assert engine_model(config(), "owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"base_model_name_or_path": "/gone"}', "/gone, which is gone: put that model back"),
        ('{"r": 3}', "does not say which model the adapter was trained on"),
        ("{", "does not say which model the adapter was trained on"),
    ],
)
def test_a_checkpoint_whose_base_model_is_not_to_be_had_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        engine_model(config(), str(tmp_path))
