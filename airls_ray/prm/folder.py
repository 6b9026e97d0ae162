"""What a PRM folder says of itself: how problems are put and scores read, so that nobody else must know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from airls_ray.config.schema import Config, PRMConfig
from airls_ray.errors import ModelError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import WrapsPrompts

FILE = "prm.json"
_PROBLEM = "{prompt}"
_FIELDS = (
    "parameterisation",
    "action",
    "log_prob",
    "search_score",
    "search_aggregate",
    "shaping",
    "outcome_head",
)
_LATER = ("outcome_head",)
"""Fields that older folders do not have."""


@dataclass(frozen=True)
class PromptForm:
    """What the PRM's training put around a problem and behind its steps."""

    template: Literal["plain", "chat"] = "plain"
    """`chat`: the tokenizer's chat template."""
    system: str = ""
    """The system message, or without a chat template the text before; empty: none."""
    user: str = _PROBLEM
    """The user's message; `{prompt}` stands for the problem."""
    step_end: str = ""
    """What ends a step, but not the last of a whole solution, and is put behind steps without it. Empty:
    steps bring what ends them, as those of rollouts do."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template."""

    @classmethod
    def of(cls, config: Config, step_end: str = "") -> PromptForm:
        """Return that of a configuration: of its model and its task."""
        task = make_task(config.task)
        system, user = task.wrap(_PROBLEM) if isinstance(task, WrapsPrompts) else ("", _PROBLEM)
        model = config.model
        return cls(model.prompt_template, system, user, step_end, model.chat_template_kwargs)

    def wrap(self, problem: str) -> str:
        """Return the user's message around `problem`."""
        return self.user.replace(_PROBLEM, problem)

    def end_step(self, step: str) -> str:
        """Return a step with `step_end`, once."""
        if not self.step_end or step.endswith(self.step_end):
            return step
        return step.rstrip() + self.step_end


def write_prm_form(config: PRMConfig, folder: Path, prompt: PromptForm | None = None) -> None:
    """Write what scoring depends on beside the model."""
    form = {field: getattr(config, field) for field in _FIELDS}
    prompts = {} if prompt is None else {"prompt": asdict(prompt)}
    if prompt is not None and not prompt.chat_template_kwargs:
        del prompts["prompt"]["chat_template_kwargs"]
    (folder / FILE).write_text(json.dumps(form | prompts, indent=2) + "\n", encoding="utf-8")


def read_prompt_form(folder: Path) -> PromptForm | None:
    """Return what a PRM folder says of its prompts; None where it says nothing.

    Raises:
        ModelError: the file is missing or broken.
    """
    path = folder / FILE
    try:
        form = json.loads(path.read_text(encoding="utf-8")).get("prompt")
        if form is None:
            return None
        words = {name: str(form[name]) for name in ("template", "system", "user")}
        keywords = dict(form.get("chat_template_kwargs", {}))
        end = str(form.get("step_end", ""))
        prompt = PromptForm(**words, step_end=end, chat_template_kwargs=keywords)  # type: ignore[arg-type]
        if prompt.template not in ("plain", "chat") or _PROBLEM not in prompt.user:
            raise ValueError(f"prompt {form}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is broken ({error}); take the PRM from another checkpoint") from error
    return prompt


def read_prm_form(folder: Path, config: PRMConfig) -> PRMConfig:
    """Return `config` with the form that the folder's PRM was trained in.

    Raises:
        ModelError: the file is missing or broken.
    """
    path = folder / FILE
    try:
        form = json.loads(path.read_text())
        fields = {
            **config.model_dump(),
            **{key: form[key] for key in _FIELDS if key in form or key not in _LATER},
        }
        if fields["action"] == "step":
            fields["reward_unit"] = "step"
        return PRMConfig.model_validate(fields)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no PRM of this project: it has no {FILE}; give the `prm` folder of a checkpoint"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is broken ({error}); take the PRM from another checkpoint") from error
