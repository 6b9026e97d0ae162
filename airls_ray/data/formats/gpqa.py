"""GPQA: questions with four choices."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="Question",
        answer="Correct Answer",
        traces="Explanation",
        problem_id="Record ID",
        subject="High-level domain",
        choices=["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"],
    )
)
