"""MATH-500."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="problem",
        answer="answer",
        traces="solution",
        problem_id="unique_id",
        level="level",
        subject="subject",
    )
)
