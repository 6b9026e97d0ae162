"""MMLU: questions with choices; the answer is an index from 0, a letter or a text."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(prompt="question", answer="answer", subject="subject|category", choices="choices|options")
)
