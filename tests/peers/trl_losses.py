"""Run by a Python that has TRL: its GRPO loss and gradient on the inputs of a JSON file, to another one."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer


def trainer(case: dict[str, Any], logprobs: torch.Tensor) -> Any:
    """What `_compute_loss` reads of a trainer; the model's pass is replaced by given log-probabilities."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda values: values, reduce=lambda values, reduction: values
        ),
        model=SimpleNamespace(training=False),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _entropy_bonus_enabled=False,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        loss_type=case["loss_type"],
        beta=case["beta"],
        epsilon_low=case["clip_low"],
        epsilon_high=case["clip_high"],
        max_completion_length=case["max_tokens"],
    )


def main() -> None:
    """Compute all cases."""
    results = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        names = ("logprobs", "old", "reference", "advantages", "weights", "mask")
        values = {name: torch.tensor(case[name], dtype=torch.float64) for name in names}
        logprobs = values["logprobs"].requires_grad_()
        rows = len(logprobs)
        inputs = {
            "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
            "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
            "completion_ids": torch.zeros(logprobs.shape, dtype=torch.long),
            "completion_mask": values["mask"],
            "advantages": values["advantages"],
            "old_per_token_logps": values["old"],
            "ref_per_token_logps": values["reference"],
            "importance_sampling_ratio": values["weights"],
            "num_items_in_batch": values["mask"].sum(),
        }
        loss = GRPOTrainer._compute_loss(trainer(case, logprobs), None, inputs)
        (gradient,) = torch.autograd.grad(loss, logprobs)
        results.append({"loss": loss.item(), "gradient": gradient.tolist()})
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
