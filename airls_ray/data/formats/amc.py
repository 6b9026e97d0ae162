"""AMC: `142.0` is 142."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(FieldsConfig(prompt="problem|question", answer="answer", traces="solution", problem_id="id"))
