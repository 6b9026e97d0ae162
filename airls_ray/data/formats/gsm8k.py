"""GSM8K: the answer is the number behind `####`, and the whole is the trace."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(FieldsConfig(prompt="question", answer="after_hash(answer)", traces="answer"))
