"""Data sets in the forms of TRL; what its reward functions are given stays with the problem."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format
from airls_ray.data.rl_rows import trl_details, trl_row

FORMAT = Format(
    FieldsConfig(
        prompt="prompt",
        answer="only(answer)|only(ground_truth)|boxed(solution)|after_hash(solution)|solution"
        "|boxed(completion)|after_hash(completion)",
        traces="worked(solution)|completion",
    ),
    prepare=trl_row,
    details=trl_details,
)
