"""PRM800K: the steps that its raters found right are the trace."""

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import Format

FORMAT = Format(
    FieldsConfig(
        prompt="question.problem",
        answer="question.ground_truth_answer",
        traces="rated_right(label)|question.ground_truth_solution",
    )
)
