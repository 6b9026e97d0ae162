"""A PRM folder to a scorer: how each form is loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from airls_ray.errors import ModelError
from airls_ray.learning.engine import own_device
from airls_ray.models.check import ModelInfo, check_model_folder
from airls_ray.models.load import DType
from airls_ray.prm.encoders import (
    Conversation,
    Encoder,
    MarkedChat,
    MarkedText,
    PromptTemplate,
    SeparatedSteps,
)
from airls_ray.prm.forms import (
    CHAT_MARKER,
    FORMS,
    QWEN_PRM,
    TEXT_MARKER,
    choose_form,
    local_folder,
    refuse_options,
)
from airls_ray.prm.heads import (
    has_weight,
    linear_head,
    load_backbone,
    token_pair_head,
    two_layer_head,
)
from airls_ray.prm.items import StepScorer
from airls_ray.prm.project import ProjectScorer
from airls_ray.prm.scorer import HeadScorer
from airls_ray.prm.tokenizer import PRMTokenizer


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
    folder = local_folder(path)
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
        encoder = MarkedChat(tokenizer, CHAT_MARKER)
    else:
        encoder = MarkedText(tokenizer, TEXT_MARKER) if form == "plus_minus" else Conversation(tokenizer)
    backbone = load_backbone(folder, info.architecture, dtype)
    if form.startswith("plus_minus"):
        head = token_pair_head(folder, backbone, minus=tokenizer.one_id("-"), plus=tokenizer.one_id("+"))
    else:
        head = two_layer_head(folder) if has_weight(folder, "score.0.weight") else linear_head(folder)
    return HeadScorer(backbone.to(place), head, encoder, folder=str(path), batch_tokens=batch_tokens)


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
