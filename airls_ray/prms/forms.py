"""The forms of PRMs, and what can be said of one before anything heavy is imported to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError, ModelError
from airls_ray.models.check import check_model_folder

FORMS = {
    "token_classification": "a token classifier read at the end of each step (TRL's PRMTrainer)",
    "marker": "a classifier read at marker tokens in the assistant's turn (Qwen2.5-Math-PRM)",
    "plus_minus": "a language model, + against - at markers in a text (Math-Shepherd)",
    "plus_minus_chat": "a language model, + against - as answers in a conversation (RLHFlow)",
    "project": "a PRM that this project trained (prm.json)",
}
"""The forms, and whose they are."""


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
    if config.search.scorer != "prm":
        return
    if prm is None:
        raise ConfigError(
            "search.scorer is prm, but no PRM is given: give --prm, or set search.scorer=policy_log_prob"
        )
    check_model_folder(prm)
