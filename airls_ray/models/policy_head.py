"""A PRM that is a head of two layers on the frozen policy (SPRM of MetaStone-S1, arXiv 2507.01951).

The head reads the policy's second last hidden state, as their program does (`score_model_queue.py`: a linear
layer to twice the width, ReLU, a linear layer to one number; its dropout is left out here). Its folder
names the policy and holds the head's weights alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from airls_ray.errors import ModelError
from airls_ray.runs.checkpoint_record import fingerprints

FILE = "policy_head.json"
"""In the head's folder: which policy it stands on, and the fingerprint of that policy's weights."""
_WEIGHTS, _PREFIX = "model.safetensors", "score."


def is_policy_head(path: Path | str) -> bool:
    """Whether a folder holds such a head."""
    return (Path(path) / FILE).is_file()


def policy_of(folder: Path) -> str:
    """Return the folder or hub name of the policy that a head stands on.

    Raises:
        ModelError: the file is broken, or the policy is gone or has other weights than the head learned on.
    """
    file = folder / FILE
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        policy, weights = str(facts["policy"]), facts["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is broken ({error}): train the PRM again") from error
    if Path(policy).is_absolute() and not Path(policy).is_dir():
        raise ModelError(
            f"the PRM {folder} is a head on the policy {policy}, which is gone: put that folder back, or "
            f"name its new place in {FILE}"
        )
    if weights is not None and weights != _weights_of(policy):
        raise ModelError(
            f"the PRM {folder} is a head on the policy {policy}, whose weights are others now: train it again"
        )
    return policy


def put_head(model: Any, policy: str) -> None:
    """Turn a token classifier into a frozen backbone that ends before its last layer, with a new head.

    What the last layer reads is the second last of the model's hidden states, which no norm has passed. The
    head's weights are random, always the same ones: of a head of zeros no step would agree with its outcome.

    Args:
        model: as transformers loaded it, in place.
        policy: names it in messages.

    Raises:
        ModelError: its layers or the norm behind them have other names than in Llama, Qwen and their like,
            or there is one layer alone.
    """
    backbone = model.base_model
    if not hasattr(backbone, "norm") or len(getattr(backbone, "layers", ())) < 2:
        raise ModelError(
            f"{policy} ({model.config.model_type}) has no layers and final norm that a head "
            "(prm.head=policy) could be put before, or one layer alone: set prm.head=linear"
        )
    model.requires_grad_(False)
    backbone.layers = backbone.layers[:-1]
    backbone.norm = nn.Identity()
    width = model.config.get_text_config().hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))
    like = next(backbone.parameters())
    model.score = head.to(device=like.device, dtype=like.dtype)


def read_head(model: Any, folder: Path) -> None:
    """Read the head of a folder into a model that `put_head` has prepared.

    Raises:
        ModelError: the weights are missing, or of another policy's width.
    """
    file = folder / _WEIGHTS
    try:
        saved = {name.removeprefix(_PREFIX): value for name, value in load_file(file).items()}
        model.score.load_state_dict(saved)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{file} is no head for its policy ({reason}): train the PRM again") from error


def save_head(config: Any, policy: str, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a head's folder, less its tokenizer: some MiB beside a policy of a billion weights.

    The policy's configuration lies there, too: whoever asks a model folder for its sizes finds them.

    Args:
        config: of the policy, as transformers has it.
        policy: folder (absolute) or hub name.
        weights: full tensors by name, `score.0.weight` and so on.
        folder: is there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    settings = {**config.to_dict(), "architectures": ["PolicyHead"]}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, default=str), encoding="utf-8")
    facts = {"policy": policy, "weights": _weights_of(policy)}
    (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _weights_of(policy: str) -> str | None:
    """Fingerprint of a folder's weights; a hub name has none."""
    found = fingerprints({"policy": policy}).get("policy")
    return None if found is None else str(found["weights"])
