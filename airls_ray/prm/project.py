"""This project's own PRM folders (`prm.json`) as scorers of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.errors import ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.models.load import DType, load_prm_module
from airls_ray.models.policy_head import is_policy_head
from airls_ray.prm.encoders import PromptTemplate
from airls_ray.prm.folder import PromptForm, read_prm_form, read_prompt_form
from airls_ray.prm.items import StepText, fits
from airls_ray.prm.prefix_scores import PrefixScorer
from airls_ray.prm.step_encoder import StepEncoder


class ProjectScorer:
    """Scores by the form in `prm.json`: sigmoid(f) of a scalar head, exp(mean log phi) of a language model.

    The problem is put as `prm.json` says (of older folders: as it is, by `prompt_template`), and so are the
    steps: see `StepEncoder`. A language model is read at temperature 1. Implements `StepScorer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: DType,
        device: torch.device,
        prompt_template: PromptTemplate = "plain",
        batch_tokens: int = 16384,
    ) -> None:
        """Load the PRM.

        Raises:
            ModelError: the folder or its form is broken, the form needs the policy (`ratio`, `product`) or
                the state after a step (shaping), or there is no chat template where one is asked for.
        """
        config = read_prm_form(folder, PRMConfig())
        _refuse_form(folder, config)
        form = read_prompt_form(folder) or PromptForm(prompt_template)
        limit = check_model_folder(folder).context_tokens
        self._encoder = StepEncoder.from_folder(folder, form, limit)
        module = load_prm_module(folder, config.parameterisation, dtype, outcome_beta=config.outcome_head).to(
            device
        )
        self._scorer = PrefixScorer(
            module,
            config,
            temperature=1.0,
            device=device,
            cache_tokens=0,
            tokens_per_microbatch=batch_tokens,
        )

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """See `StepScorer.score`; items without steps get an empty list."""
        encoded = {at: self._encoder.encode(item) for at, item in enumerate(items) if item.steps}
        order = sorted(encoded, key=lambda at: (encoded[at].prefix, encoded[at].tokens))
        found, _ = self._scorer.score([encoded[at] for at in order])
        scores: list[list[float]] = [[] for _ in items]
        for at, one in zip(order, found, strict=True):
            scores[at] = list(one)
        for item, one_item in zip(items, scores, strict=True):
            assert len(one_item) == len(item.steps), f"{len(one_item)} scores of {len(item.steps)} steps"
        return scores

    def fits(self, item: StepText) -> bool:
        """See `StepScorer.fits`."""
        return fits(self._encoder.encode, item)

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """See `StepScorer.cut_last_step`; an end of sequence is no token of a step's text."""
        return self._encoder.cut_last_step(item, tokens)


def _refuse_form(folder: Path, config: PRMConfig) -> None:
    if config.search_score in ("ratio", "product", "reference_ratio"):
        whose = "reference model" if config.search_score == "reference_ratio" else "policy"
        raise ModelError(
            f"the PRM {folder} scores by search_score={config.search_score}, which needs the {whose}'s "
            "log-probabilities, and texts have none: search with it, or change search_score in its prm.json"
        )
    if config.shaping:
        raise ModelError(
            f"the PRM {folder} has shaping, which needs the state after each step: train it without"
        )
    architecture = check_model_folder(folder).architecture or ""
    if is_policy_head(folder):  # holds no backbone
        return
    if (config.parameterisation == "scalar_head") != architecture.endswith("ForTokenClassification"):
        raise ModelError(
            f"{folder} says parameterisation={config.parameterisation} in its prm.json but holds a "
            f"{architecture or 'model of no named architecture'}: take the PRM from another checkpoint"
        )
