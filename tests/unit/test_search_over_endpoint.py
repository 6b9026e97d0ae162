"""Searches whose policy is an endpoint: by text and by tokens, and what an endpoint must be able to do."""

from __future__ import annotations

import runpy
import ssl
from collections.abc import Iterator, Sequence
from functools import cache
from math import nan, prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import airls_ray
from airls_ray.config.schema import FileTaskConfig, PRMConfig
from airls_ray.errors import ConfigError, DataError, ModelError, RunError
from airls_ray.evaluation import endpoint
from airls_ray.grading.pool import GradeRequest
from airls_ray.prm.folder import write_prm_form
from airls_ray.prm.items import StepText
from airls_ray.search.endpoint_task import _grade, _Verdicts
from airls_ray.search.over_endpoint import SearchResult, scoring_of
from airls_ray.tasks.base import Problem
from airls_ray.tasks.families.file import FileTask
from airls_ray.text.codec import TextCodec
from airls_ray.text.make_tokenizer import train_tokenizer
from tests.unit.endpoint_fakes import END, STEPS, Digits, FakePolicy, served

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = ["What is it?", "And this?"]
TASK = FileTask(FileTaskConfig(train_file=Path("a"), test_file=Path("b")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    train_tokenizer(["a"], 258, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_list_of_authorities() -> Iterator[None]:
    """Every client reads the certificates of all authorities, and none of the addresses here has one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


def search(policy: FakePolicy, prm: Any = None, **options: Any) -> list[SearchResult]:
    with served(policy) as url:
        options = {"budget": 4, "problems": PROBLEMS, **options}
        problems = options.pop("problems")
        return airls_ray.search_endpoint(url, problems, prm or Digits(), **options)


def responses(found: list[SearchResult]) -> list[list[str]]:
    return [[one.response for one in result.candidates] for result in found]


def test_best_of_n_gives_the_response_with_the_best_steps() -> None:
    for result in search(FakePolicy(dialect="openai"), budget=8):
        values = [prod(Digits.one(step) for step in one.steps) for one in result.candidates]
        assert len(values) == 8
        assert result.best is not None and result.best.score == pytest.approx(max(values))
        assert result.response == result.candidates[values.index(max(values))].response


@pytest.mark.parametrize("asked", [{"score": 0.2}, {"vote_share": 0.5}, {"vote_share": 0.3, "score": 0.1}])
def test_a_result_says_whether_it_is_sure(asked: dict[str, float]) -> None:
    for result in search(FakePolicy(), budget=8, abstain=asked, answer="majority"):
        assert result.best is not None
        votes = [one.answer for one in result.candidates]
        share = votes.count(result.best.answer) / 8
        assert result.sure == (
            share >= asked.get("vote_share", 0) and result.best.score >= asked.get("score", 0)
        )


def test_an_endpoint_that_knows_nothing_beyond_openai_is_asked_for_nothing_beyond() -> None:
    policy = FakePolicy(dialect="openai")
    search(policy)
    known = {"model", "prompt", "n", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs"}
    assert all(set(body) <= known for body in policy.asked)


@pytest.mark.parametrize(
    "algorithm", ["beam", "dvts", "early_rejection", "rebase", "particle_filter", "mcts", "chunk_reset"]
)
def test_searches_by_steps_end_with_whole_responses(algorithm: str) -> None:
    for result in search(FakePolicy(), algorithm=algorithm, max_step_tokens=64, tree={"partial_tokens": 4}):
        assert result.candidates
        for one in result.candidates:
            assert len(one.steps) == len(one.scores) == STEPS
            assert "".join(one.steps) == one.response
            assert (one.finish, one.answer is not None) == ("stop", True)


def test_beam_search_finds_better_steps_than_chance() -> None:
    prm = Digits()
    [beam, _] = search(FakePolicy(), prm, algorithm="beam", budget=16)
    [sampled, _] = search(FakePolicy(), prm, algorithm="best_of_n", budget=16)
    assert beam.best is not None and sampled.best is not None
    mean = sum(one.score for one in sampled.candidates) / 16
    assert beam.best.score > mean


def test_a_step_stops_at_its_delimiter_and_the_next_call_goes_on_from_there() -> None:
    policy = FakePolicy()
    search(policy, algorithm="beam", problems=PROBLEMS[:1])
    first, *others = policy.asked
    assert (first["prompt"], first["n"], first["stop"]) == (PROBLEMS[0], 4, "\n\n")
    assert all(body["prompt"].startswith(f"{PROBLEMS[0]}Step 1 gives ") for body in others)
    assert all(body["prompt"].endswith(".\n\n") for body in others)


@pytest.mark.parametrize("algorithm", ["best_of_n", "beam", "early_rejection", "adaptive_consistency"])
def test_by_tokens_and_by_text_a_search_is_the_same(algorithm: str, tokenizer: Path) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "tree": {"partial_tokens": 4}}
    by_text = search(FakePolicy(), **options)
    policy = FakePolicy(codec=TextCodec.from_folder(tokenizer, TASK))
    by_tokens = search(policy, tokenizer=tokenizer, **options)
    assert responses(by_tokens) == responses(by_text)
    assert [one.response for one in by_tokens] == [one.response for one in by_text]
    assert all(isinstance(body["prompt"], list) for body in policy.asked)


def test_tokens_go_back_as_they_were_sampled(tokenizer: Path) -> None:
    codec = TextCodec.from_folder(tokenizer, TASK)

    class Renamed(FakePolicy):
        """Says the first token of every answer by a token that no encoding gives: padding."""

        def answer(self, body: dict[str, Any]) -> dict[str, Any]:
            answer = super().answer(body)
            for choice in answer["choices"]:
                choice["token_ids"][0] = codec.pad_id
            return answer

    policy = Renamed(codec=codec)
    search(policy, algorithm="beam", tokenizer=tokenizer, problems=PROBLEMS[:1])
    prompt = codec.encode_prompt(PROBLEMS[0])
    assert all(body["prompt"][len(prompt)] == codec.pad_id for body in policy.asked[1:])


def test_text_that_an_endpoint_leaves_out_at_a_stop_is_put_back() -> None:
    options: dict[str, Any] = {"algorithm": "beam", "budget": 4}
    assert responses(search(FakePolicy(dialect="sglang"), **options)) == responses(
        search(FakePolicy(), **options)
    )


def test_steps_whose_end_shows_later_are_cut_from_longer_pieces() -> None:
    policy = FakePolicy(delimiter=" ")
    found = search(policy, algorithm="beam", steps="sentences", problems=PROBLEMS[:1])
    assert all(body.get("stop") is None for body in policy.asked)
    assert policy.asked[-1]["prompt"].startswith(f"{PROBLEMS[0]}Step 1 gives ")
    assert policy.asked[-1]["prompt"].endswith(".")
    assert all("".join(one.steps) == one.response for one in found[0].candidates)
    assert max(len(one.steps) for one in found[0].candidates) > 1


def test_a_server_that_gives_one_choice_a_call_is_asked_again_with_other_seeds() -> None:
    alone = FakePolicy(most_choices=1)
    assert responses(search(alone)) == responses(search(FakePolicy()))
    assert len(alone.asked) == 8


def test_the_prompt_has_words_around_the_problem_and_the_prm_reads_the_problem_alone() -> None:
    policy, prm = FakePolicy(), Digits()
    search(policy, prm, prompt_template="Solve: {prompt}", system_prompt="Be brief.")
    assert {body["prompt"] for body in policy.asked} == {f"Be brief.\n\nSolve: {one}" for one in PROBLEMS}
    assert {problem for problem, _ in prm.asked} == set(PROBLEMS)


def test_costs_and_log_probabilities_are_those_of_the_policys_tokens() -> None:
    [result, _] = search(FakePolicy())
    assert result.costs["generations"] == 4
    tokens = [len(one.response) + 1 for one in result.candidates]  # a byte each, and the end
    assert result.costs["policy_tokens"] == sum(tokens)
    assert [one.log_prob for one in result.candidates] == pytest.approx([-0.5 * size for size in tokens])


def test_a_response_without_tokens_left_has_finish_length() -> None:
    [result, _] = search(FakePolicy(), max_response_tokens=5)
    assert {(one.finish, len(one.response)) for one in result.candidates} == {("length", 5)}


def test_a_vote_counts_answers() -> None:
    [result, _] = search(FakePolicy(), budget=16, answer="majority")
    answers = [one.answer for one in result.candidates]
    assert result.best is not None
    assert answers.count(result.best.answer) == max(answers.count(one) for one in answers)


class Flat(Digits):
    """Scores every step alike."""

    @staticmethod
    def one(step: str) -> float:
        return 0.5


def test_candidates_that_tie_share_the_choice_and_the_oldest_is_given() -> None:
    [result, _] = search(FakePolicy(), Flat(), budget=4)
    assert result.chances == pytest.approx([1 / len(result.candidates)] * len(result.candidates))
    assert result.best is result.candidates[0]


def test_the_outcome_of_a_problem_is_the_mean_of_the_candidates_that_tie() -> None:
    found = search(FakePolicy(), Flat(), budget=8)
    right = found[0].candidates[-1].answer

    def grade(requests: Sequence[GradeRequest]) -> list[SimpleNamespace]:
        return [SimpleNamespace(outcome=float(f"boxed{{{right}}}" in one.response)) for one in requests]

    problems = [Problem(str(at), text, str(right)) for at, text in enumerate(PROBLEMS)]
    pool: Any = SimpleNamespace(grade=grade)
    for (outcome, outcomes), result in zip(_grade(found, _Verdicts(problems, pool)), found, strict=True):
        answers = [one.answer for one in result.candidates]
        assert outcomes == [float(answer == right) for answer in answers]
        assert outcome == pytest.approx(answers.count(right) / len(answers))


# ---------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("by_tokens", [False, True])
def test_a_prefix_that_is_too_long_for_the_model_ends_there(by_tokens: bool, tokenizer: Path) -> None:
    policy = FakePolicy(context=20, codec=TextCodec.from_folder(tokenizer, TASK))
    options: dict[str, Any] = {"tokenizer": tokenizer} if by_tokens else {}
    [result] = search(policy, algorithm="beam", problems=PROBLEMS[:1], **options)
    assert {(one.finish, len(one.steps), len(one.scores)) for one in result.candidates} == {("length", 1, 1)}
    assert all(one.response.startswith("Step 1 gives ") for one in result.candidates)


def test_a_problem_that_the_endpoint_refuses_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"did not answer .*maximum context length exceeded"):
        search(FakePolicy(context=5))


def test_an_endpoint_that_does_not_say_why_it_stopped_is_refused_for_steps() -> None:
    with pytest.raises(RunError, match=r"does not say whether a step or the whole response has ended"):
        search(FakePolicy(dialect="openai"), algorithm="beam")


def test_an_endpoint_without_token_ids_is_refused_for_tokens(tokenizer: Path) -> None:
    policy = FakePolicy(dialect="openai", codec=TextCodec.from_folder(tokenizer, TASK))
    with pytest.raises(RunError, match=r"gives no token ids .* leave out the tokenizer"):
        search(policy, tokenizer=tokenizer)


def test_the_only_model_is_found_and_of_several_one_must_be_named() -> None:
    policy = FakePolicy(models=["only"])
    search(policy)
    assert policy.asked[0]["model"] == "only"
    with pytest.raises(ConfigError, match=r"serves 2 models \(a, b\): say which"):
        search(FakePolicy(models=["a", "b"]))
    search(policy := FakePolicy(models=["a", "b"]), model="b")
    assert policy.asked[0]["model"] == "b"


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="put the key into OPENAI_API_KEY") as refused:
        airls_ray.search_endpoint("http://me:hidden@127.0.0.1:9/v1", PROBLEMS, Digits())
    assert "hidden" not in str(refused.value)


def test_an_address_without_a_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_RETRIES", 0)  # there is a pause before each
    with pytest.raises(
        RunError, match=r"http://127\.0\.0\.1:9/v1 did not answer .*: check its address and the key"
    ):
        airls_ray.search_endpoint("http://127.0.0.1:9/v1", PROBLEMS, Digits())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temprature": 1.0}, "unknown key search.temprature; did you mean search.temperature?"),
        ({"algorithm": "beem"}, "there is no search 'beem' (did you mean 'beam'?)"),
        ({"algorithm": "lookahead"}, "an endpoint looks no steps ahead"),
        ({"prompt_template": "no place"}, "task.prompt_template: must hold {prompt} exactly once"),
        ({"chat": True}, "chat=True puts problems into the model's chat template: give its tokenizer"),
    ],
)
def test_a_wrong_setting_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        search(FakePolicy(), **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "said"), [([0.5] * 4, "4 scores"), ([0.5], "1 scores"), ([0.5, 0.5, nan], "nan for step 3")]
)
def test_an_object_that_does_not_score_each_step_is_one_sentence(scores: list[float], said: str) -> None:
    prm = SimpleNamespace(score=lambda problem, steps: scores)
    with pytest.raises(ConfigError, match=f"prm: SimpleNamespace.score returned {said}, and it must return"):
        search(FakePolicy(), prm)


def test_a_blank_problem_is_refused() -> None:
    with pytest.raises(DataError, match="problem 2 is blank"):
        search(FakePolicy(), problems=["What?", " "])


def test_a_text_is_no_list_of_problems() -> None:
    with pytest.raises(DataError, match="problems must be a list of texts, but is one text"):
        search(FakePolicy(), problems="What?")


# ---------------------------------------------------------------------------------- PRMs, examples
class Unread:
    """What stands for a model that must not be loaded."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        raise AssertionError("nothing was to be scored")

    fits: Any = None
    cut_last_step: Any = None


def test_a_prm_of_ours_is_read_as_its_folder_says(tmp_path: Path) -> None:
    write_prm_form(PRMConfig(parameterisation="scalar_head", search_aggregate="min"), tmp_path)
    found = scoring_of(Unread, tmp_path)
    assert (found.kind, found.aggregate) == ("probability", "min")
    other = scoring_of(Unread, "somebody/prm")
    assert (other.kind, other.aggregate) == ("probability", "prod")


def test_scores_by_tokens_are_refused_where_nobody_counts_tokens(tmp_path: Path) -> None:
    write_prm_form(PRMConfig(parameterisation="log_prob"), tmp_path)
    with pytest.raises(ConfigError, match="give the policy's tokenizer"):
        search(FakePolicy(), airls_ray.PRM(Unread(), tmp_path))


def test_a_prm_folder_that_is_missing_is_said_before_anything_is_sampled(tmp_path: Path) -> None:
    policy = FakePolicy()
    with pytest.raises(ModelError, match="nowhere"):
        search(policy, tmp_path / "nowhere")
    assert not policy.asked


def test_the_example_prints_a_line_for_each_algorithm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "search_over_an_endpoint.py"))
    questions = {f"{problem}{END}": answer for problem, answer in example["PROBLEMS"].items()}
    monkeypatch.setitem(example["compare"].__globals__, "PROBLEMS", questions)
    with served(FakePolicy()) as url:
        example["compare"](url, Digits(), budget=4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["best_of_n", "beam"]
    assert all("of 2 right" in line for line in lines)


def test_a_search_of_the_users_own_goes_over_an_endpoint_by_its_own_rule(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from airls_ray.search.tree import ROOT, Want\n"
        "class Once:\n"
        '    answer = "majority"\n'
        "    def __init__(self, width): self.width = width\n"
        "    def plan(self, state): return [] if state.rounds else [Want(ROOT, self.width, whole=True)]\n"
    )
    own = search(FakePolicy(), algorithm=f"{tmp_path}/own.py:Once", budget=8)
    voted = search(FakePolicy(), algorithm="best_of_n", answer="majority", budget=8)
    assert [one.response for one in own] == [one.response for one in voted]
    assert responses(own) == responses(voted)


def test_a_rule_of_ones_own_that_names_no_sure_end_is_cut_after_sampling(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import re\ndef pairs(text):\n    return [one.end() for one in re.finditer('\\n\\n', text)]\n"
    )
    policy = FakePolicy()
    for result in search(policy, algorithm="beam", max_step_tokens=64, steps=f"{own}:pairs"):
        assert [len(one.steps) for one in result.candidates] == [STEPS] * len(result.candidates)
        assert all("".join(one.steps) == one.response for one in result.candidates)
    assert policy.asked and not any(body.get("stop") for body in policy.asked)
