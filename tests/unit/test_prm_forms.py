"""Which form a PRM folder has, and what is wrong with one that cannot be taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
)

from airls_ray.config import Config
from airls_ray.errors import ConfigError, DataError, ModelError
from airls_ray.prm.forms import FORMS, check_search_score, choose_form
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from tests.unit.prm_folders import (
    MAKERS,
    PROBLEM,
    SIZES,
    STEPS,
    byte_tokenizer,
    qwen_prm,
    rlhflow_prm,
    shepherd_prm,
    token_classifier,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------ which form
@pytest.mark.parametrize(
    ("name", "make", "form"),
    [
        ("anything", token_classifier, "token_classification"),
        ("anything", lambda folder: token_classifier(folder, 2, "<extra_0>"), "marker"),
        ("anything", lambda folder: token_classifier(folder, 1, "<extra_0>"), "token_classification"),
        ("anything", qwen_prm, "marker"),
        ("Math-Shepherd-mistral-7b", shepherd_prm, "plus_minus"),
        ("mistral-PRM", shepherd_prm, "plus_minus"),
        ("Llama3.1-8B-PRM-Deepseek-Data", rlhflow_prm, "plus_minus_chat"),
        ("models--RLHFlow--Llama-PRM/snapshots/0a1b", rlhflow_prm, "plus_minus_chat"),
    ],
)
def test_the_form_is_read_from_the_folder(tmp_path, name, make, form):
    make(tmp_path / name)
    assert choose_form(tmp_path / name) == form


def test_a_folder_with_prm_json_is_this_projects(own_folder):
    assert choose_form(own_folder()[0]) == "project"


@pytest.mark.parametrize("make", [shepherd_prm, rlhflow_prm])
def test_an_ordinary_language_model_is_not_taken_for_a_prm(tmp_path, make):
    make(tmp_path / "some-model")
    with pytest.raises(ModelError, match="does not say what form of PRM it is: give --form") as error:
        choose_form(tmp_path / "some-model")
    assert all(form in str(error.value) for form in FORMS)


def test_a_given_form_goes_before_the_folders(tmp_path):
    qwen_prm(tmp_path)
    assert choose_form(tmp_path, "plus_minus") == "plus_minus"


def test_an_unknown_form_names_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match="no PRM form 'orm': the forms are") as error:
        choose_form(tmp_path, "orm")
    assert all(form in str(error.value) for form in FORMS)


# ----------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("make", "form", "message"),
    [
        (
            token_classifier,
            "plus_minus",
            "holds a Qwen2ForTokenClassification, which is no PRM of form plus_minus",
        ),
        (
            shepherd_prm,
            "token_classification",
            "holds a MistralForCausalLM, which is no PRM of form token_cl",
        ),
        (token_classifier, "marker", "'<extra_0>' is not one token"),
        (rlhflow_prm, "plus_minus", "'ки' is not one token"),
        (lambda folder: rlhflow_prm(folder, None), "plus_minus_chat", "has no chat template"),
        (token_classifier, "project", "it has no prm.json"),
    ],
)
def test_a_folder_of_another_form_is_one_sentence(tmp_path, make, form, message):
    make(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_step_scorer(tmp_path, form)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "\n"}, "separator is for form token"),
        ({"prompt_template": "chat"}, "a prompt of its own"),
    ],
)
def test_an_option_of_another_form_is_refused(tmp_path, options, message):
    qwen_prm(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_step_scorer(tmp_path, **options)


@pytest.mark.parametrize(
    ("prm", "search", "message"),
    [
        ({"search_score": "ratio"}, {"temperature": 0.7}, "rollout.temperature=1 with the policy at"),
        ({"search_score": "product"}, {"temperature": 0.7}, "set both to the same"),
        ({"search_score": "reference_ratio"}, {}, "does not load: set search_score to exp_f"),
        ({"search_score": "exp_f"}, {"aggregate": "odds"}, "is of probabilities"),
    ],
)  # fmt: skip
def test_a_search_that_would_misread_the_scores_is_refused(
    prm: dict[str, Any], search: dict[str, Any], message: str
) -> None:
    config = Config.model_validate({"search": search})
    config = config.model_copy(update={"prm": config.prm.model_copy(update=prm)})  # as its prm.json says
    with pytest.raises(ConfigError, match=message):
        check_search_score(config, "runs/a/prm")


@pytest.mark.parametrize("score", ["exp_f", "ratio"])
def test_scores_that_a_search_can_read_are_taken(score: str) -> None:
    search = {"temperature": 1.0 if score == "ratio" else 0.7}
    check_search_score(
        Config.model_validate({"prm": {"search_score": score}, "search": search}), "runs/a/prm"
    )


@pytest.mark.parametrize("form", MAKERS)
def test_a_blank_step_is_refused(tmp_path, form):
    MAKERS[form](tmp_path)
    with pytest.raises(DataError, match="row 3: step 2 is blank"):
        load_step_scorer(tmp_path, form).score([StepText("a", ["b", " \n"], where="row 3")])


def test_too_long_a_solution_is_refused_and_not_cut(tmp_path):
    token_classifier(tmp_path)
    scorer = load_step_scorer(tmp_path)
    assert len(scorer.score([StepText("a", ["b" * 510])])[0]) == 1
    with pytest.raises(DataError, match=r"have 513 tokens, but .* takes 512"):
        scorer.score([StepText("a", ["b" * 511])])
    assert [scorer.fits(StepText("a", ["b" * count])) for count in (510, 511)] == [True, False]


def test_an_own_prm_says_what_it_takes(own_folder):
    scorer = load_step_scorer(own_folder()[0])
    fitting = [scorer.fits(StepText("4+5=", ["4+5=9;"] * steps)) for steps in (1, 2000)]
    assert fitting == [True, False]
    with pytest.raises(DataError, match="cannot encode"):
        scorer.fits(StepText("4+5=", ["x"]))


def test_weights_without_a_head_are_refused(tmp_path):
    token_classifier(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("score.")}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds no weight score\.weight"):
        load_step_scorer(tmp_path)


def test_weights_without_a_layer_are_refused(tmp_path):
    token_classifier(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "layers.1" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not hold the weights .* layers\.1.* is missing"):
        load_step_scorer(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    vocabulary = rlhflow_prm(tmp_path)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary) - 2, **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="take the tokenizer that belongs to the weights"):
        load_step_scorer(tmp_path, "plus_minus_chat").score([StepText("a", ["b"])])


def test_scores_that_are_not_finite_are_refused(tmp_path):
    token_classifier(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"score.bias": torch.full((2,), torch.nan)}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        load_step_scorer(tmp_path).score([StepText("a", ["b"])])


def test_a_head_is_read_from_the_file_that_its_backbone_is_read_from(tmp_path):
    rlhflow_prm(tmp_path)
    expected = load_step_scorer(tmp_path, "plus_minus_chat").score([StepText(PROBLEM, STEPS)])
    older = {name: value.clone() + 1.0 for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(older, tmp_path / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(older, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_step_scorer(tmp_path, "plus_minus_chat").score([StepText(PROBLEM, STEPS)]) == expected


def test_a_language_model_with_a_value_head_is_not_read_by_plus_and_minus(tmp_path):
    folder = tmp_path / "Skywork-o1-Open-PRM"
    rlhflow_prm(folder)
    weights = load_file(folder / "model.safetensors") | {"v_head.summary.weight": torch.ones(1, 16)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has a head of its own \(v_head\.summary\.weight\)"):
        load_step_scorer(folder)


def test_a_hub_name_without_a_network_is_one_sentence(monkeypatch):
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match="as a hub name it cannot be fetched: no network"):
        load_step_scorer("owner/some-prm")


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path):
    token_classifier(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "broken"}))
    with pytest.raises(ModelError, match="cannot load the tokenizer of"):
        load_step_scorer(tmp_path)


def test_the_tokenizer_of_these_tests_joins_a_full_stop_and_a_line_feed(tmp_path):
    """Otherwise the tests above could not tell ids that are appended from texts that are joined."""
    from transformers import AutoTokenizer

    vocabulary = byte_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("a.\n")["input_ids"] == [vocabulary["a"], vocabulary[".Ċ"]]
