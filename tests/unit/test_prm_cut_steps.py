"""The first tokens of a step, for a PRM that reads a partial one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from airls_ray.errors import DataError
from airls_ray.models.load import load_prm_module
from airls_ray.prm.items import StepScorer, StepText, first_tokens
from airls_ray.prm.load import load_step_scorer
from tests.unit.prm_folders import MAKERS, token_classifier

pytestmark = pytest.mark.usefixtures("one_thread")
ARITHMETIC = ["4+5=9;", "9*2=0;"]


def spelled(folder: Path, text: str) -> list[str]:
    """The characters of each token of a text, by the tokenizers library alone."""
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).tokens
    if tokens[0] == "▁":  # put before the text, which has no space there
        tokens[0] = ""
    letters = str.maketrans("▁ĠĊ", "  \n")
    return [token.replace("<0x0A>", "\n").translate(letters) for token in tokens]


def cut_text(scorer: StepScorer, step: str, tokens: int) -> str | None:
    """What is left of a step."""
    cut = scorer.cut_last_step(StepText("is it?", [step]), tokens)
    return None if cut is None else cut.steps[-1]


@pytest.mark.parametrize("form", MAKERS)
def test_a_cut_step_is_exactly_its_first_tokens(tmp_path, form):
    MAKERS[form](tmp_path)
    scorer, step = load_step_scorer(tmp_path, form), "so a.\nb is - 1."
    tokens = spelled(tmp_path, step)
    assert max(map(len, tokens)) == 2, "the test needs a token of two characters"
    for count in range(2, len(tokens)):
        assert cut_text(scorer, step, count) == "".join(tokens[:count])


def test_a_cut_step_of_an_own_prm_is_exactly_its_first_tokens(own_folder):
    scorer = load_step_scorer(own_folder()[0])
    assert [cut_text(scorer, "4+5=9;", count) for count in range(1, 6)] == [
        "4", "4+", "4+5", "4+5=", "4+5=9"
    ]  # fmt: skip


@pytest.mark.parametrize("form", MAKERS)
def test_a_step_that_is_not_longer_is_not_cut(tmp_path, form):
    MAKERS[form](tmp_path)
    scorer, step = load_step_scorer(tmp_path, form), "so a is b."
    whole = len(spelled(tmp_path, step))
    found = [cut_text(scorer, step, count) for count in (whole - 1, whole, whole + 1)]
    assert found == ["so a is b", None, None]


def test_an_end_of_sequence_makes_no_own_step_longer(own_folder):
    scorer = load_step_scorer(own_folder()[0])
    assert [cut_text(scorer, "4+5=9;", count) for count in (6, 7)] == [None, None]


@pytest.mark.parametrize("form", MAKERS)
def test_what_a_form_takes_off_a_step_makes_it_no_longer(tmp_path, form):
    """A step cut before its last line feed would be scored as the whole step is."""
    MAKERS[form](tmp_path)
    scorer, step = load_step_scorer(tmp_path, form), "so a is b"
    whole = len(spelled(tmp_path, step))
    assert cut_text(scorer, step + "\n", whole - 1) == "so a is "
    assert cut_text(scorer, step + "\n", whole) is None


@pytest.mark.parametrize("form", ["marker", "plus_minus_chat"])
def test_blanks_before_a_step_are_none_of_its_first_tokens(tmp_path, form):
    MAKERS[form](tmp_path)
    assert cut_text(load_step_scorer(tmp_path, form), "\n\n  so a.", 2) == "so"


def test_a_character_is_whole_or_not_there(tmp_path):
    """Four bytes, four tokens."""
    token_classifier(tmp_path)
    scorer = load_step_scorer(tmp_path)
    found = [cut_text(scorer, "a\U0001f600b", count) for count in range(1, 6)]
    assert found == ["a", "a", "a", "a", "a\U0001f600"]


@pytest.mark.parametrize("step", ["  a", "\U0001f600a"])
def test_a_beginning_without_text_is_left_out(tmp_path, step):
    token_classifier(tmp_path)
    assert cut_text(load_step_scorer(tmp_path), step, 2) is None


@pytest.mark.parametrize("form", MAKERS)
def test_all_but_the_last_step_stays_as_it_is(tmp_path, form):
    MAKERS[form](tmp_path)
    cut = load_step_scorer(tmp_path, form).cut_last_step(
        StepText("is it?", ["a.\n", "b.", "c is b"], where="row 3"), 3
    )
    assert (cut.problem, list(cut.steps[:2]), cut.where) == ("is it?", ["a.\n", "b."], "row 3")


@pytest.mark.parametrize("form", [*MAKERS, "project"])
def test_a_solution_that_is_cut_is_not_finished(tmp_path, own_folder, form):
    folder = own_folder()[0] if form == "project" else tmp_path
    if form != "project":
        MAKERS[form](folder)
    cut = load_step_scorer(folder, form).cut_last_step(StepText("1+1=", ["1+1=2"]), 3)
    assert not cut.finished


def test_a_cut_solution_of_an_own_prm_is_read_at_its_last_token(own_folder):
    """A head of its own pass over prompt, first step and three tokens, without an end of sequence."""
    folder, words = own_folder(parameterisation="scalar_head")
    ids = [words[letter] for letter in "4+5*2=" + ARITHMETIC[0] + "9*2"]
    module = load_prm_module(folder, "scalar_head").eval()
    with torch.no_grad():
        logit = module.model(torch.tensor([ids])).logits[0, -1, 0].double().item()
    scorer = load_step_scorer(folder)
    cut = scorer.cut_last_step(StepText("4+5*2=", ARITHMETIC), 3)
    assert scorer.score([cut])[0][-1] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def test_a_tokenizer_without_characters_is_one_sentence():
    with pytest.raises(DataError, match="the tokenizer of my/prm does not say which characters its tokens"):
        first_tokens("ab", [(0, 0), (0, 0)], 1, "my/prm")
