"""MATH: the answer is the last box of the solution."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="problem",
        answer="boxed(solution)",
        traces="solution",
        level="level",
        subject="type",
    )
)
