"""What may differ between a run and its continuation: the one list of it, and the sentence about the rest.

A resumed run must end in the numbers of a run that was never stopped, so a field may change only if no
figure of the iterations depends on it beyond rounding. What is not listed may not change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from airls_ray.config.schema import Config
from airls_ray.errors import RunError

MAY_CHANGE = frozenset(
    {
        "failures", "name", "output", "ray", "reference", "rollout", "search", "serve", "sft",
        "supervised_prm",
        "verifier", "model.attention", "model.trust_remote_code",
        *(
            f"{learner}.{field}"
            for learner in ("policy", "prm.learner")
            for field in (
                "compile", "gradient_checkpointing", "layout", "logit_chunk_mib", "resources",
                "tokens_per_microbatch",
            )
        ),
        *(
            f"train.{field}"
            for field in (
                "best_metric", "checkpoint_every", "deadline_seconds", "evaluate_every", "grace_seconds",
                "iterations", "keep_best", "keep_checkpoints", "patience", "rollouts_every", "storage",
                "storage_deadline_seconds", "sync_check", "sync_tolerance", "trackers",
            )
        ),
    }
)  # fmt: skip
"""Fields, and sections with all that is in them, that a resume may change."""

MAY_NOT = frozenset(
    {
        "reference.path", "rollout.engine.dtype", "rollout.max_response_tokens", "rollout.temperature",
        "rollout.top_p", "rollout.top_k", "rollout.min_p",
        # The samples of the base policy are kept, and those of the trained one must be drawn alike.
        "search.problems", "search.problems_per_call", "search.samples", "search.temperature",
        "search.top_p", "search.top_k", "search.min_p",
    }
)  # fmt: skip
"""Exceptions inside the sections of `MAY_CHANGE`."""

BY_CONTENT = frozenset(
    {"model.path", "prm.path", "reference.path", "task.hold_out_files", "task.test_file", "task.train_file"}
)
"""Paths: they may change if what lies there is known to be the same (airls_ray/runs/checkpoint_record.py)."""

_ABSENT = object()


def may_change(field: str) -> bool:
    """Whether a resume may change `field` (dotted); the longest listed prefix decides."""
    names = field.split(".")
    for length in range(len(names), 0, -1):
        prefix = ".".join(names[:length])
        if prefix in MAY_NOT:
            return False
        if prefix in MAY_CHANGE:
            return True
    return False


def check_resume(before: Config, now: Config, same: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return the fields that changed, all of which may: dotted name to (before, now).

    `same`: those of `BY_CONTENT` that were found to name the same as before.

    Raises:
        RunError: fields changed that may not.
    """
    changed = changes(before, now)
    if not before.train.evaluate_every:  # nothing was evaluated that later figures must be comparable with
        same = {*same, *(field for field in changed if field.startswith("train.evaluation."))}
    wrong = {field: pair for field, pair in changed.items() if not may_change(field) and field not in same}
    if wrong:
        fine = [field for field in changed if field not in wrong and field not in ("name", "output")]
        also = f" ({', '.join(fine)} changed too, which is fine)" if fine else ""
        raise RunError(
            f"--resume cannot go on with another configuration: {describe(wrong)}; set back what changed, or "
            f"start a run of another name, from this one's checkpoint by model.path and prm.path{also}"
        )
    return changed


def describe(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return `seed was 0 and is 1, ...`."""
    return ", ".join(f"{field} was {_text(old)} and is {_text(new)}" for field, (old, new) in changed.items())


def changes(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Return what differs: dotted name of the field to (before, now); a field that one lacks is None."""
    old, new = (_leaves(config.model_dump(mode="json")) for config in (before, now))
    differing = [field for field in sorted(old | new) if old.get(field, _ABSENT) != new.get(field, _ABSENT)]
    return {field: (old.get(field), new.get(field)) for field in differing}


def read_run_config(path: Path) -> Config:
    """Return the configuration that a run wrote; fields that it did not know yet have their defaults.

    Its name is left out: a folder may have been given another one, which no configuration would have.

    Raises:
        RunError: it is missing, broken or of a version with other fields.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Config.model_validate({key: value for key, value in tree.items() if key != "name"})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise RunError(
            f"{path} is missing or broken, so that nobody can tell whether the run goes on as it began: "
            "write it again with the configuration of the run"
        ) from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunError(
            f"{path} has a setting that this version does not take ({where}): resume with the version that "
            "made the run, or start a run of another name"
        ) from error


def _leaves(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, f"{above}{key}.")
        elif not isinstance(value, Mapping):
            found[f"{above}{key}"] = value
    return found


def _text(value: Any) -> str:
    text = "not set" if value is None else f"{value}"
    return text if len(text) <= 60 else f"{text[:57]}..."
