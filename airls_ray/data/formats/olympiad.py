"""OlympiadBench: several final answers are one list."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="question|problem",
        answer="joined(final_answer)|answer",
        traces="solution",
        problem_id="id",
        level="difficulty",
        subject="subfield|subject",
    )
)
