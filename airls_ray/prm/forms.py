"""Which form a PRM has, by its folder's own files. Imports no torch: it is asked before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError, ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.prm.folder import FILE as PROJECT_FILE
from airls_ray.prm.tokenizer import PRMTokenizer

QWEN_PRM = "Qwen2ForProcessRewardModel"
"""Architecture of Qwen2.5-Math-PRM: a Qwen2 backbone whose class is code in the model's hub folder."""

FORMS = {
    "token_classification": "a token classifier read at the end of each step (TRL's PRMTrainer)",
    "marker": "a classifier read at marker tokens in the assistant's turn (Qwen2.5-Math-PRM)",
    "plus_minus": "a language model, + against - at markers in a text (Math-Shepherd)",
    "plus_minus_chat": "a language model, + against - as answers in a conversation (RLHFlow)",
    "project": "a PRM that this project trained (prm.json)",
}
"""The forms, and whose they are."""

MIXED_WITH_THE_POLICY = ("ratio", "product")
"""Scores of phi and pi together: both are read at one temperature."""

CHAT_MARKER, TEXT_MARKER = "<extra_0>", "ки"


def check_prm(
    path: Path | str,
    form: str = "auto",
    separator: str | None = None,
    prompt_template: Literal["plain", "chat"] = "plain",
) -> None:
    """Check what needs no model: the folder is there and whole, the form exists and has the options.

    Raises:
        ModelError: unknown form, or the folder is missing or broken.
        ConfigError: an option that this form does not have.
    """
    check_form(form)
    check_model_folder(path)
    if form != "auto":
        refuse_options(form, separator, prompt_template)


def check_form(form: str) -> None:
    """Raise ModelError for a form that does not exist."""
    if form != "auto" and form not in FORMS:
        raise ModelError(f"there is no PRM form {form!r}: the forms are {', '.join(FORMS)} and auto")


def refuse_options(form: str, separator: str | None, prompt_template: str) -> None:
    """Raise ConfigError for options that a form does not have."""
    if separator is not None and form != "token_classification":
        raise ConfigError(f"a separator is for form token_classification, but this PRM's form is {form}")
    if prompt_template != "plain" and form not in ("token_classification", "project"):
        raise ConfigError(f"form {form} has a prompt of its own: leave prompt_template at plain")


def check_search_models(config: Config, policy: Path | str, prm: Path | None) -> None:
    """Check that the folders of a search are there and whole.

    Raises:
        ConfigError: the scorer is the PRM, but none is given.
        ModelError: a folder is missing or broken.
    """
    check_model_folder(policy, context_tokens=config.model.context_tokens)
    if config.search.scorer.needs != "prm":
        return
    if prm is None:
        raise ConfigError(
            "search.scorer is prm, but no PRM is given: give --prm, or set search.scorer=policy_log_prob or "
            "to a scorer of your own"
        )
    check_model_folder(prm)


def check_search_score(config: Config, prm: Path | str) -> None:
    """Check that a search can read a PRM of this project as its form says (`config.prm`).

    Raises:
        ConfigError: it needs the reference model, an aggregate of another kind of score, or one temperature.
    """
    score, temperatures = config.prm.search_score, (config.search.temperature, config.rollout.temperature)
    if score == "reference_ratio":
        raise ConfigError(
            f"the PRM {prm} scores by its ratio to the reference model (search_score=reference_ratio), which "
            "a search does not load: set search_score to exp_f and search_aggregate to prod in its prm.json"
        )
    if config.search.aggregate in ("odds", "mean_odds") and config.prm.score_kind != "probability":
        raise ConfigError(
            f"search.aggregate={config.search.aggregate} is of probabilities, and the PRM {prm} scores by a "
            "density of language: use prod"
        )
    if score in MIXED_WITH_THE_POLICY and temperatures[0] != temperatures[1]:
        raise ConfigError(
            f"search_score={score} compares the PRM at rollout.temperature={temperatures[1]:g} with the "
            f"policy at search.temperature={temperatures[0]:g}: set both to the same"
        )


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
    folder = local_folder(path)
    if (folder / PROJECT_FILE).is_file():
        return "project"
    info = check_model_folder(folder)
    architecture = info.architecture or ""
    if architecture == QWEN_PRM:
        return "marker"
    if architecture.endswith("ForTokenClassification"):
        marked = _labels(folder) == 2 and PRMTokenizer(folder).knows(CHAT_MARKER)
        return "marker" if marked else "token_classification"
    if architecture.endswith("ForCausalLM"):
        names = _names(path, folder)
        if "shepherd" in names:
            return "plus_minus"
        if "prm" in names:
            tokenizer = PRMTokenizer(folder)
            if tokenizer.has_chat_template:
                return "plus_minus_chat"
            if tokenizer.knows(TEXT_MARKER):
                return "plus_minus"
    raise ModelError(
        f"{path} ({architecture or 'no architecture named'}) does not say what form of PRM it is: give "
        f"--form as one of {', '.join(FORMS)}"
    )


def local_folder(path: Path | str) -> Path:
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
