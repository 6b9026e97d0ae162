"""AIME, with fields in small letters or in capitals."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="problem|Problem|question|Question",
        answer="answer|Answer",
        traces="solution|Solution",
        problem_id="id|ID|problem_id",
    )
)
