"""Each form against a forward pass made by hand: ids from the vocabulary, plain transformers, softmax."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from airls_ray.config.schema import Config, PRMConfig
from airls_ray.errors import DataError, ModelError
from airls_ray.models.load import load_prm_module
from airls_ray.prm.folder import PromptForm, read_prompt_form, write_prm_form
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from airls_ray.prm.scorer import positive_probability
from tests.unit.prm_folders import (
    CHATML,
    HEADERS,
    MAKERS,
    PROBLEM,
    STEPS,
    qwen_prm,
    rlhflow_prm,
    shepherd_prm,
    token_classifier,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def in_bytes(vocabulary: dict[str, int], text: str) -> list[int]:
    """Tokens of ASCII text in the byte-level vocabulary, without its merge."""
    return [vocabulary[{" ": "Ġ", "\n": "Ċ"}.get(letter, letter)] for letter in text]


def softmax_of_last(logits: Any) -> list[float]:
    """Second of two probabilities, in float64."""
    powers = np.exp(logits.double().numpy())
    return (powers[:, 1] / powers.sum(1)).tolist()


def close(found: Sequence[float], wanted: Sequence[float]) -> bool:
    assert len(set(np.round(wanted, 4).tolist())) == len(wanted), "the test's own values must differ"
    return found == pytest.approx(wanted, abs=1e-5)


# ------------------------------------------------------------------------- token classification
def trl_ids(
    vocabulary: dict[str, int], separator: str, begin: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    ids, ends = [*begin, *in_bytes(vocabulary, PROBLEM)], []
    for step in STEPS:
        ids += [*in_bytes(vocabulary, step), *in_bytes(vocabulary, separator)]
        ends.append(len(ids) - 1)
    return ids, ends


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_a_token_classifier_is_read_at_the_last_id_of_each_separator(tmp_path, separator):
    vocabulary = token_classifier(tmp_path)
    ids, ends = trl_ids(vocabulary, separator)
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(tmp_path)(torch.tensor([ids])).logits[0, ends]
    scorer = load_step_scorer(tmp_path, separator=separator)
    assert close(scorer.score([StepText(PROBLEM, STEPS)])[0], softmax_of_last(logits))


def test_probabilities_near_one_are_told_apart():
    logits = torch.tensor([17.0, 20.0, 34.0])
    for labels in (logits[:, None], torch.stack([-logits / 2, logits / 2], dim=1)):
        assert torch.logit(positive_probability(labels)).tolist() == pytest.approx(logits.tolist(), abs=0.1)


def test_one_label_is_a_sigmoid_and_a_begin_of_sequence_comes_first(tmp_path):
    vocabulary = token_classifier(tmp_path, 1, "<s>", bos="<s>")
    ids, ends = trl_ids(vocabulary, "\n", [vocabulary["<s>"]])
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(tmp_path)(torch.tensor([ids])).logits[0, ends, 0]
    wanted = 1 / (1 + np.exp(-logits.double().numpy()))
    assert close(load_step_scorer(tmp_path).score([StepText(PROBLEM, STEPS)])[0], wanted.tolist())


def test_a_separator_that_a_step_brings_is_not_appended_again(tmp_path):
    token_classifier(tmp_path)
    scorer = load_step_scorer(tmp_path)
    with_feeds = [step + "\n" for step in STEPS]
    assert scorer.score([StepText(PROBLEM, with_feeds)]) == scorer.score([StepText(PROBLEM, STEPS)])


def test_a_chat_prompt_is_the_templates(tmp_path):
    vocabulary = token_classifier(tmp_path, 2, "<|im_start|>", "<|im_end|>", template=CHATML)
    start, end = vocabulary["<|im_start|>"], vocabulary["<|im_end|>"]
    ids = [start, *in_bytes(vocabulary, "user\n" + PROBLEM), end, *in_bytes(vocabulary, "\n")]
    ids += [start, *in_bytes(vocabulary, "assistant\nSo 0.\n")]
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(tmp_path)(torch.tensor([ids])).logits[0, -1:]
    scorer = load_step_scorer(tmp_path, prompt_template="chat")
    assert close(scorer.score([StepText(PROBLEM, ["So 0."])])[0], softmax_of_last(logits))


def test_a_classifier_of_three_labels_is_no_prm(tmp_path):
    token_classifier(tmp_path, 3)
    with pytest.raises(ModelError, match="gives 3 labels, but a PRM's gives 1"):
        load_step_scorer(tmp_path)


# --------------------------------------------------------------------------------------- marker
def test_a_marker_prm_is_read_at_its_markers_without_the_folders_code(tmp_path):
    vocabulary = qwen_prm(tmp_path)
    start, end, marker = (vocabulary[name] for name in ("<|im_start|>", "<|im_end|>", "<extra_0>"))
    ids: list[int] = []
    for role, text in (("system", SYSTEM), ("user", PROBLEM)):
        ids += [start, *in_bytes(vocabulary, f"{role}\n{text}"), end, vocabulary["Ċ"]]
    ids += [start, *in_bytes(vocabulary, "assistant\n")]
    places = []
    for step in STEPS:
        ids += [*in_bytes(vocabulary, step), marker]
        places.append(len(ids) - 1)
    ids += [end, vocabulary["Ċ"]]
    tensors = load_file(tmp_path / "model-00002-of-00002.safetensors")
    with torch.no_grad():
        hidden = Qwen2Model.from_pretrained(tmp_path)(torch.tensor([ids])).last_hidden_state[0, places]
        middle = (hidden @ tensors["score.0.weight"].T + tensors["score.0.bias"]).clamp(min=0)
        logits = middle @ tensors["score.2.weight"].T + tensors["score.2.bias"]
    assert close(load_step_scorer(tmp_path).score([StepText(PROBLEM, STEPS)])[0], softmax_of_last(logits))


def test_steps_are_stripped_of_the_blanks_between_them(tmp_path):
    qwen_prm(tmp_path)
    scorer = load_step_scorer(tmp_path)
    blanks = [f"\n{step}\n\n" for step in STEPS]
    assert scorer.score([StepText(PROBLEM, blanks)]) == scorer.score([StepText(PROBLEM, STEPS)])


def test_a_marker_prm_may_have_a_linear_head(tmp_path):
    vocabulary = token_classifier(tmp_path, 2, "<|im_start|>", "<|im_end|>", "<extra_0>", template=CHATML)
    start, end, marker = (vocabulary[name] for name in ("<|im_start|>", "<|im_end|>", "<extra_0>"))
    ids: list[int] = []
    for role, text in (("system", SYSTEM), ("user", PROBLEM)):
        ids += [start, *in_bytes(vocabulary, f"{role}\n{text}"), end, vocabulary["Ċ"]]
    ids += [start, *in_bytes(vocabulary, "assistant\nSo 0."), marker]
    with torch.no_grad():
        logits = Qwen2ForTokenClassification.from_pretrained(tmp_path)(torch.tensor([ids])).logits[0, -1:]
    scorer = load_step_scorer(tmp_path, "marker")
    assert close(scorer.score([StepText(PROBLEM, ["So 0."])])[0], softmax_of_last(logits))


@pytest.mark.parametrize("text", [("a <extra_0>?", ["b"]), ("a", ["b", "c<extra_0>d"])])
def test_a_marker_in_a_text_is_refused(tmp_path, text):
    qwen_prm(tmp_path)
    with pytest.raises(DataError, match=r"row 7: '.*' contains '<extra_0>', the marker"):
        load_step_scorer(tmp_path).score([StepText(*text, where="row 7")])


def test_the_text_of_a_special_token_is_text_or_refused(tmp_path):
    vocabulary = token_classifier(tmp_path / "trl", 2, "<|im_end|>")
    ids = [*in_bytes(vocabulary, "a<|im_end|>\n"), *in_bytes(vocabulary, "b<|im_end|>\n")]
    with torch.no_grad():
        model = Qwen2ForTokenClassification.from_pretrained(tmp_path / "trl")
        logits = model(torch.tensor([[*in_bytes(vocabulary, "p<eos>"), *ids]])).logits[0, [-13, -1]]
    item = StepText("p<eos>", ["a<|im_end|>", "b<|im_end|>"], where="row 7")
    assert close(load_step_scorer(tmp_path / "trl").score([item])[0], softmax_of_last(logits))
    qwen_prm(tmp_path / "chat")
    with pytest.raises(DataError, match=r"row 7: '.*' contains '<\|im_end\|>', which this PRM would take"):
        load_step_scorer(tmp_path / "chat").score([StepText("p", ["a<|im_end|>"], where="row 7")])


# ----------------------------------------------------------------------------------- plus, minus
def pair_logits(folder: Path, ids: Sequence[int], places: Sequence[int], minus: int, plus: int) -> Any:
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, places]
    return logits[:, [minus, plus]]


@pytest.mark.parametrize("tie", [False, True], ids=["own output layer", "tied"])
def test_math_shepherd_is_plus_against_minus_at_the_markers(tmp_path, tie):
    folder = tmp_path / "math-shepherd"
    vocabulary = shepherd_prm(folder, tie)
    marker, feed = vocabulary["▁ки"], vocabulary["<0x0A>"]
    letters = {" ": "▁"}

    def spell(text: str) -> list[int]:
        return [vocabulary[letters.get(letter, letter)] for letter in text]

    ids = [vocabulary["<s>"], *spell(" is 1 a one? Step 1: yes."), marker]
    ids += [feed, *spell("Step 2: 0 a=0."), marker, feed, *spell("Step 3: b."), marker]
    places = [at for at, token in enumerate(ids) if token == marker]
    logits = pair_logits(folder, ids, places, vocabulary["▁-"], vocabulary["▁+"])
    item = StepText("is 1 a one?", ["Step 1: yes.", "Step 2: 0 a=0.\n", "Step 3: b."])
    assert close(load_step_scorer(folder).score([item])[0], softmax_of_last(logits))


def test_math_shepherd_refuses_a_step_with_its_marker(tmp_path):
    shepherd_prm(tmp_path)
    with pytest.raises(DataError, match="contains 'ки', the marker"):
        load_step_scorer(tmp_path, "plus_minus").score([StepText("a", ["b ки"])])


def test_a_conversation_is_read_where_each_answer_is_predicted(tmp_path):
    folder = tmp_path / "Llama-PRM"
    vocabulary = rlhflow_prm(folder)
    begin, head, over, turn = (vocabulary[name] for name in ("<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"))
    ids = [begin, head, *in_bytes(vocabulary, "system"), over, *in_bytes(vocabulary, "\n\nToday"), turn]
    places = []
    for text in (f"{PROBLEM} {STEPS[0]}", *STEPS[1:]):
        ids += [head, *in_bytes(vocabulary, "user"), over, *in_bytes(vocabulary, "\n\n" + text), turn]
        ids += [head, *in_bytes(vocabulary, "assistant"), over, *in_bytes(vocabulary, "\n\n")]
        places.append(len(ids) - 1)
        ids += [vocabulary["+"], turn]
    logits = pair_logits(folder, ids, places, vocabulary["-"], vocabulary["+"])
    # The published evaluation runs the conversation up to each step and reads the third place from its end.
    for place, wanted in zip(places, logits, strict=True):
        again = pair_logits(folder, ids[: place + 3], [-3], vocabulary["-"], vocabulary["+"])
        assert torch.allclose(again[0], wanted, atol=1e-5)
    assert close(load_step_scorer(folder).score([StepText(PROBLEM, STEPS)])[0], softmax_of_last(logits))


def test_a_template_that_hides_earlier_answers_is_refused(tmp_path):
    last_only = HEADERS.replace("in messages", "in messages[-2:]")
    rlhflow_prm(tmp_path, last_only)
    with pytest.raises(ModelError, match=r"does not give '\+' as a token of its own"):
        load_step_scorer(tmp_path, "plus_minus_chat").score([StepText(PROBLEM, STEPS)])


# ----------------------------------------------------------------------------- this project's own
ARITHMETIC = ["4+5=9;", "9*2=0;"]


def own_ids(words: dict[str, int], *texts: str) -> list[list[int]]:
    return [[words[letter] for letter in text] for text in texts]


def test_an_own_scalar_head_is_the_sigmoid_at_each_steps_end(own_folder):
    folder, words = own_folder(parameterisation="scalar_head")
    prompt, first, second = own_ids(words, "4+5*2=", *ARITHMETIC)
    ids = [*prompt, *first, *second, words["<eos>"]]
    ends = [len(prompt) + len(first) - 1, len(ids) - 1]
    module = load_prm_module(folder, "scalar_head").eval()
    with torch.no_grad():
        logits = module.model(torch.tensor([ids])).logits[0, ends, 0].double().numpy()
    found = load_step_scorer(folder).score([StepText("4+5*2=", ARITHMETIC)])[0]
    assert close(found, (1 / (1 + np.exp(-logits))).tolist())


@pytest.mark.parametrize(("how", "finished"), [("auto", True), ("mean", True), ("auto", False)])
def test_an_own_language_model_gives_the_mean_probability_of_each_steps_tokens(own_folder, how, finished):
    folder, words = own_folder(parameterisation="log_prob", log_prob=how)
    prompt, first, second = own_ids(words, "4+5*2=", *ARITHMETIC)
    second += [words["<eos>"]] * finished
    ids = [*prompt, *first, *second]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].double()
    log_probs = torch.log_softmax(logits, -1)
    wanted, at = [], len(prompt)
    for step in (first, second):
        each = [float(log_probs[at + i - 1, token]) for i, token in enumerate(step)]
        wanted.append(float(np.exp(np.mean(each))))
        at += len(step)
    item = StepText("4+5*2=", ARITHMETIC, finished=finished)
    assert load_step_scorer(folder).score([item])[0] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("score", "whose"),
    [("ratio", "policy"), ("product", "policy"), ("reference_ratio", "reference model")],
)
def test_an_own_prm_that_needs_another_model_is_refused(own_folder, score, whose):
    folder, _ = own_folder(search_score=score)
    with pytest.raises(ModelError, match=f"search_score={score}, which needs the {whose}'s log-prob"):
        load_step_scorer(folder)


def test_an_own_prm_with_shaping_is_refused(own_folder):
    folder, _ = own_folder(parameterisation="scalar_head", shaping=True)
    with pytest.raises(ModelError, match="has shaping"):
        load_step_scorer(folder)


def test_an_own_prm_whose_form_is_not_its_models_is_refused(own_folder):
    folder, _ = own_folder(parameterisation="log_prob")
    write_prm_form(PRMConfig(parameterisation="scalar_head"), folder)
    with pytest.raises(ModelError, match=r"=scalar_head in its prm\.json but holds a Qwen3ForCausalLM"):
        load_step_scorer(folder)


def test_an_own_prm_puts_the_problem_as_its_training_did(own_folder):
    folder, _ = own_folder(parameterisation="scalar_head")
    bare = load_step_scorer(folder).score([StepText("1+4+5=", ARITHMETIC)])
    write_prm_form(PRMConfig(parameterisation="scalar_head"), folder, PromptForm("plain", "", "1+{prompt}="))
    assert load_step_scorer(folder).score([StepText("4+5", ARITHMETIC)]) == bare


def test_the_prompts_of_a_training_are_those_of_its_task(tmp_path):
    task = {"name": "file", "train_file": "a", "test_file": "b", "prompt_template": "Q {prompt} A"}
    config = Config(model={"path": "x", "prompt_template": "chat"}, task={**task, "system_prompt": "S"})
    write_prm_form(config.prm, tmp_path, PromptForm.of(config))
    found = read_prompt_form(tmp_path)
    assert found == PromptForm("chat", "S", "Q {prompt} A")
    assert found.wrap("1") == "Q 1 A"
    assert PromptForm.of(Config()) == PromptForm()


@pytest.mark.parametrize("prompt", [7, {"template": "x", "system": "", "user": "{prompt}"}, {"user": "q"}])
def test_a_broken_prompt_form_is_one_sentence(tmp_path, prompt):
    (tmp_path / "prm.json").write_text(json.dumps({"prompt": prompt}))
    with pytest.raises(ModelError, match=r"prm\.json is broken"):
        read_prompt_form(tmp_path)


def test_a_word_that_an_own_tokenizer_lacks_is_one_sentence(own_folder):
    folder, _ = own_folder()
    with pytest.raises(DataError, match=r"row 2: the tokenizer of .* cannot encode 'x=1;'"):
        load_step_scorer(folder).score([StepText("4+5=", ["x=1;"], where="row 2")])


# --------------------------------------------------------------------------------------- batches
ITEMS = [
    StepText("is it so?", ["a = 1.", "b is a b."]),
    StepText("is it?", ["no."]),
    StepText("why is it so, or is it not so?", ["c.", "a long step about 1 and 2 and 3.", "d.", "e: 1+2-3."]),
    StepText("is it?", []),
    StepText("is it so?", ["a = 1.", "b is a c."]),
]


@pytest.mark.parametrize("form", MAKERS)
def test_a_batch_scores_as_its_items_do_alone(tmp_path, form):
    MAKERS[form](tmp_path)
    together = load_step_scorer(tmp_path, form).score(ITEMS)
    scorer = load_step_scorer(tmp_path, form, batch_tokens=1)
    alone = [scorer.score([item])[0] for item in ITEMS]
    assert [len(scores) for scores in together] == [2, 1, 4, 0, 2]
    for found, wanted in zip(together, alone, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert len({round(score, 4) for scores in together for score in scores}) >= 8


def test_a_batch_of_an_own_prm_scores_as_its_items_do_alone(own_folder):
    folder, _ = own_folder(parameterisation="scalar_head")
    items = [StepText("4+5*2=", ARITHMETIC), StepText("1+1=", ["1+1=2;"]), StepText("1+1=", [])]
    scorer = load_step_scorer(folder)
    together = scorer.score(items)
    assert [len(scores) for scores in together] == [2, 1, 0]
    for item, scores in zip(items, together, strict=True):
        assert scorer.score([item])[0] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("form", MAKERS)
def test_the_order_of_the_items_changes_no_bit(tmp_path, form):
    MAKERS[form](tmp_path)
    scorer = load_step_scorer(tmp_path, form, batch_tokens=500)
    assert scorer.score(ITEMS[::-1]) == scorer.score(ITEMS)[::-1]


def test_a_later_step_changes_no_earlier_score(tmp_path):
    qwen_prm(tmp_path)
    scorer = load_step_scorer(tmp_path)
    whole, part = scorer.score([StepText(PROBLEM, STEPS), StepText(PROBLEM, STEPS[:2])])
    assert whole[:2] == pytest.approx(part, abs=1e-5)


def test_a_score_of_exactly_zero_is_kept(tmp_path):
    token_classifier(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file) | {
        "score.weight": torch.zeros(2, 16),
        "score.bias": torch.tensor([500.0, -500.0]),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    assert load_step_scorer(tmp_path).score([StepText(PROBLEM, STEPS)]) == [[0.0, 0.0, 0.0]]


def test_bfloat16_weights_give_nearly_the_same_scores(tmp_path):
    token_classifier(tmp_path)
    items = [StepText(PROBLEM, STEPS)]
    exact, coarse = (
        load_step_scorer(tmp_path, dtype=dtype).score(items)[0] for dtype in ("float32", "bfloat16")
    )
    assert coarse == pytest.approx(exact, abs=0.1)
    assert coarse != exact
