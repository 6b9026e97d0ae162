"""Arrow schemas: what every table that crosses a process boundary looks like.

Wire type is `pa.Table` (Ray serialises a slice of a table compactly, a slice of a record batch with
its whole parent). Tables that belong to the same rollouts (`outcomes`, `rewards`, `logprobs`) are
joined by position and never rewrite the rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "1"


def _versioned(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    metadata = {"airls_ray.schema": name, "airls_ray.version": SCHEMA_VERSION}
    return pa.schema([pa.field(key, kind) for key, kind in fields], metadata=metadata)


PROBLEMS = _versioned(
    "problems",
    [
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("traces", pa.list_(pa.string())),
        # What the task needs to judge a step, as JSON: never read by the learners.
        ("details", pa.string()),
    ],
)
"""One row a problem, as text; `traces` holds its correct reference solutions (may be empty)."""

ROLLOUTS = _versioned(
    "rollouts",
    [
        ("problem_id", pa.string()),
        ("group", pa.int64()),
        ("index", pa.int16()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("version", pa.int32()),
        ("step_ends", pa.list_(pa.int32())),
        ("finish", pa.dictionary(pa.int8(), pa.string())),
        ("outcome", pa.float32()),
        ("worker", pa.string()),
        ("seconds", pa.float32()),
        ("token_versions", pa.list_(pa.int32())),
    ],
)
"""One row a rollout. `group`: position of its problem in the iteration. `logprobs`: natural log, of
the policy version that sampled. `step_ends`: exclusive ends in `response`; the last one equals its
length. `finish`: "stop" or "length". `outcome`: null until graded. `version`: of the policy that sampled;
where a weight sync came in between, that of the first token, and `token_versions` has one for each (else
null)."""

TRACES = _versioned(
    "traces",
    [
        ("problem_id", pa.string()),
        ("group", pa.int64()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
        ("step_ends", pa.list_(pa.int32())),
    ],
)
"""Correct reference solutions as tokens, same template and end-of-sequence as the rollouts."""

PREFIXES = _versioned(
    "prefixes",
    [
        ("problem_id", pa.string()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
    ],
)
"""Beginnings of responses that are to be continued; `response` ends with a whole step."""

COMPLETIONS = _versioned(
    "completions",
    [
        ("problem_id", pa.string()),
        ("prefix", pa.int64()),
        ("index", pa.int16()),
        ("response", pa.list_(pa.int32())),
        ("step_ends", pa.list_(pa.int32())),
        ("tokens", pa.int32()),
    ],
)
"""Continuations of prefixes, several for each. `prefix`: number of the prefix. `response`: prefix and
continuation together, as the verifier reads it, of which `tokens` were sampled. `step_ends`: empty, since
only the outcome is asked for."""

EXPANSIONS = _versioned(
    "expansions",
    [
        ("problem_id", pa.string()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
        ("count", pa.int32()),
        ("whole", pa.bool_()),
        ("max_tokens", pa.int32()),
        ("lookahead", pa.int32()),
        ("temperature", pa.float32()),
        ("seed", pa.int64()),
        ("top_p", pa.float32()),
        ("top_k", pa.int32()),
        ("min_p", pa.float32()),
    ],
)
"""What a search wants: `count` continuations of prompt and response, each of one step (or `whole`, to the
end of the response) and at most `max_tokens` tokens (null: no such cut), and greedy steps to look ahead.
Sampled is among the tokens that have at least `min_p` times the probability of the most probable one (0:
all), of these among the `top_k` most probable (0: all), and of these among those that together have
probability `top_p` (1: all).
Continuation i has seed + i."""

CONTINUATIONS = _versioned(
    "continuations",
    [
        ("expansion", pa.int32()),
        ("index", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("step_ends", pa.list_(pa.int32())),
        ("finish", pa.dictionary(pa.int8(), pa.string())),
        ("ahead", pa.list_(pa.int32())),
        ("ahead_logprobs", pa.list_(pa.float32())),
        ("ahead_ends", pa.list_(pa.int32())),
        ("sampled", pa.int32()),
    ],
)
"""The continuations of expansion `expansion` (its row). `step_ends`: exclusive ends in `tokens`. `finish`:
"step" (a step is over), "partial" (cut by `max_tokens`), "stop" (the response is over), "length" (no tokens
were left). `ahead`: tokens looked ahead, with their log-probabilities and the ends of their steps. `sampled`:
tokens that it cost, those cut off and looked ahead included."""

GRADES = _versioned(
    "grades",
    [
        ("outcome", pa.float32()),
        ("answer", pa.string()),
        ("step_truth", pa.list_(pa.bool_())),
        ("status", pa.dictionary(pa.int8(), pa.string())),
    ],
)
"""Joined to rollouts by position. `answer`: canonical form, null if none was found. `step_truth`: one
value per step, null where the task does not know. `status`: "graded", the reason that the task gives (such
as "wrong_answer", or "unparsable" for the problem's own answer), "timeout", "crashed" or "raised".
Where the configuration has rewards, the grades of a training iteration have columns more, which
`airls_ray.grading.reward_table` describes."""

LABEL = "outcome_label"
"""Column of the outcomes that a rule of the method gives in the place of the grader's."""
REWARD_SUM = "reward"
"""Column of the weighted sum of the rewards that are one number a response."""
REWARD_STEPS = "reward_steps"
"""Column of the weighted sum of those that are one number a step."""

OUTPUTS = _versioned(
    "outputs",
    [
        ("problem_id", pa.string()),
        ("index", pa.int32()),
        ("response", pa.string()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("outcome", pa.float32()),
        ("answer", pa.string()),
        ("status", pa.string()),
    ],
)
"""Graded responses as text (`airls-ray evaluate`). `index`: number of the sample; -1 for the greedy one.
`tokens`, `finish`: null where they are not known; the rest as in ROLLOUTS and GRADES."""

TOKEN_LOGPROBS = _versioned("token_logprobs", [("logprobs", pa.list_(pa.float32()))])
"""Joined by position: log-probability of every response token under some model."""

STEP_SCORES = _versioned(
    "step_scores",
    [
        ("rewards", pa.list_(pa.float32())),
        ("values", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float64())),
    ],
)
"""Joined to rollouts by position, one value per step: `rewards` (per response token where
`prm.reward_unit` is token) go to credit assignment, `values` are the PRM's raw f, `scores` in [0, 1] are for
search (float64, which tells those near 1 apart)."""

PRM_LABELS = _versioned(
    "prm_labels",
    [
        ("problem_id", pa.string()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
        ("step_ends", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.float32())),
        ("outcome", pa.float32()),
        ("logprobs", pa.list_(pa.float32())),
        ("step_truth", pa.list_(pa.bool_())),
        ("prompt_text", pa.string()),
        ("step_texts", pa.list_(pa.string())),
    ],
)
"""One row a rollout whose steps are labelled. `labels`: in [0, 1], 1 is good, null for a step without
one. `outcome` and `logprobs` (of the policy that sampled): null where unknown. `step_truth`: where the
task knows it, for measuring alone. The texts are for readers that have another tokenizer."""

STORED_ROLLOUTS = _versioned(
    "stored_rollouts",
    [
        ("problem_id", pa.string()),
        ("prompt", pa.list_(pa.int32())),
        ("response", pa.list_(pa.int32())),
        ("step_ends", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("outcome", pa.float32()),
        ("answer", pa.string()),
    ],
)
"""One row a rollout (or a trace: outcome 1) that a PRM learns from without sampling. `logprobs`: of the
policy that sampled, null where unknown. `answer`: canonical form, null where unknown."""


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table` with exactly the columns, order and types of `schema`.

    Raises:
        ValueError: a column is missing, or cannot be cast without loss.
    """
    if "token_versions" in schema.names and "token_versions" not in table.column_names:  # an older file
        table = table.append_column("token_versions", pa.nulls(table.num_rows, pa.list_(pa.int32())))
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        kind = (schema.metadata or {}).get(b"airls_ray.schema", b"?").decode()
        raise ValueError(f"table lacks {missing} of schema {kind!r}; it has {table.column_names}")
    return table.select(schema.names).cast(schema)


def rows_to_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Return rows of Python values, in the order of the schema's fields, as a table of `schema`."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
