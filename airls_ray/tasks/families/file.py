"""Problems from files or the hub, graded by text, by letter or by math-verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airls_ray.tasks.answers import without_thoughts
from airls_ray.tasks.base import Grade, Problem
from airls_ray.tasks.choices import grade_choice
from airls_ray.tasks.math_grader import grade_math
from airls_ray.tasks.problem_files import TwoFiles
from airls_ray.text.steps import StepRule

if TYPE_CHECKING:
    from airls_ray.config.schema import FileTaskConfig


class FileTask(TwoFiles):
    """Problems from two files; the truth of a step is not known. Implements `Task`."""

    name = "file"

    def __init__(self, config: FileTaskConfig) -> None:
        """Keep the configuration; the files are read when problems are first asked for."""
        super().__init__(config.train_file, config.test_file, config.test_problems)
        self._config = config
        self.step_delimiter = config.step_delimiter
        self.step_rule: StepRule = config.steps

    def wrap(self, prompt: str) -> tuple[str, str]:
        """Return the system prompt (empty: none) and the user's message around `prompt`."""
        return self._config.system_prompt, self._config.prompt_template.replace("{prompt}", prompt)

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge the final answer with the configured grader, or the letter where the problem has choices."""
        if "permutation" in problem.details:
            return grade_choice(problem, response)
        if self._config.grader == "math":
            return grade_math(problem.answer, response)
        return grade_exact(problem.answer, response, self._config.answer_marker)

    def warm_up(self) -> None:
        """Import what grading needs, so that the first response does not pay for it."""
        if self._config.grader == "math":
            grade_math("\\sqrt{2}", "$\\int x$")  # plain numbers need neither mpmath nor math-verify

    def _read(self, source: Path) -> list[Problem]:
        # Grader processes never come here and must not pay for the import of Arrow.
        from airls_ray.data.importing import import_problems, log_bad_rows

        config = self._config
        found = import_problems(source, config.format, config.fields, config.bad_rows)
        log_bad_rows(source, found)
        return found.problems


def grade_exact(answer: str, response: str, marker: str) -> Grade:
    """Compare the text after the last `marker`, or else the last line, with `answer`, without thoughts."""
    response = without_thoughts(response)
    _, found, tail = response.rpartition(marker) if marker else ("", "", "")
    lines = response.strip().splitlines()
    given = tail.strip() if found else lines[-1].strip() if lines else ""
    return Grade(float(given == answer.strip()), given or None) if given else Grade(0.0, None)


TASK = FileTask
