"""A head on the frozen policy: what it reads, what of it learns, what its folder holds, where it scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.train.launch_checks import with_given_prm
from airls_ray.config import Config
from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_prm_module
from airls_ray.prm.folder import PromptForm, write_prm_form
from airls_ray.prm.forms import choose_form
from airls_ray.prm.items import StepText
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.load import load_step_scorer
from airls_ray.prm.prefix_scores import PrefixScorer
from airls_ray.prm.supervised import update_on_labels
from airls_ray.search.scoring import Continuation
from tests.tiny import make_policy_folder, make_text_policy
from tests.unit.test_supervised_prm import config, labelled

TOKENS = (5, 6, 7, 2, 3, 4, 8, 9)


def by_hand(policy: Path, module: Any, tokens: Any) -> torch.Tensor:
    """The head on the second last of all hidden states, as transformers gives them [T], in float64."""
    model = AutoModelForCausalLM.from_pretrained(policy)
    with torch.no_grad():
        states = model(torch.tensor([list(tokens)]), output_hidden_states=True).hidden_states
        hidden = states[-2][0].double()
        first, _, second = module.model.score
        hidden = torch.relu(hidden @ first.weight.double().T + first.bias.double())
        values: torch.Tensor = (hidden @ second.weight.double().T + second.bias.double()).squeeze(1)
    return values


def with_new_head(policy: Path) -> Any:
    return load_prm_module(policy, "scalar_head", head="policy")


@pytest.mark.parametrize("layers", [2, 5])
def test_the_head_reads_the_second_last_hidden_state(tmp_path: Path, layers: int) -> None:
    policy = make_policy_folder(tmp_path / "policy")
    if layers != 2:
        from airls_ray.config.schema import ModelConfig
        from airls_ray.models.create import create_policy
        from tests.tiny import Ids

        sizes = {"hidden_size": 32, "heads": 2, "intermediate_size": 48, "context_tokens": 64}
        create_policy(ModelConfig(layers=layers, **sizes), Ids(), policy, 3)
    module = with_new_head(policy)
    at = torch.arange(len(TOKENS))
    ids = torch.tensor([TOKENS])
    found = module(ids, at[None], at, ids[0], torch.ones_like(ids), at)[0]
    assert found.tolist() == pytest.approx(by_hand(policy, module, TOKENS).tolist(), rel=1e-4, abs=1e-6)
    assert len({round(x, 5) for x in found.tolist()}) == len(TOKENS)


def learned(policy: Path) -> TorchEngine:
    """Some updates by SPRM's loss from outcomes."""
    engine = TorchEngine(with_new_head(policy), LearnerConfig(learning_rate=1e-2))
    batch = LabelledSequences.of(labelled(labels=[[None, None, float(row % 2)] for row in range(12)]))
    for _ in range(30):
        found = update_on_labels(
            engine, batch, torch.arange(12), config(), pad_id=0, step_loss=StepLossConfig(name="sprm")
        )
    assert found["train_prm/agreeing_steps"] > 0.0 and found["train_prm/loss"] < 0.5
    return engine


def test_the_head_alone_learns_and_is_saved(folder: Path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in with_new_head(folder).model.named_parameters()}
    engine = learned(folder)
    for name, value in engine.module.model.named_parameters():
        assert torch.equal(value, before[name]) != name.startswith("score."), name
    saved = tmp_path / "prm"
    save_trained(engine, folder, saved)
    size = (saved / "model.safetensors").stat().st_size
    assert size < 4 * (32 * 64 + 64 + 64 + 1) + 1000 < (folder / "model.safetensors").stat().st_size / 2
    again = load_prm_module(saved, "scalar_head")
    for (name, value), (_, kept) in zip(
        again.model.named_parameters(), engine.module.model.named_parameters(), strict=True
    ):
        assert torch.equal(value, kept), name


def test_a_search_scores_by_it_with_cached_prefixes(folder: Path) -> None:
    module, prm = with_new_head(folder), PRMConfig(parameterisation="scalar_head", head="policy")
    scorer = PrefixScorer(module, prm, temperature=1.0, device=torch.device("cpu"))
    expected = torch.sigmoid(by_hand(folder, module, TOKENS))[[4, 7]].tolist()
    found, costs = [], []
    for prefix, step in ((TOKENS[:3], TOKENS[3:5]), (TOKENS[:5], TOKENS[5:])):
        scores, cost = scorer.score([Continuation(prefix, step, (len(step),), (-1.0,), keep=len(step))])
        found += scores[0]
        costs += cost
    assert found == pytest.approx(expected, rel=1e-5)
    assert costs == [5, 4]


@pytest.fixture(scope="module")
def text_prm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy that reads texts, and the folder of a head on it."""
    policy = make_text_policy(tmp_path_factory.mktemp("texts") / "policy")
    prm = policy.parent / "prm"
    save_trained(TorchEngine(with_new_head(policy), LearnerConfig()), policy, prm)
    write_prm_form(PRMConfig(parameterisation="scalar_head", head="policy"), prm, PromptForm())
    return policy, prm


def test_texts_are_scored_by_it(text_prm: tuple[Path, Path]) -> None:
    policy, prm = text_prm
    assert choose_form(prm) == "project"
    item = StepText("2+3=", ["5\n", "so 5\n"], finished=False)
    from airls_ray.prm.step_encoder import StepEncoder

    encoded = StepEncoder.from_folder(prm, PromptForm(), 512).encode(item)
    values = by_hand(policy, load_prm_module(prm, "scalar_head"), (*encoded.prefix, *encoded.tokens))
    ends = [len(encoded.prefix) + end - 1 for end in encoded.step_ends]
    assert len(ends) == 2
    found = load_step_scorer(prm).score([item])[0]
    assert found == pytest.approx(torch.sigmoid(values)[ends].tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("gone", "is a head on the policy .* which is gone"),
        ("other", "whose weights are others now: train it again"),
        ("broken", r"policy_head\.json is broken"),
        ("narrow", "is no head for its policy"),
    ],
)
def test_a_head_without_its_policy_is_one_sentence(
    text_prm: tuple[Path, Path], tmp_path: Path, spoil: str, sentence: str
) -> None:
    policy, prm = (shutil.copytree(one, tmp_path / one.name) for one in text_prm)
    facts = prm / "policy_head.json"
    saved = json.loads(facts.read_text())
    assert saved["policy"] == str(text_prm[0])
    if spoil == "broken":
        facts.write_text("{}")
    elif spoil == "narrow":
        from safetensors.torch import load_file, save_file

        weights = load_file(prm / "model.safetensors")
        weights["score.0.weight"] = weights["score.0.weight"][:, :8].contiguous()
        save_file(weights, prm / "model.safetensors")
    else:
        facts.write_text(json.dumps(saved | {"policy": str(policy)}))
        if spoil == "gone":
            shutil.rmtree(policy)
        else:
            content = bytearray((policy / "model.safetensors").read_bytes())
            content[-1] ^= 1
            (policy / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        load_prm_module(prm, "scalar_head")


def test_a_policy_of_one_layer_has_no_second_last_state(tmp_path: Path) -> None:
    from airls_ray.config.schema import ModelConfig
    from airls_ray.models.create import create_policy
    from tests.tiny import Ids

    make_policy_folder(tmp_path)
    sizes = ModelConfig(hidden_size=32, layers=1, heads=2, intermediate_size=48, context_tokens=64)
    create_policy(sizes, Ids(), tmp_path, 0)
    with pytest.raises(ModelError, match=r"or one layer alone: set prm\.head=linear"):
        with_new_head(tmp_path)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"parameterisation": "log_prob"}, "head=policy needs parameterisation=scalar_head"),
        ({"shaping": True}, "head=policy needs parameterisation=scalar_head"),
        ({"learner": {"lora": {"rank": 4}}}, "without adapters: set learner.lora.rank=0"),
    ],
)
def test_what_does_not_go_with_a_frozen_policy_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PRMConfig.model_validate({"parameterisation": "scalar_head", "head": "policy", **fields})


def test_it_does_not_learn_in_the_loop() -> None:
    prm = {"parameterisation": "scalar_head", "head": "policy"}
    with pytest.raises(
        ConfigError, match=r"train the head by `airls-ray train-prm` and give it as prm\.path"
    ):
        with_given_prm(Config.model_validate({"method": "airl_s", "prm": prm}))
