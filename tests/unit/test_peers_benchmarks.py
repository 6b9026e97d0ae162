"""What the benchmarks beside other programs compute themselves: policy, PRM, choices and ratios."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from airls_ray.config import load_config
from airls_ray.errors import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as for `python benchmarks/NAME.py`

import common  # noqa: E402
import mixed_policy  # noqa: E402
import peers  # noqa: E402
import search_peer_processes  # noqa: E402
import search_peers  # noqa: E402
from plain_search import Prefix, kept_of  # noqa: E402
from processes import Usage  # noqa: E402
from whole_pass_prm import ROWS, WholePassPRM  # noqa: E402

SMALL = ["model.hidden_size=64", "model.layers=2", "model.heads=2", "model.intermediate_size=128"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    mixed_policy.write_mixed_policy(load_config(common.CONFIG, SMALL), folder, 50.0)
    return folder


def draws(prm, rows, most, seed):
    """Responses of 1 to `most` tokens of the vocabulary's text."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, most + 1, (rows,), generator=generator).tolist()
    return [torch.randint(2, len(prm.tokenizer), (n,), generator=generator).tolist() for n in lengths]


def test_a_response_of_mixed_length_ends_at_every_token_with_nearly_the_same_chance(mixed):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    tokens = torch.randint(2, 17, (16, 250), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        chances = model(tokens).logits.double().softmax(-1)
    ends = chances[..., model.config.eos_token_id]
    assert ends.mean() == pytest.approx(1 / 50, rel=0.15)
    assert 0.2 / 50 < ends.min() < ends.max() < 5 / 50
    assert chances[..., model.config.pad_token_id].max() < 1e-4


def test_the_policy_of_mixed_lengths_has_fifteen_million_parameters():
    model = load_config(common.CONFIG, list(mixed_policy.SIZES)).model
    attention = 4 * model.hidden_size * model.heads * model.head_dim
    layer = attention + 3 * model.hidden_size * model.intermediate_size
    assert layer * model.layers == pytest.approx(15e6, rel=0.05)


def test_a_tied_output_layer_is_refused(tmp_path):
    config = load_config(common.CONFIG, [*SMALL, "model.tie_embeddings=true"])
    with pytest.raises(ValueError, match="tied"):
        mixed_policy.write_mixed_policy(config, tmp_path, 50.0)


def test_a_whole_pass_has_each_rows_own_log_probability(mixed):
    """5,000 tokens in three padded batches against one row at a time in float64."""
    prm = WholePassPRM(str(mixed), temperature=0.7)
    rows = 2 * ROWS + 3
    prompts, responses = draws(prm, rows, 20, 1), draws(prm, rows, 60, 2)
    found = prm.log_probs(prompts, responses)
    model = AutoModelForCausalLM.from_pretrained(mixed, dtype=torch.float64)
    for prompt, response, (total, count) in zip(prompts, responses, found, strict=True):
        with torch.no_grad():
            logs = (model(torch.tensor([prompt + response])).logits[0] / 0.7).log_softmax(-1)
        wanted = sum(logs[len(prompt) + at - 1, token].item() for at, token in enumerate(response))
        assert (total, count) == (pytest.approx(wanted, rel=1e-4, abs=1e-3), len(response))


def prefixes(*totals, over=()):
    live = [Prefix(0, (at,), False, total) for at, total in enumerate(totals)]
    return live + [Prefix(0, (100 + at,), True, total) for at, total in enumerate(over)]


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (prefixes(*map(float, range(8))), [7.0, 6.0]),
        (prefixes(-3.0, -1.0, -2.0, -5.0, over=(-0.5, -9.0, -9.0, -9.0)), [-1.0]),
        (prefixes(-3.0, over=[-1.0] * 7), []),
        (prefixes(over=[-1.0] * 8), []),
    ],
    ids=["none is over", "half is over", "no room for an expansion", "all are over"],
)
def test_a_finished_prefix_takes_its_place_in_the_plain_beams_width(paths, kept):
    assert [path.total for path in kept_of(paths, 8, 4)] == kept


def test_log_odds_are_of_the_mean_probability_of_a_token():
    # mean probability exp(-1.0986 * 4 / 4) = 1 / 3, whose odds are 1 : 2
    assert Prefix(0, (1, 2, 3, 4), False, -4 * 1.0986123).log_odds == pytest.approx(-0.6931472, abs=1e-5)


def searches(*speeds):
    return [{"problems_per_second": one, "accuracy": 0.5, "scored_tokens": 10} for one in speeds]


def test_a_search_is_compared_with_the_better_peer_of_each_turn():
    found = {
        "its_hub": searches(1.0, 4.0, 2.0),
        "plain loop": searches(2.0, 2.0, 2.0),
        "airls-ray": searches(4.0, 4.0, 6.0),
    }
    summary = search_peers.summary(found)
    assert (summary["ratio"], summary["ratio_range"]) == (2.0, [1.0, 3.0])
    assert summary["sides"]["its_hub"]["problems_per_second"] == 2.0


def test_an_iteration_is_compared_within_its_turn():
    def side(first, *seconds):
        return peers.Side(first, list(seconds), Usage(12.0, 1.5), 40.0)

    sides = {
        "TRL": [side(9.0, 4.0, 6.0, 5.0), side(11.0, 8.0)],
        "airls-ray": [side(20.0, 2.0), side(22.0, 8.0)],
    }
    summary = peers.summary(sides)
    assert (summary["ratio"], summary["ratio_range"]) == (1.75, [1.0, 2.5])
    trl = summary["sides"]["TRL"]
    assert (trl["first_update_seconds"], trl["iteration_seconds"]) == (10.0, 5.5)
    assert trl["processor_seconds"] == pytest.approx((12.0 / 4 + 12.0 / 2) / 2)


@pytest.mark.parametrize("setting", list(peers.SETTINGS))
def test_trls_micro_batches_make_up_its_updates(setting):
    one = peers.SETTINGS[setting]
    share, left = divmod(one.problems * one.rollouts, one.updates)
    assert left == 0
    assert share % one.rows == 0


@pytest.mark.parametrize(
    ("names", "model", "message"),
    [(["large"], "", "--setting large is unknown"), (["pretrained"], "", "needs --model")],
)
def test_a_setting_that_cannot_be_measured_is_refused_before_the_start(names, model, message):
    with pytest.raises(ConfigError, match=message):
        peers.check_settings(names, model)


def test_a_served_policy_reads_words_that_it_does_not_know_as_padding(mixed, tmp_path):
    served = search_peer_processes.with_unknown_words(mixed, tmp_path / "served")
    before, after = AutoTokenizer.from_pretrained(mixed), AutoTokenizer.from_pretrained(served)
    text = "1+2*3-4=;" * 100
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after("1x2")["input_ids"] == [*before("1")["input_ids"], 0, *before("2")["input_ids"]]


@pytest.mark.parametrize(
    ("value", "flags"), [(True, ["--eager"]), (False, ["--no-eager"]), (0.5, ["--eager", "0.5"])]
)
def test_a_server_is_told_its_settings_by_flags(value, flags):
    assert search_peer_processes.as_flags("eager", value) == flags
