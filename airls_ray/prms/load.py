"""A PRM folder to a scorer: which form it has, and how that form is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from airls_ray.errors import ModelError
from airls_ray.learning.engine import own_device
from airls_ray.learning.prm_folder import FILE as PROJECT_FILE
from airls_ray.models.check import ModelInfo, check_model_folder
from airls_ray.models.load import DType
from airls_ray.prms.encoders import (
    Conversation,
    Encoder,
    MarkedChat,
    MarkedText,
    PromptTemplate,
    SeparatedSteps,
)
from airls_ray.prms.forms import FORMS, check_form, refuse_options
from airls_ray.prms.heads import (
    QWEN_PRM,
    has_weight,
    linear_head,
    load_backbone,
    token_pair_head,
    two_layer_head,
)
from airls_ray.prms.items import StepScorer
from airls_ray.prms.project import ProjectScorer
from airls_ray.prms.scorer import HeadScorer
from airls_ray.prms.tokenizer import PRMTokenizer

_CHAT_MARKER, _TEXT_MARKER = "<extra_0>", "ки"


def load_step_scorer(
    path: Path | str,
    form: str = "auto",
    dtype: DType = "float32",
    device: torch.device | str | None = None,
    *,
    separator: str | None = None,
    prompt_template: PromptTemplate = "plain",
    batch_tokens: int = 16384,
) -> StepScorer:
    """Load a PRM that scores step texts.

    None of the published models' weights were run through this: the forms follow their cards and their
    authors' code, and are tested on small models of the same architectures.

    Args:
        path: model folder with safetensors, or a hub name. No code in it is run.
        form: one of `FORMS`, or `auto`: see `choose_form`.
        dtype: of the backbone's weights; heads are computed in fp32.
        device: by default the GPU, if there is one.
        separator: `token_classification`: what ends each step, as in the training (default: a line feed).
        prompt_template: `token_classification`, and `project` where `prm.json` does not say: `chat` if the
            training wrapped prompts so.
        batch_tokens: most tokens of a forward pass, padding counted.

    Raises:
        ModelError: unknown form, or the folder is broken or not of that form.
        ConfigError: an option that this form does not have.
    """
    folder = _local_folder(path)
    form = choose_form(path, form)
    refuse_options(form, separator, prompt_template)
    place = own_device() if device is None else torch.device(device)
    if form == "project":
        return ProjectScorer(
            folder, dtype=dtype, device=place, prompt_template=prompt_template, batch_tokens=batch_tokens
        )
    info = check_model_folder(folder)
    _refuse_architecture(info, form)
    tokenizer = PRMTokenizer(folder)
    encoder: Encoder
    if form == "token_classification":
        encoder = SeparatedSteps(tokenizer, "\n" if separator is None else separator, prompt_template)
    elif form == "marker":
        encoder = MarkedChat(tokenizer, _CHAT_MARKER)
    else:
        encoder = MarkedText(tokenizer, _TEXT_MARKER) if form == "plus_minus" else Conversation(tokenizer)
    backbone = load_backbone(folder, info.architecture, dtype)
    if form.startswith("plus_minus"):
        head = token_pair_head(folder, backbone, minus=tokenizer.one_id("-"), plus=tokenizer.one_id("+"))
    else:
        head = two_layer_head(folder) if has_weight(folder, "score.0.weight") else linear_head(folder)
    return HeadScorer(backbone.to(place), head, encoder, folder=str(path), batch_tokens=batch_tokens)


def choose_form(path: Path | str, form: str = "auto") -> str:
    """Return `form`, or for `auto` the one that the folder's own files speak for.

    In this order: `prm.json`: `project`. Qwen2ForProcessRewardModel, or a token classifier of two labels
    whose vocabulary has `<extra_0>`: `marker`. Another token classifier: `token_classification`. A causal
    language model only by its name, since any would give numbers: `shepherd` in it: `plus_minus`; `prm`:
    `plus_minus_chat` with a chat template, else `plus_minus`.

    Raises:
        ModelError: unknown form, nothing known speaks for one, or the folder is broken.
    """
    check_form(form)
    if form != "auto":
        return form
    folder = _local_folder(path)
    if (folder / PROJECT_FILE).is_file():
        return "project"
    info = check_model_folder(folder)
    architecture = info.architecture or ""
    if architecture == QWEN_PRM:
        return "marker"
    if architecture.endswith("ForTokenClassification"):
        marked = _labels(folder) == 2 and PRMTokenizer(folder).knows(_CHAT_MARKER)
        return "marker" if marked else "token_classification"
    if architecture.endswith("ForCausalLM"):
        names = _names(path, folder)
        if "shepherd" in names:
            return "plus_minus"
        if "prm" in names:
            tokenizer = PRMTokenizer(folder)
            if tokenizer.has_chat_template:
                return "plus_minus_chat"
            if tokenizer.knows(_TEXT_MARKER):
                return "plus_minus"
    raise ModelError(
        f"{path} ({architecture or 'no architecture named'}) does not say what form of PRM it is: give "
        f"--form as one of {', '.join(FORMS)}"
    )


def _local_folder(path: Path | str) -> Path:
    """Return the folder itself, or for a hub name the folder in the hub's cache, after a download.

    Pickled weights are neither downloaded nor read.
    """
    if check_model_folder(path).is_folder:
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        kept = ["*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt"]
        return Path(snapshot_download(str(path), allow_patterns=kept))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} is no folder here, and as a hub name it cannot be fetched: {reason}"
        ) from error


def _names(path: Path | str, folder: Path) -> str:
    """Every name the model goes by, in lower case: its folder's, its hub name, that in its config.json."""
    cached = [part for part in folder.resolve().parts if part.startswith("models--")]
    hub = [] if Path(path).is_dir() else [str(path)]
    return " ".join([folder.resolve().name, *cached, *hub, str(_config(folder).get("_name_or_path"))]).lower()


def _labels(folder: Path) -> int:
    """Number of labels by config.json, which leaves out the default of 2."""
    config = _config(folder)
    return int(config.get("num_labels") or len(config.get("id2label") or (0, 1)))


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _refuse_architecture(info: ModelInfo, form: str) -> None:
    """A classifier's weights have no output layer, and a language model's no `score`: say so at once."""
    architecture = info.architecture or ""
    fits = {
        "token_classification": architecture.endswith("ForTokenClassification"),
        "marker": architecture == QWEN_PRM or architecture.endswith("ForTokenClassification"),
    }.get(form, architecture.endswith("ForCausalLM"))
    if not fits:
        raise ModelError(
            f"{info.path} holds a {architecture or 'model of no named architecture'}, which is no PRM of "
            f"form {form} ({FORMS[form]})"
        )
