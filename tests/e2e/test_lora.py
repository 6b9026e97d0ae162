"""A run whose policy and PRM learn by LoRA: sync, what a checkpoint holds, going on from one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from tests.e2e.conftest import TrainedRun, base_config, figures, train

TOKENS = torch.tensor([[3, 4, 5, 6]])


@pytest.fixture(scope="module")
def lora_run(ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Two iterations, two policy ranks under ZeRO 2, a scalar head under ZeRO 3; a checkpoint after each."""
    lora = {"lora": {"rank": 4, "alpha": 16.0}}
    config = base_config(
        policy_folder,
        tmp_path_factory.mktemp("runs"),
        method={"name": "airl_s"},
        policy={"ranks": 2, "zero_stage": 2, "learning_rate": 5e-3, **lora},
        prm={
            "parameterisation": "scalar_head",
            "warmup_iterations": 0,
            "learner": {"zero_stage": 3, "tokens_per_microbatch": 128, "resources": {"threads": 1}, **lora},
        },
        train={"iterations": 2, "checkpoint_every": 1, "sync_check": True},
    )
    return train(config)


def test_the_engine_samples_by_the_merged_weights(lora_run: TrainedRun) -> None:
    differences = [line["sync/logprob_difference_max"] for line in lora_run.metrics]
    assert len(differences) == 2
    assert all(0 < difference < 1e-4 for difference in differences)


@pytest.mark.parametrize(
    ("part", "auto"), [("policy", AutoModelForCausalLM), ("prm", AutoModelForTokenClassification)]
)
def test_a_checkpoint_holds_the_merged_model_and_its_adapter(
    lora_run: TrainedRun, policy_folder: Path, part: str, auto: type
) -> None:
    saved = lora_run.folder / "checkpoints" / "iteration_000002" / part
    merged, base = auto.from_pretrained(saved), auto.from_pretrained(policy_folder, num_labels=1)
    for name, weight in base.named_parameters():
        changed = not torch.equal(weight, merged.get_parameter(name))
        assert changed == ("_proj" in name or "score" in name), name
    adapted = PeftModel.from_pretrained(base, saved / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(adapted(TOKENS).logits, merged(TOKENS).logits, atol=1e-4, rtol=0)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(lora_run: TrainedRun, tmp_path: Path) -> None:
    config = lora_run.config.model_copy(update={"output": tmp_path})
    folder = tmp_path / config.name
    shutil.copytree(lora_run.folder, folder)
    shutil.rmtree(folder / "checkpoints" / "iteration_000002")
    (folder / "checkpoints" / "latest").write_text("iteration_000001\n")
    (folder / "summary.json").unlink()
    resumed = train(config, resume=True)
    assert [line["iteration"] for line in resumed.metrics] == [1, 2]
    assert figures(resumed.metrics[1]) == figures(lora_run.metrics[1])
    for part in ("policy", "prm"):
        where = Path("checkpoints") / "iteration_000002" / part
        for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
            assert (folder / where / name).read_bytes() == (lora_run.folder / where / name).read_bytes()
