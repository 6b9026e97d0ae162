"""Load and save models in Hugging Face format, with errors of one sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification
from transformers.utils import logging

from airls_ray.config.model_sections import LOGIT_CHUNK_MIB
from airls_ray.errors import ModelError
from airls_ray.models.attention import (
    AttentionName,
    AttentionTraits,
    Machine,
    check_attention,
    choose_attention,
    set_attention,
)
from airls_ray.models.check import check_model_folder
from airls_ray.models.logits import check_logit_form
from airls_ray.models.modules import (
    PolicyHeadModule,
    PolicyModule,
    PRMModule,
    ScalarHeadModule,
    hf_name,
)
from airls_ray.models.policy_head import is_policy_head, policy_of, put_head, read_head, save_head
from airls_ray.models.text_head import put_text_head
from airls_ray.text.tokenizer_files import generation_file, transformers_tokenizer

DType = Literal["float32", "bfloat16"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",  # which tokens end a response
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def load_policy_module(
    path: Path | str,
    dtype: DType = "float32",
    *,
    attention: AttentionName = "auto",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    logit_chunk_mib: int = LOGIT_CHUNK_MIB,
) -> PolicyModule:
    """Load a causal language model (policy, reference or log-probability PRM).

    Args:
        path: model folder or hub name; only safetensors weights are read.
        dtype: data type of the weights.
        attention: what `airls_ray.models.attention.choose_attention` takes; every one takes both layouts.
        trust_remote_code: whether code inside the folder may run.
        gradient_checkpointing: recompute activations in the backward pass.
        logit_chunk_mib: most fp32 logits that are computed at once, in MiB; 0 for all.

    Raises:
        ModelError: the folder is missing or broken, or holds another kind of model, or one whose logits or
            attention cannot be computed as it does itself.
    """
    info = check_model_folder(path)
    if info.architecture is not None and info.architecture.endswith("Classification"):
        raise ModelError(
            f"{path} holds a {info.architecture}, not a causal language model: give another folder"
        )
    model, report = _from_pretrained(AutoModelForCausalLM, path, dtype, attention, trust_remote_code)
    _refuse_missing(path, report["missing_keys"], "a causal language model")
    check_logit_form(model, path)
    return PolicyModule(_prepared(model, gradient_checkpointing), logit_chunk_mib=logit_chunk_mib)


def load_prm_module(
    path: Path | str,
    parameterisation: Literal["log_prob", "scalar_head"],
    dtype: DType = "float32",
    shaping: bool = False,
    *,
    outcome_beta: float | None = None,
    attention: AttentionName = "auto",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    logit_chunk_mib: int = LOGIT_CHUNK_MIB,
    head: Literal["linear", "policy"] = "linear",
    text_head: bool = False,
) -> PRMModule:
    """Load a PRM, or start one from a policy's folder.

    `log_prob`: the causal language model as it is. `scalar_head`: a token classifier with one label (two
    with `shaping`, or with `outcome_beta`, which is `prm.outcome_head`); a folder without a head (the
    policy's) gets one of zeros, so that f is 0 everywhere at the start. With `head="policy"`, and for a
    folder of such a PRM, a frozen policy with a head of two layers (`airls_ray.models.policy_head`). With
    `text_head` a linear head keeps the language model's output layer beside it, for a loss on texts.

    Raises:
        ModelError: as `load_policy_module`, or the folder's head has another number of labels or policy.
    """
    if is_policy_head(path) or head == "policy":
        return _load_policy_head(path, dtype, attention, trust_remote_code)
    if parameterisation == "log_prob":
        return load_policy_module(
            path,
            dtype,
            attention=attention,
            trust_remote_code=trust_remote_code,
            gradient_checkpointing=gradient_checkpointing,
            logit_chunk_mib=logit_chunk_mib,
        )
    labels = 2 if shaping or outcome_beta is not None else 1
    check_model_folder(path)
    model, report = _from_pretrained(
        AutoModelForTokenClassification, path, dtype, attention, trust_remote_code, num_labels=labels
    )
    head_keys = {key for key in report["missing_keys"] if key.startswith("score.")}
    _refuse_missing(path, set(report["missing_keys"]) - head_keys, "a model with this backbone")
    for key in head_keys:  # a reward model's head has no bias, and its weight is kept
        nn.init.zeros_(model.get_parameter(key))
    module = ScalarHeadModule(_prepared(model, gradient_checkpointing), outcome_beta=outcome_beta)
    if text_head:
        put_text_head(module, _output_layer(model, path, dtype, attention, trust_remote_code))
    return module


def _output_layer(
    model: Any, path: Path | str, dtype: DType, attention: AttentionName, trust_remote_code: bool
) -> nn.Module | None:
    """The output layer of the language model in `path`; None where it is the input embedding."""
    if model.config.get_text_config().tie_word_embeddings:
        return None
    whole, report = _from_pretrained(AutoModelForCausalLM, path, dtype, attention, trust_remote_code)
    _refuse_missing(path, report["missing_keys"], "a causal language model (supervised_prm.text_loss)")
    layer: nn.Module = whole.get_output_embeddings()
    return layer


def _load_policy_head(
    path: Path | str, dtype: DType, attention: AttentionName, trust_remote_code: bool
) -> PolicyHeadModule:
    check_model_folder(path)
    policy = policy_of(Path(path)) if is_policy_head(path) else str(path)
    check_model_folder(policy)
    model, report = _from_pretrained(
        AutoModelForTokenClassification, policy, dtype, attention, trust_remote_code, num_labels=1
    )
    lacking = {key for key in report["missing_keys"] if not key.startswith("score.")}
    _refuse_missing(policy, lacking, "a model with this backbone")
    put_head(model, policy)
    if is_policy_head(path):
        read_head(model, Path(path))
    return PolicyHeadModule(_prepared(model, False), policy)


def save_hf(
    module: PolicyModule | ScalarHeadModule,
    state_dict: Mapping[str, Tensor] | None,
    tokenizer_folder: Path | str,
    folder: Path,
) -> None:
    """Save a module with its tokenizer, loadable by `from_pretrained` and by vLLM.

    A head on the frozen policy is saved alone, for `load_prm_module`.

    Args:
        module: gives the configuration (its own weights are read only where `state_dict` is None).
        state_dict: full parameters by Hugging Face name, as `TrainEngine.named_weights` yields them; buffers
            are the module's own.
        tokenizer_folder: folder to copy the tokenizer from (may be `folder` itself).
        folder: made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(module, PolicyHeadModule):
        weights = dict(module.hf_parameters()) if state_dict is None else state_dict
        save_head(module.model.config, module.policy, weights, folder)
        copy_tokenizer(tokenizer_folder, folder)
        return
    state = None
    if state_dict is not None:
        whole = {**state_dict, **_buffers(module.model)}
        state = {name: value.contiguous() for name, value in whole.items()}
    with quiet_transformers():
        module.model.save_pretrained(folder, state_dict=state)
    copy_tokenizer(tokenizer_folder, folder)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return what a folder holds beside parameters, such as the biases of DeepSeek-V3's routers."""
    names = model.state_dict().keys()
    named = ((hf_name(name), value) for name, value in model.named_buffers() if name in names)
    return {name: value for name, value in named if name is not None}


def copy_tokenizer(source: Path | str, folder: Path) -> None:
    """Copy the tokenizer's files of `source` into `folder`, with what says which tokens end a response; a hub
    name is loaded and saved."""
    if not Path(source).is_dir():
        transformers_tokenizer(source).save_pretrained(folder)
        file = generation_file(source)
        if file is not None:
            shutil.copyfile(file, folder / "generation_config.json")
        return
    if Path(source).resolve() == folder.resolve():
        return
    for name in _TOKENIZER_FILES:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, folder / name)


def _from_pretrained(
    auto: Any,
    path: Path | str,
    dtype: DType,
    attention: AttentionName,
    trust_remote_code: bool,
    **options: Any,
) -> tuple[Any, dict[str, Any]]:
    machine = Machine.here()
    check_attention(attention, machine)
    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(
                str(path),
                dtype=getattr(torch, dtype),
                attn_implementation=None if attention == "auto" else attention,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        where = path if Path(path).is_dir() else f"{path} (no folder here, so taken as a hub name)"
        raise ModelError(f"the model {where} cannot be loaded: {reason}") from error
    if report["mismatched_keys"]:
        name, found, wanted = sorted(report["mismatched_keys"])[0]
        raise ModelError(
            f"the weight {name} of {path} has shape {list(found)} where {list(wanted)} is needed: "
            "check prm.shaping and prm.parameterisation, or save the model again"
        )
    with quiet_transformers():
        set_attention(model, choose_attention(attention, AttentionTraits.of(model, dtype), machine, path))
    _own_memory(model)
    return model, report


def _own_memory(model: Any) -> None:
    """Copy the weights out of the mapped file.

    There they lie at whatever address its header leaves them, and some processors' matrix products round
    by that: a run that was resumed from a checkpoint differed in the last digit from one that went through.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars and load reports of transformers out of the job log."""
    if not torch.cuda.is_available():  # a save imports DeepSpeed, which warns where it has to find that out
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_missing(path: Path | str, missing: Any, kind: str) -> None:
    names = sorted(missing)
    if names:
        raise ModelError(f"{path} is not {kind}: its weights lack {names[0]} ({len(names)} missing)")


def _prepared(model: Any, gradient_checkpointing: bool) -> Any:
    """Training mode without dropout: old and new log-probabilities must come from the same network."""
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        # Attention takes its rate from a number of the layer or of its configuration, and has no such layer.
        for holder in (layer, getattr(layer, "config", None)):
            for name, value in dict(getattr(holder, "__dict__", {})).items():
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()
