"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) on a loaded model, by `peft`.

An adapted linear layer computes W x + alpha / rank * B A x. W stays as it is; A and B learn, and a scalar
head learns whole. Outside the learner nobody sees adapters: weights leave it merged, under their usual names,
unless `rollout.engine.lora` asks for the adapter alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from airls_ray.adapter_sync import ADAPTER_FOLDER, ADAPTER_SETTINGS, ADAPTER_WEIGHTS
from airls_ray.errors import ModelError
from airls_ray.models.modules import layers_of

if TYPE_CHECKING:
    from airls_ray.config.schema import LoraConfig
    from airls_ray.models.modules import PolicyModule, PRMModule, ScalarHeadModule

    Module = TypeVar("Module", PolicyModule, ScalarHeadModule, PRMModule)

_ADAPTER = "default"
_PREFIX = "base_model.model."  # of every weight in peft's files
_HEAD = "score"  # transformers' name of a token classifier's output layer


@dataclass(frozen=True)
class LowRank:
    """What is added to a weight [out, in]: `scale` * b [out, rank] @ a [rank, in]."""

    a: nn.Parameter
    b: nn.Parameter
    scale: float


def merged_weight(weight: Tensor, update: LowRank | None) -> Tensor:
    """Return W + scale * B A, summed in fp32 and rounded once; the weight itself where nothing is added."""
    if update is None:
        return weight.detach()
    with torch.no_grad():
        product = update.b.float() @ update.a.float()
        return (weight.float() + update.scale * product).to(weight.dtype)


def low_rank_updates(model: nn.Module) -> dict[str, LowRank]:
    """Return what the adapters of `model` add, by the Hugging Face name of the weight; none without LoRA."""
    return {
        f"{name}.weight": LowRank(
            layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight, float(layer.scaling[_ADAPTER])
        )
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }


def load_with_adapters(
    load: Callable[[str], Module], folder: str, lora: LoraConfig, *, seed: int, resumed: bool
) -> Module:
    """Load a module and, where `lora.rank` is above 0, freeze it and put adapters on it.

    Args:
        load: loads the module of a folder.
        folder: what to start from, or to go on from.
        lora: rank, scale and which layers.
        seed: of A; B is 0, so that nothing changes before the first update.
        resumed: whether `folder` was saved by such a learner: then the weights that it started from are
            loaded, and its adapter.

    Raises:
        ModelError: a target is no linear layer of the transformer layers; the saved adapter is missing, has
            other settings, or its starting model is gone.
    """
    if not lora.rank:
        return load(folder)
    base = adapter_base(Path(folder), lora) if resumed else folder
    module = load(base)
    add_adapters(module, lora, base, seed)
    if resumed:
        load_adapter(module, Path(folder) / ADAPTER_FOLDER)
    return module


def add_adapters(module: PRMModule, lora: LoraConfig, base: str, seed: int) -> None:
    """Put new adapters on `module`, in place; all weights but theirs and a scalar head's are frozen.

    Args:
        module: as it was loaded.
        lora: rank (above 0), scale and which layers.
        base: folder or hub name that the module was loaded from; saved with the adapter.
        seed: of A. PyTorch's global random state is left as it was.

    Raises:
        ModelError: a target is no linear layer inside the transformer layers, or these are not found.
    """
    from peft import LoraConfig as PeftConfig
    from peft import TaskType, inject_adapter_in_model

    model = module.model
    _check_targets(model, lora.target_modules, base)
    head = getattr(model, _HEAD, None)
    settings = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float serves as well
        target_modules=list(lora.target_modules),
        lora_dropout=0.0,
        bias="none",
        base_model_name_or_path=base,
        task_type=TaskType.CAUSAL_LM if head is None else TaskType.TOKEN_CLS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model, adapter_name=_ADAPTER)
    if head is not None:
        head.requires_grad_(True)
        settings.modules_to_save = [_HEAD]
    module.adapter = settings


def save_adapter(module: PRMModule, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write an adapter in peft's format (`PeftModel.from_pretrained` loads it on its starting model).

    Args:
        module: with adapters.
        weights: full tensors of all that learns, by parameter name.
        folder: made if it does not exist.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_file_name(name): value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    module.adapter.save_pretrained(folder)


def load_adapter(module: PRMModule, folder: Path) -> None:
    """Read what `save_adapter` wrote into a module with adapters of the same settings.

    Raises:
        ModelError: the file is missing or holds other weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / ADAPTER_WEIGHTS
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read ({error}): resume from another checkpoint") from error
    own = {_file_name(name): parameter for name, parameter in module.trainable_parameters()}
    if {name: value.shape for name, value in saved.items()} != {n: p.shape for n, p in own.items()}:
        raise ModelError(f"{file} holds other weights than the adapters of this learner: check lora and prm")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def adapter_base(folder: Path, lora: LoraConfig) -> str:
    """Return the model that the adapter saved in a model's `folder` was trained on.

    Raises:
        ModelError: there is no adapter, it has other settings than `lora`, or that model is gone.
    """
    file = folder / ADAPTER_FOLDER / ADAPTER_SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} was saved without an adapter ({file.name} cannot be read): resume with lora.rank=0"
        ) from error
    saved = (settings.get("r"), settings.get("lora_alpha"), sorted(settings.get("target_modules") or []))
    if saved != (lora.rank, lora.alpha, sorted(lora.target_modules)):
        raise ModelError(
            f"the adapter in {folder} has (rank, alpha, target_modules) = {saved}, and the configuration has "
            f"{(lora.rank, lora.alpha, sorted(lora.target_modules))}: resume with the saved values"
        )
    base = str(settings.get("base_model_name_or_path"))
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ModelError(
            f"the adapter in {folder} was trained on {base}, which is gone: put that model back, or start a "
            f"new run with model.path={folder} (the merged model)"
        )
    return base


def _check_targets(model: Any, targets: list[str], base: str) -> None:
    known = {
        name.rsplit(".", 1)[-1]
        for name, layer in layers_of(model).named_modules()
        if isinstance(layer, nn.Linear)
    }
    unknown = [name for name in targets if name not in known]
    if unknown:
        raise ModelError(
            f"lora.target_modules names {unknown[0]}, which is no linear layer inside the transformer layers "
            f"of {base}: choose from {', '.join(sorted(known))}"
        )


def _file_name(name: str) -> str:
    """Name in peft's file of a parameter that learns."""
    return _PREFIX + name.replace(f".{_ADAPTER}.", ".")


def adapter_file_weights(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield what learns, given by parameter name, under its name in peft's file."""
    for name, value in weights:
        yield _file_name(name), value


def adapter_settings(module: PRMModule) -> str:
    """Return the settings of a module's adapters as peft's file has them, as far as an engine reads them."""
    settings = module.adapter
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": settings.base_model_name_or_path,
        "r": settings.r,
        "lora_alpha": settings.lora_alpha,
        "target_modules": sorted(settings.target_modules),
        "bias": "none",
    }
    return json.dumps(content)


def named_adapter_weights(module: PRMModule) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield all that learns by parameter name, where the module has adapters; else nothing."""
    if module.adapter is not None:
        yield from module.trainable_parameters()
