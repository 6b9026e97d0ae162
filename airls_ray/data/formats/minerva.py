"""Minerva's problems of physics and mathematics."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="problem|question",
        answer="answer|boxed(solution)",
        traces="solution",
        problem_id="idx",
        subject="type",
    )
)
