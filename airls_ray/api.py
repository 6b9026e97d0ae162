"""The door for Python: what the commands do, as functions. `import airls_ray` gives them (docs/python.md).

Each imports what it needs when it is called: `grade` neither PyTorch nor pydantic, `load_prm` no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airls_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from airls_ray.config.search_section import AlgorithmName
    from airls_ray.models.load import DType
    from airls_ray.prm.encoders import PromptTemplate
    from airls_ray.prm.items import StepScorer, StepText
    from airls_ray.search.over_endpoint import SearchResult
    from airls_ray.tasks.base import Grade
    from airls_ray.tasks.grader_kind import Grader


class ScoresSteps(Protocol):
    """Whatever scores the steps of a solution: `PRM`, or anything of the user's own."""

    def score(self, problem: str, steps: Sequence[str]) -> Sequence[float]:
        """Return one score in [0, 1] for each step."""
        ...


class PRM:
    """A process reward model that scores the steps of solutions; `load_prm` makes one."""

    def __init__(self, scorer: StepScorer, path: Path | str) -> None:
        """Wrap a loaded model; `path` is its folder or hub name."""
        self.scorer = scorer
        """Scores many items together (`airls_ray.prm.items.StepScorer`)."""
        self.path = path

    def __repr__(self) -> str:
        """Where it is from."""
        return f"PRM({str(self.path)!r})"

    def score(self, problem: str, steps: Sequence[str], *, finished: bool = True) -> list[float]:
        """Return one score in [0, 1] for each step, in order.

        Args:
            problem: its text, without a template.
            steps: text of each step; none is blank. A PRM of this project wants each with its task's
                delimiter, as in training.
            finished: whether the last step ends the solution. Only this project's PRMs ask.

        Raises:
            DataError: a step is blank, holds a marker of the model, or all of it is too long.
        """
        return self.score_many([(problem, steps)], finished=finished)[0]

    def score_many(
        self, solutions: Sequence[tuple[str, Sequence[str]]], *, finished: bool = True
    ) -> list[list[float]]:
        """Score several (problem, steps) together, which is faster; see `score`."""
        from airls_ray.prm.items import StepText

        for number, (_, steps) in enumerate(solutions, 1):
            if isinstance(steps, str):  # whose characters would be the steps
                raise DataError(f"steps of solution {number} must be a list of texts, but is one text (str)")
        items = [
            StepText(problem, steps, finished=finished, where=f"solution {number}")
            for number, (problem, steps) in enumerate(solutions, 1)
        ]
        return self.scorer.score(items)


def grade(answer: str, response: str, *, grader: str = "math", answer_marker: str = "####") -> Grade:
    r"""Compare the final answer of a response with the right one, as the task `file` does.

    >>> grade("1/2", "The half of it, so \\boxed{0.5}.")
    Grade(outcome=1.0, answer='1/2', reason='graded')
    >>> grade("42", "I think the answer is 41.").outcome
    0.0
    >>> grade("Paris", "It is in France. #### Paris", grader="exact").outcome
    1.0

    The grader for mathematics has no deadline here: a response made to hang it hangs the caller. The commands
    grade in processes of their own.

    Args:
        answer: the right answer.
        response: all that a model said.
        grader: `math`: read and compared as mathematics. `exact`: the text behind `answer_marker`, or else
            the last line, is the answer to the letter. `file.py:NAME`: your own (docs/doors.md).
        answer_marker: for `exact`.

    Returns:
        outcome (1.0 or 0.0), the answer that was read (None: there is none), and a reason.

    Raises:
        DataError: an argument is no text.
        DoorError: there is no such grader (it is a ConfigError).
    """
    from airls_ray import doors

    given: dict[str, object] = {
        "answer": answer,
        "response": response,
        "grader": grader,
        "answer_marker": answer_marker,
    }
    for name, value in given.items():
        if not isinstance(value, str):
            raise DataError(f"{name} must be text (str), but is of type {type(value).__name__}")
    found = doors.find(doors.kind_of("grader"), grader, "grader")
    made: Grader = doors.load(found, "grader")
    return made.grade(response, answer, {}, answer_marker)


def load_prm(
    path: Path | str,
    form: str = "auto",
    dtype: DType = "float32",
    device: str | None = None,
    *,
    separator: str | None = None,
    prompt_template: PromptTemplate = "plain",
    batch_tokens: int = 16384,
) -> PRM:
    """Load a PRM: of this project (the `prm` folder of a checkpoint) or one that others published.

        prm = airls_ray.load_prm("runs/demo/checkpoints/latest/prm")
        prm.score("1+2+3=", ["1+2=3;", "3+3=6;"])

    Args:
        path: model folder with safetensors, or a hub name. No code in it is run.
        form: how problem and steps are put and scores read (`airls_ray.prm.forms.FORMS`), or `auto`.
        dtype: of the weights; bfloat16 for large models.
        device: such as `cuda:1`; by default the GPU, if there is one.
        separator: for the form `token_classification`: what ends a step in its training (a line feed).
        prompt_template: for the form `token_classification`: `chat` if it was trained so.
        batch_tokens: most tokens of a forward pass.

    Raises:
        ModelError: the folder is missing, broken or of another form.
        ConfigError: an option that this form does not have.
    """
    from airls_ray.prm.forms import check_prm

    check_prm(path, form, separator, prompt_template)  # before torch is imported
    from airls_ray.prm.load import load_step_scorer

    scorer = load_step_scorer(
        path,
        form,
        dtype,
        device,
        separator=separator,
        prompt_template=prompt_template,
        batch_tokens=batch_tokens,
    )
    return PRM(scorer, path)


def search_endpoint(
    url: str,
    problems: Sequence[str],
    prm: Path | str | ScoresSteps | Callable[..., Any] | None = None,
    *,
    algorithm: AlgorithmName = "best_of_n",
    budget: int = 16,
    model: str | None = None,
    tokenizer: Path | str | None = None,
    chat: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    prompt_template: str = "{prompt}",
    system_prompt: str = "",
    steps: str | Mapping[str, Any] = "delimiter",
    step_delimiter: str = "\n\n",
    max_response_tokens: int = 2048,
    seed: int = 0,
    deadline_seconds: float = 600.0,
    **search: Any,
) -> list[SearchResult]:
    r"""Search with a published PRM over a policy behind an OpenAI-compatible address, such as a vLLM server.

        found = airls_ray.search_endpoint(
            "http://127.0.0.1:8000/v1", ["What is 12 * 13?"], "Qwen/Qwen2.5-Math-PRM-7B",
            algorithm="beam", budget=16, tokenizer="Qwen/Qwen2.5-Math-7B-Instruct", chat=True,
        )
        print(found[0].response)

    It needs neither Ray nor vLLM here; the PRM runs in this process. The key is `OPENAI_API_KEY`.

    Args:
        url: of the endpoint, with `/v1`; it must have `/completions`.
        problems: their texts, as the PRM reads them.
        prm: folder or hub name of a PRM, `load_prm(...)`, anything with `score(problem, steps)`, or a
            function of `prompt` and `steps` (docs/doors.md); None: what `scorer` names, as `search.scorer`
            does.
        algorithm: any of `airls-ray search` but `lookahead`.
        budget: width N.
        model: name at the endpoint; None: the one that it serves.
        tokenizer: folder or hub name of the policy's tokenizer. With it prefixes go as token ids, exactly as
            they were sampled (vLLM); without it as text. `best_of_n` by text works with any such endpoint,
            algorithms that go by steps need vLLM or SGLang.
        chat: put problems into the tokenizer's chat template.
        chat_template_kwargs: variables of that template, such as `{"enable_thinking": False}`.
        prompt_template: words around the problem, which stands at `{prompt}`.
        system_prompt: said before.
        steps: what ends a step (docs/data.md), a name or a section; `delimiter`: `step_delimiter`.
        step_delimiter: text that ends a step.
        max_response_tokens: longest response; by text it bounds each call alone.
        seed: of all random numbers.
        deadline_seconds: of one call.
        search: fields of the section `search`: temperature, answer, aggregate, max_steps, max_step_tokens,
            limits, tree, rebase, scorer and more.

    Returns:
        For each problem the chosen response and all others, with their step scores, and what it cost.

    Raises:
        UserError: with one sentence; see `airls_ray.search.over_endpoint`.
    """
    from airls_ray.evaluation.endpoint import Connection
    from airls_ray.search.over_endpoint import Scoring, TextForm, scoring_of, search_by_endpoint

    if (prm is None) != ("scorer" in search):
        raise ConfigError("give one of them: a PRM, or scorer=... (file.py:NAME)")
    if prm is None:
        from airls_ray.config.load import load_config
        from airls_ray.search.over_endpoint import scoring_by_name

        scoring = scoring_by_name(load_config({"search": {"scorer": search["scorer"]}}).search.scorer)
    elif isinstance(prm, str | Path):
        from airls_ray.prm.forms import check_prm

        path = prm
        check_prm(path)
        scoring = scoring_of(lambda: load_prm(path).scorer, path)
    elif isinstance(prm, PRM):
        loaded = prm.scorer
        scoring = scoring_of(lambda: loaded, prm.path)
    elif not hasattr(prm, "score"):
        from airls_ray.search.own_scorer import scorer_of

        function = scorer_of(prm)
        function.try_out()
        scoring = Scoring(lambda: function)
    else:
        own = _Each(prm)
        scoring = Scoring(lambda: own)
    return search_by_endpoint(
        Connection(url, model, deadline_seconds),
        problems,
        scoring,
        algorithm=algorithm,
        budget=budget,
        form=TextForm(prompt_template, system_prompt, steps, step_delimiter),
        tokenizer=tokenizer,
        chat=chat,
        chat_template_kwargs=chat_template_kwargs or {},
        max_response_tokens=max_response_tokens,
        seed=seed,
        settings=search,
    )


class _Each:
    """Somebody's `score` of one solution, for many."""

    def __init__(self, prm: ScoresSteps) -> None:
        self._prm = prm

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """See `airls_ray.prm.items.StepScorer.score`.

        Raises:
            DoorError: it does not return a score for each step.
        """
        from airls_ray.search.own_scorer import checked

        whose = f"prm: {type(self._prm).__name__}.score"
        return [checked(self._prm.score(item.problem, item.steps), item, whose) for item in items]
