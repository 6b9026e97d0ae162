"""Where the fields of a problem are in a row of a file."""

from __future__ import annotations

from airls_ray.config.base import StrictModel


class FieldsConfig(StrictModel):
    """Where the fields of a problem are in a row of the source: `field`, `a.b`, `extractor(a.b)` or, by `|`,
    the first of several that is there. Extractors: see docs/data.md."""

    prompt: str | None = None
    """The question."""
    answer: str | None = None
    """The final answer: text, a number, or with `choices` the letter, the index or the text of the right
    option."""
    traces: str | None = None
    """A correct solution or a list of them; rows may lack it."""
    problem_id: str | None = None
    """Identifier, text or number; rows may lack it (made from the prompt then)."""
    level: str | None = None
    """Difficulty; kept in the problem's details."""
    subject: str | None = None
    """Subject; kept in the problem's details."""
    choices: str | list[str] | None = None
    """Options of a multiple choice question: one field that holds the list, or the fields of the options.
    They are shown in an order drawn for each problem, and answers are letters."""
