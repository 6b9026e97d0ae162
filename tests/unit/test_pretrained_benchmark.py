"""The benchmark of heads on a pretrained model: its states are the model's, its heads learn what is told."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import make_text_policy

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as for `python benchmarks/NAME.py`

import pretrained_choice
import pretrained_heads
import pretrained_prm800k
import pretrained_processbench
import pretrained_states
from pretrained_states import REFERENCE, Question, Solution

TEXTS = (
    "One and one are two. The answer is 2.",
    "It is 3.",
    "First, one.\nThen two. So 3 in all. The answer is 3.",
)
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def test_steps_are_sentences_and_lines_and_numbers_are_whole() -> None:
    text = "It costs 1.5 dollars. So 3 cost 4.5 dollars.\nThe answer is 4.5."
    ends = pretrained_states.step_ends(text)
    parts = [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
    assert parts == ["It costs 1.5 dollars.", "So 3 cost 4.5 dollars.", "The answer is 4.5."]


def test_states_and_log_probabilities_are_those_of_a_plain_pass(tmp_path: Path) -> None:
    """The question is computed once for all solutions: no solution may show in the next one's."""
    folder = make_text_policy(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    question = Question(0, "How many?", tuple(Solution("one", text, None, True) for text in TEXTS))
    with torch.inference_mode():
        found = pretrained_states._of_question(model, tokenizer, question, (1, 2))
    prompt = tokenizer(f"<user>{question.text}<assistant>", add_special_tokens=False).input_ids
    for text, one in zip(TEXTS, found, strict=True):
        ends = pretrained_states.step_ends(text)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([[*prompt, *encoded.input_ids]])
        with torch.inference_mode():
            plain = model(ids, output_hidden_states=True)
        at = [
            len(prompt) + max(token for token, (start, _) in enumerate(encoded.offset_mapping) if start < end)
            for end in ends
        ]
        states = torch.stack([plain.hidden_states[layer][0, at] for layer in (1, 2)], 1)
        torch.testing.assert_close(one["states"].float(), states, atol=2e-3, rtol=2e-3)  # kept in float16
        logprobs = torch.log_softmax(plain.logits[0, len(prompt) - 1 : -1], -1)
        own = logprobs.gather(1, ids[0, len(prompt) :, None]).mean()
        assert float(one["log_prob"]) == pytest.approx(float(own), abs=1e-4)
        sizes = torch.diff(torch.tensor([len(prompt) - 1, *at])).float()
        assert float(sizes @ one["step_log_probs"] / sizes.sum()) == pytest.approx(float(own), abs=1e-4)


@pytest.mark.parametrize("objective", pretrained_heads.OBJECTIVES)
def test_a_head_finds_the_direction_of_what_is_right(objective: str) -> None:
    """Right solutions, and references more so, differ from failed ones along one axis of ten."""
    torch.manual_seed(0)
    questions, each, length = 120, 5, 3
    question = torch.arange(questions).repeat_interleave(each)
    reference = torch.arange(questions * each) % each == 0
    right = reference | (torch.rand(questions * each) < 0.4)
    solution = torch.arange(questions * each).repeat_interleave(length)
    states = torch.randn(len(solution), 1, 10)
    states[:, 0, 0] += 2.0 * right[solution] + 1.0 * reference[solution]
    names = [REFERENCE if one else "other" for one in reference.tolist()]
    steps = pretrained_heads.Steps(
        states, solution, question, reference, right, names, [None] * len(names), torch.zeros(len(names))
    )
    learned = question < 80
    outputs = pretrained_heads.fit(steps, learned, 0, 0.1, objective, 0)(states)
    of_step = ~learned[solution] & ~reference[solution]
    good, bad = outputs[of_step & right[solution]], outputs[of_step & ~right[solution]]
    assert float((good[:, None] > bad[None, :]).float().mean()) > 0.75


def test_a_choice_among_some_is_the_mean_over_all_of_their_subsets() -> None:
    """Two questions of four solutions, the data set's own one between them."""
    right = [True, False, True, False, True, False, False, False, True, True]
    reference = [False, False, False, False, True, False, False, False, False, True]
    question = [0] * 5 + [1] * 5
    scores = np.random.default_rng(0).normal(size=10)
    steps = pretrained_heads.Steps(
        torch.zeros(10, 1, 1), torch.arange(10), torch.tensor(question), torch.tensor(reference),
        torch.tensor(right), ["one"] * 10, [str(number) for number in range(10)], torch.zeros(10),
    )  # fmt: skip
    found = pretrained_choice.choices(steps, ~np.array(reference), scores, (2, 4))["best_of_n"]
    for number, rows in enumerate(([0, 1, 2, 3], [5, 6, 7, 8])):
        for size in (2, 4):
            subsets = list(combinations(rows, size))
            expected = fmean(float(right[max(one, key=lambda row: scores[row])]) for one in subsets)
            assert found[size][number] == pytest.approx(expected)


def test_what_comes_after_the_first_wrong_step_is_not_judged(tmp_path: Path) -> None:
    """A head that finds every first mistake, whatever it says of the steps behind it, is right throughout."""
    questions, files, scores = [], [], []
    for number in range(40):
        first = number // 2 % 4 - 1  # none, or the first, second or third of three steps
        found = torch.tensor([0.9, 0.8, 0.95])
        if first >= 0:
            found[first:] = torch.tensor([0.1, 0.99, 0.2])[: 3 - first]
        questions.append(Question(number, "?", (Solution("one", "", None, first < 0, (1, 2, 3), first),)))
        scores.append(found)
        files.append(tmp_path / f"{number:05d}.pt")
        row = {"states": torch.zeros(3, 1, 2), "step_log_probs": torch.zeros(3), "log_prob": torch.zeros(())}
        torch.save([row], files[-1])
    logits = torch.logit(torch.cat(scores))
    heads: Any = {"perfect": [lambda states: logits], "blind": [lambda states: torch.zeros(len(logits))]}
    figures = pretrained_processbench.measure(heads, questions, files)
    assert (figures["solutions"], figures["wrong"]) == (40, 30)
    perfect, blind = figures["prms"]["perfect"], figures["prms"]["blind"]
    assert (perfect["f1"], perfect["step_auroc"]) == (1.0, 1.0)
    assert (blind["f1"], blind["step_auroc"]) == (0.0, 0.5)


def test_rated_steps_are_read_with_their_alternatives_a_place_each(tmp_path: Path) -> None:
    """Two steps, the first with one alternative, the second with two; what was gone on from is rated, too."""
    steps = [("First.", 1, [("Wrong.", -1)]), ("Second.", 0, [("No.", -1), ("Yes.", 1)])]
    completions = [
        [{"text": text, "rating": rating}, *({"text": one, "rating": other} for one, other in more)]
        for text, rating, more in steps
    ]
    row = {
        "question": {"problem": "How many?"},
        "label": {
            "steps": [{"completions": one, "chosen_completion": 0} for one in completions],
            "finish_reason": "solution",
        },
    }
    file = tmp_path / pretrained_prm800k.FILE
    file.parent.mkdir()
    file.write_text(json.dumps(row) + "\n")
    questions = pretrained_prm800k.read(tmp_path)
    assert pretrained_prm800k.read(tmp_path / "nowhere") == []
    (question,) = questions
    states = tmp_path / "00000.pt"
    found = [
        {
            "states": torch.full((len(one.step_ends), 1, 2), float(at)),
            "step_log_probs": torch.full((len(one.step_ends),), float(at)),
        }
        for at, one in enumerate(question.solutions)
    ]
    torch.save(found, states)
    rated = pretrained_prm800k.load(questions, [states])
    by_place: dict[int, list[bool]] = {}
    for place, right in zip(rated.group.tolist(), rated.right.tolist(), strict=True):
        by_place.setdefault(place, []).append(right)
    assert sorted(sorted(one) for one in by_place.values()) == [[False, True], [False, True, True]]
    assert rated.states[:, 0, 0].tolist() == rated.log_prob.tolist()


def test_the_choice_of_a_next_step_counts_places_that_have_one() -> None:
    """Two problems. Of the first, one place of three (the best is right) and one of two (a tie of both); of
    the second, one place (the best is wrong) and one that is right in any case."""
    right = np.array([1, 0, 0, 1, 0, 1, 0, 1], dtype=bool)
    group = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    problem = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    scores = np.array([3.0, 2.0, 1.0, 5.0, 5.0, 0.0, 1.0, 9.0])
    rated = pretrained_prm800k.Rated(torch.zeros(8, 1, 1), right, group, problem, scores)
    found = pretrained_prm800k._figures(rated, scores, np.ones(8, dtype=bool))
    assert found["right"] == pytest.approx(((1.0 + 0.5) / 2 + 0.0) / 2)
    assert found["chance"] == pytest.approx(((1 / 3 + 1 / 2) / 2 + 1 / 2) / 2)
    assert found["auroc_within"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_a_labelled_head_is_measured_on_problems_that_it_did_not_learn() -> None:
    """Ratings follow one axis of ten: heads on labels find it, and one that points the other way is worst."""
    torch.manual_seed(0)
    problems, places, options = 40, 5, 4
    steps = problems * places * options
    states = torch.randn(steps, 2, 10)
    right = (states[:, 1, 0] > 0.3).numpy()
    group = np.arange(steps) // options
    rated = pretrained_prm800k.Rated(states, right, group, group // places, np.zeros(steps))
    heads: Any = {"opposite": [lambda given: -given[:, 1, 0]]}
    figures, labelled = pretrained_prm800k.measure(heads, rated, 2, (0.01,), 2)
    found = figures["prms"]
    assert len(labelled) == 2
    assert all(head.layer == 1 for head in labelled)
    assert found["step labels"]["right"] > 0.8
    assert found["opposite"]["right"] < 0.2
    assert found["log_prob"]["auroc_within"] == 0.5
