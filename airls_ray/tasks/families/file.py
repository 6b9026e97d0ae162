"""Problems from files or the hub, graded by text, by letter or by math-verify."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airls_ray.tasks.base import Grade, Problem
from airls_ray.tasks.choices import grade_choice
from airls_ray.tasks.problem_files import TwoFiles

if TYPE_CHECKING:
    from airls_ray.config.schema import FileTaskConfig
    from airls_ray.tasks.grader_kind import Grader


class FileTask(TwoFiles):
    """Problems from two files; the truth of a step is not known. Implements `Task`."""

    name = "file"

    def __init__(self, config: FileTaskConfig) -> None:
        """Keep the configuration; the files are read when problems are first asked for."""
        super().__init__(config.train_file, config.test_file, config.test_problems)
        self._config = config
        self.step_delimiter = config.step_delimiter
        self.step_rule = config.steps.rule(config.step_delimiter)

    def wrap(self, prompt: str) -> tuple[str, str]:
        """Return the system prompt (empty: none) and the user's message around `prompt`."""
        return self._config.system_prompt, self._config.prompt_template.replace("{prompt}", prompt)

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge the final answer with the configured grader, or the letter where the problem has choices.

        Raises:
            DoorError: the grader does not open.
            ValueError: what it says is no verdict.
        """
        if "permutation" in problem.details:
            return grade_choice(problem, response)
        return self._grader.grade(response, problem.answer, problem.details, self._config.answer_marker)

    def warm_up(self) -> None:
        """Import what grading needs, so that the first response does not pay for it."""
        self._grader.warm_up()

    @cached_property
    def _grader(self) -> Grader:
        return self._config.grader.grader()  # at the first verdict, by a grader: it may be the user's own

    def _read(self, source: Path) -> list[Problem]:
        # Grader processes never come here and must not pay for the import of Arrow.
        from airls_ray.data.importing import import_problems, log_bad_rows

        config = self._config
        form = None if config.format is None else config.format.reads()
        found = import_problems(source, form, config.fields, config.bad_rows)
        log_bad_rows(source, found)
        return found.problems


TASK = FileTask
