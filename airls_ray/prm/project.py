"""This project's own PRM folders (`prm.json`) as scorers of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.errors import DataError, ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.models.load import DType, load_prm_module
from airls_ray.prm.encoders import PromptTemplate
from airls_ray.prm.folder import PromptForm, read_prm_form, read_prompt_form
from airls_ray.prm.items import (
    StepText,
    first_tokens,
    fits,
    refuse_blank_steps,
    refuse_long,
    with_beginning,
)
from airls_ray.prm.prefix_scores import PrefixScorer
from airls_ray.search.scoring import Continuation
from airls_ray.text.tokenizer_files import load_tokenizer


class ProjectScorer:
    """Scores by the form in `prm.json`: sigmoid(f) of a scalar head, exp(mean log phi) of a language model.

    The problem is put as `prm.json` says (of older folders: as it is, by `prompt_template`). The steps are
    encoded one by one, as they are: each with its task's delimiter, like `TextCodec.step_texts` gives them.
    A language model is read at temperature 1. Implements `StepScorer`.
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
        self._prompt_form = read_prompt_form(folder) or PromptForm(prompt_template)
        loaded = load_tokenizer(folder, chat=self._prompt_form.template == "chat")
        self._tokenizer = loaded
        self._folder = folder
        self._limit = check_model_folder(folder).context_tokens
        module = load_prm_module(folder, config.parameterisation, dtype).to(device)
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
        encoded = {at: self._encode(item) for at, item in enumerate(items) if item.steps}
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
        return fits(self._encode, item)

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """See `StepScorer.cut_last_step`; an end of sequence is no token of a step's text."""
        step = item.steps[-1]
        offsets = self._encoding(item, step, special=False).offsets
        return with_beginning(item, first_tokens(step, offsets, tokens, str(self._folder)))

    def _encode(self, item: StepText) -> Continuation:
        refuse_blank_steps(item)
        prompt = self._prompt(item)
        tokens: list[int] = []
        ends = []
        for number, step in enumerate(item.steps, 1):
            ids = self._ids(item, step, special=False)
            if not ids:
                raise DataError(f"{item.where}: step {number} has no tokens for the PRM {self._folder}")
            tokens += ids
            ends.append(len(tokens))
        if item.finished:  # as in rollouts: it belongs to the last step
            tokens.append(self._tokenizer.eos_id)
            ends[-1] += 1
        if not prompt:
            raise DataError(f"{item.where}: the problem has no tokens for the PRM {self._folder}")
        refuse_long(item, len(prompt) + len(tokens), self._limit, self._folder)
        return Continuation(tuple(prompt), tuple(tokens), tuple(ends), (0.0,) * len(ends))

    def _prompt(self, item: StepText) -> list[int]:
        system, user = self._prompt_form.system, self._prompt_form.wrap(item.problem)
        if self._tokenizer.chat is not None:
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": user})
            return self._tokenizer.chat.apply_chat_template(messages)
        ids = self._ids(item, f"{system}\n\n{user}" if system else user, special=True)
        while ids and ids[-1] in self._tokenizer.eos_ids:  # some tokenizers close every text
            ids.pop()
        return ids

    def _ids(self, item: StepText, text: str, special: bool) -> list[int]:
        return list(self._encoding(item, text, special).ids)

    def _encoding(self, item: StepText, text: str, special: bool) -> Any:
        try:
            return self._tokenizer.encode(text, begin=special)
        except DataError as error:
            raise DataError(f"{item.where}: {error}") from error


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
    if (config.parameterisation == "scalar_head") != architecture.endswith("ForTokenClassification"):
        raise ModelError(
            f"{folder} says parameterisation={config.parameterisation} in its prm.json but holds a "
            f"{architecture or 'model of no named architecture'}: take the PRM from another checkpoint"
        )
