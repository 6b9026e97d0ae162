"""What a warm start leaves at every accuracy check, so that an interrupted one goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError, RunError
from airls_ray.truncation import Truncation

SUMMARY, METRICS = "sft.json", "metrics.jsonl"
"""What a warm start leaves beside its policy."""
_LATEST = "latest.json"


@dataclass
class SFTProgress:
    """How far a warm start is."""

    update: int = 0
    """Updates made."""
    tokens: float = 0.0
    """Tokens learned from."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(update, accuracy) of the checks."""
    seconds: float = 0.0
    """Of the runs before this one."""


def state_folder(folder: Path) -> Path:
    """Where the state of the warm start that leaves its policy in `folder` lies: a hidden sibling."""
    return folder.with_name(f".{folder.name}.state")


class SFTState:
    """The newest state of a warm start: the model, each rank's optimiser, how far it is.

    A state is whole before `latest.json` names it; the one before is deleted after that.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """`folder`: of `state_folder`."""
        self._folder = folder
        self._settings = _settings(config)

    def begin(self, resume: bool) -> Path | None:
        """Return the state to go on from, or None; without `resume` an old one is deleted.

        Raises:
            ConfigError: the state there is of other settings.
        """
        if not resume:
            files.remove(self._folder)
            return None
        latest = files.read_json(self._folder / _LATEST, dict)
        if latest is None:
            return None
        if latest["settings"] != self._settings:
            changed = [
                name for name, value in self._settings.items() if latest["settings"].get(name) != value
            ]
            raise ConfigError(
                f"{self._folder} is the state of a warm start with other settings ({', '.join(changed)}): "
                "resume with those, or start anew without --resume"
            )
        return self._folder / str(latest["state"])

    def save(self, engine: Any, source: str, metrics: Path, done: SFTProgress, seconds: float) -> None:
        """Write the state after an update; collective over the ranks."""
        state = self._folder / f"update_{done.update}"
        engine.save_state(state)
        weights = dict(engine.named_weights())  # collective under ZeRO-3
        if engine.rank == 0:
            from airls_ray.models.load import save_hf  # the driver reads states and needs no torch

            save_hf(engine.module, weights, source, state)
            shutil.copyfile(metrics, state / metrics.name)
        engine.sum_over_ranks({"written": 1.0})  # all have written before the state counts
        if engine.rank == 0:
            latest = {"state": state.name, "settings": self._settings, **vars(done), "seconds": seconds}
            files.write_text(self._folder / _LATEST, files.to_json(latest, indent=2))
            for old in self._folder.glob("update_*"):
                if old not in (state, Path(source)):  # what this run began with has the tokenizer
                    files.remove(old)

    @staticmethod
    def read(state: Path) -> SFTProgress:
        """How far the state that `begin` returned is.

        Raises:
            RunError: `latest.json` was changed in between.
        """
        latest = json.loads((state.parent / _LATEST).read_text(encoding="utf-8"))
        if latest["state"] != state.name:
            raise RunError(f"{state.parent} was changed by another process: start one warm start at a time")
        curve = [(int(update), float(accuracy)) for update, accuracy in latest["curve"]]
        return SFTProgress(latest["update"], latest["tokens"], curve, latest["seconds"])

    def forget(self) -> None:
        """Delete it: the policy is there."""
        files.remove(self._folder)


def _settings(config: Config) -> dict[str, Any]:
    """What the updates depend on."""
    tree = config.model_dump(mode="json", include={"task", "model", "sft", "seed", "rollout"})
    tree["sft"]["learner"].pop("resources")
    if not tree["model"]["chat_template_kwargs"]:  # older states do not know of them
        del tree["model"]["chat_template_kwargs"]
    tree["rollout"] = {name: tree["rollout"][name] for name in ("temperature", "max_response_tokens")}
    tree["rollout"] |= Truncation.of(config.rollout).given()
    return tree
