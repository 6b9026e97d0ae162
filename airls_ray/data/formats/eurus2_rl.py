"""Eurus-2-RL: rows whose ability is code are left out."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format
from airls_ray.data.rl_rows import verl_details

FORMAT = Format(
    FieldsConfig(
        prompt="last_user(prompt)",
        answer="reward_model.ground_truth",
        subject="ability",
    ),
    only=("ability", "math"),
    details=verl_details,
)
