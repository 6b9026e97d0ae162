"""A plain language model in a PRM's place: the teacher of on-policy distillation."""

from __future__ import annotations

from pathlib import Path

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.errors import ModelError
from airls_ray.models.check import ModelInfo, check_model_folder
from airls_ray.prm.folder import read_prm_form
from airls_ray.text.tokenizer_files import require_same_tokens


def given_form(path: Path | str, config: PRMConfig) -> PRMConfig:
    """Return `config` with the form of the given PRM; a teacher has none but the configuration's.

    Raises:
        ModelError: the folder is no PRM.
    """
    return config if config.is_teacher else read_prm_form(Path(path), config)


def check_teacher(
    path: Path | str, policy: ModelInfo, context_tokens: int, what: str = "teacher", setting: str = "prm.path"
) -> None:
    """Check that a teacher (or a reference model that is named) can judge all that the policy may say.

    Its vocabulary may be larger than the policy's, as models of a family pad it to several sizes; the
    tokens of the tokenizers must be the same.

    Args:
        path: folder of the model, or its hub name, of which the tokenizer alone is looked at.
        policy: what learns from it.
        context_tokens: tokens of prompt and response.
        what: what it is, for sentences.
        setting: that names it.

    Raises:
        ModelError: in one sentence, what does not fit.
    """
    info = check_model_folder(path, context_tokens=context_tokens)
    if info.architecture is not None and not info.architecture.endswith("ForCausalLM"):
        raise ModelError(
            f"the {what} {path} holds a {info.architecture}, and it must be a causal language model: set "
            f"{setting} to one"
        )
    sizes = info.vocab_size, policy.vocab_size
    if sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]:
        raise ModelError(
            f"the {what} {path} has a vocabulary of {sizes[0]} tokens, and the policy {policy.path} may say "
            f"{sizes[1]}: take a {what} of the same family"
        )
    require_same_tokens(policy.path, path, what, f"take a {what} with the policy's tokenizer")
