"""Data sets made for verl; what its reward functions are given stays with the problem."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format
from airls_ray.data.rl_rows import verl_details

FORMAT = Format(
    FieldsConfig(prompt="prompt", answer="only(reward_model.ground_truth)", subject="ability"),
    details=verl_details,
)
