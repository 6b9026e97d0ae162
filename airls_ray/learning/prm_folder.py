"""What a PRM folder says of itself: how its scores are read, so that search needs no configuration."""

from __future__ import annotations

import json
from pathlib import Path

from airls_ray.config.schema import PRMConfig
from airls_ray.errors import ModelError

FILE = "prm.json"
_FIELDS = ("parameterisation", "action", "log_prob", "search_score", "search_aggregate", "shaping")


def write_prm_form(config: PRMConfig, folder: Path) -> None:
    """Write the fields that scoring depends on beside the model."""
    form = {field: getattr(config, field) for field in _FIELDS}
    (folder / FILE).write_text(json.dumps(form, indent=2) + "\n")


def read_prm_form(folder: Path, config: PRMConfig) -> PRMConfig:
    """Return `config` with the form that the folder's PRM was trained in.

    Raises:
        ModelError: the file is missing or broken.
    """
    path = folder / FILE
    try:
        form = json.loads(path.read_text())
        fields = {**config.model_dump(), **{key: form[key] for key in _FIELDS}}
        if fields["action"] == "step":
            fields["reward_unit"] = "step"
        return PRMConfig.model_validate(fields)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no PRM of this project: it has no {FILE}; give the `prm` folder of a checkpoint"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is broken ({error}); take the PRM from another checkpoint") from error
