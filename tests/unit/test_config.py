from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airls_ray.config import Config, load_config, parse_overrides
from airls_ray.config.load import dump_config, merge
from airls_ray.config.search_section import SearchConfig
from airls_ray.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def mistake(path: Path | None, *overrides: str) -> str:
    """Return the sentence that the user sees."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------ reading
def test_no_file_and_no_override_gives_the_defaults():
    assert load_config(None, []) == Config()


def test_the_configuration_imports_neither_torch_nor_ray_nor_transformers():
    heavy = {"torch", "ray", "transformers", "vllm"}
    code = f"import sys, airls_ray.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["1e-1", "-2E3", ".5e2", "1.5e3"])
def test_numbers_with_an_exponent_are_numbers_and_texts_of_that_form_stay_texts(tmp_path, text):
    reward = f"task.reward={{name: length, options: {{free: {text}, text: '{text}'}}}}"
    dump_config(load_config(None, [reward]), tmp_path / "config.yaml")
    options = load_config(tmp_path / "config.yaml").task.reward[0].options
    assert options == {"free": float(text), "text": text}


def test_override_values_are_yaml():
    tree = parse_overrides(["a.b=1", "a.c=[1, x]", "a.d=null", "e=1.5", "f=a=b", "g=true"])
    assert tree == {"a": {"b": 1, "c": [1, "x"], "d": None}, "e": 1.5, "f": "a=b", "g": True}


def test_the_last_of_two_overrides_wins():
    assert load_config(None, ["seed=1", "seed=2"]).seed == 2


def test_an_override_changes_one_key_and_keeps_its_neighbours(tmp_path):
    path = write(tmp_path, "a.yaml", "rollout: {temperature: 0.7, max_response_tokens: 32}")
    config = load_config(path, ["rollout.temperature=0.9"])
    assert (config.rollout.temperature, config.rollout.max_response_tokens) == (0.9, 32)


def test_numbers_in_exponent_form_are_numbers():
    # PyYAML reads 1e-5 (without a dot) as text.
    assert load_config(None, ["policy.learning_rate=1e-5"]).policy.learning_rate == 1e-5


def test_setting_one_key_of_a_learner_keeps_that_learners_own_defaults():
    config = load_config(None, ["sft.learner.ranks=2", "prm.learner.ranks=2", "verifier.resources.gpus=0"])
    assert config.sft.learner.learning_rate == 1e-3
    assert config.sft.learner.lr_warmup_updates == 50
    assert config.prm.learner.learning_rate == 3e-4
    assert config.verifier.resources.threads == 1


def test_a_base_is_read_relative_to_the_file_and_lies_below_it(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "base.yaml", "seed: 1\nname: base\nrollout: {temperature: 0.5, max_workers: 3}")
    write(tmp_path, "middle.yaml", "base: base.yaml\nrollout: {temperature: 0.6}")
    path = write(tmp_path / "sub", "top.yaml", "base: ../middle.yaml\nname: top")
    config = load_config(path, [])
    assert (config.seed, config.name) == (1, "top")
    assert (config.rollout.temperature, config.rollout.max_workers) == (0.6, 3)


def test_an_empty_section_keeps_its_defaults(tmp_path):
    path = write(tmp_path, "a.yaml", "seed: 3\nrollout:\n  # temperature: 2\n")
    assert load_config(path, []) == load_config(None, ["seed=3"])


def test_merge_leaves_its_arguments_alone():
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})


# ----------------------------------------------------------------------------- named sections
def test_a_method_name_alone_replaces_the_method_of_the_base(tmp_path):
    path = write(tmp_path, "a.yaml", "method: {name: airl_s, step_weight: 0.3, kl_coefficient: 0.1}")
    assert load_config(path, ["method=grpo"]).method == load_config(None, ["method=grpo"]).method


def test_a_method_name_and_a_field_of_it_go_together():
    method = load_config(None, ["method=dr_grpo", "method.kl_coefficient=0.01"]).method
    assert (method.name, method.outcome_advantage, method.kl_coefficient) == ("dr_grpo", "dr_grpo", 0.01)


def test_a_method_fills_only_what_is_not_set():
    assert load_config(None, ["method.step_weight=0.2"]).method.step_weight == 0.2
    assert load_config(None, []).method.step_weight == 0.5


def test_a_task_name_alone_replaces_the_task_of_the_base(tmp_path):
    path = write(tmp_path, "a.yaml", "task: {name: arithmetic, operations: 4}")
    assert load_config(path, ["task=countdown"]).task.name == "countdown"


def test_a_field_of_the_default_task_needs_no_name():
    assert load_config(None, ["task.operations=4"]).task.name == "arithmetic"


def test_fields_left_over_from_another_task_are_named(tmp_path):
    path = write(tmp_path, "a.yaml", "task: {name: arithmetic, operations: 4}")
    text = mistake(path, "task.name=countdown")
    assert "task.operations belongs to task=arithmetic, but task.name is countdown" in text
    assert "numbers, max_number" in text
    assert "task=countdown" in text


# ---------------------------------------------------------------------------------- round trip
@pytest.mark.parametrize("overrides", [[], ["method=rloo", "task=countdown", "policy.learning_rate=1e-7"]])
def test_what_is_dumped_loads_as_the_same_configuration(tmp_path, overrides):
    config = load_config(None, overrides)
    text = dump_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", []) == config
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == text


def test_a_step_delimiter_of_line_feeds_survives_the_round_trip(tmp_path):
    names = ["task=file", "task.train_file=a.jsonl", "task.test_file=b.jsonl", "model.path=m"]
    config = load_config(None, names)
    dump_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", []).task == config.task


# ------------------------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rolout.temperature=1", "unknown key rolout; did you mean rollout?"),
        ("rollout.temprature=1", "unknown key rollout.temprature; did you mean rollout.temperature?"),
        ("rollout.engine.max_seqences=1", "did you mean rollout.engine.max_sequences?"),
        ("task.operatons=1", "unknown key task.operatons; did you mean task.operations?"),
        (
            "temperature=3",
            "did you mean rollout.temperature or train.evaluation.temperature or search.temperature",
        ),
        ("train.zzz=3", "unknown key train.zzz; train has iterations, problems_per_iteration"),
        ("rollout.temperature=-1", "rollout.temperature must be greater than 0, but is -1"),
        ("task.operations=65", "task.operations must be less than or equal to 64, but is 65"),
        ("train.iterations=abc", "train.iterations must be an integer, but is 'abc'"),
        ("train.iterations=1.5", "train.iterations must be an integer, but is 1.5"),
        ("model.path=5", "model.path must be a string, but is 5"),
        ("policy=3", "policy must be a section with keys of its own, but is 3"),
        (
            "method=foo",
            "method.name must be 'airl_s', 'repirl', 'prime', ",
        ),
        (
            "method.name=[1]",
            "method.name must be 'airl_s', 'repirl', 'prime', ",
        ),
        (
            "task=foo",
            "task.name: there is no task 'foo': there are arithmetic, code, countdown, file, ",
        ),
        ("task=file", "task.train_file is missing"),
        ("rollout.resources.gpus=.nan", "rollout.resources.gpus must be a finite number"),
        ("rollout.resources.custom.x=-1", "rollout.resources.custom.x must be greater than 0"),
        ("policy.adam_betas=[0.1, 1.0]", "policy.adam_betas.1 must be less than 1"),
        ("prm.shaping=true", "prm: shaping needs parameterisation=scalar_head"),
        ("prm.discriminator=gail", "prm: discriminator=gail needs parameterisation=scalar_head"),
        (
            "prm={discriminator: gail, parameterisation: scalar_head}",
            "prm: discriminator=gail has the logit f",
        ),
        ("name=a/b", "name must be a string that should match pattern"),
        (
            "rollout.max_response_tokens=300",
            "rollout.max_response_tokens must be below model.context_tokens (256), but is 300",
        ),
        ("seed", "an override must look like section.key=value, but is 'seed'"),
        ("a..b=2", "an override must look like section.key=value, but is 'a..b=2'"),
        ("seed=[1", "the value of the override 'seed=[1' is not YAML"),
        ("seed=", "seed must be an integer, but is None"),
    ],
)
def test_a_wrong_override_is_one_sentence_that_names_key_value_and_remedy(override, sentence):
    assert sentence in mistake(None, override)


def test_an_unknown_key_comes_before_other_mistakes_and_they_are_counted():
    text = mistake(None, "seed=-1", "rollout.temprature=1")
    assert text.startswith("unknown key rollout.temprature")
    assert text.endswith("(and 1 more mistake)")


def test_a_mistake_in_the_file_names_the_file_and_one_of_the_command_line_does_not(tmp_path):
    path = write(tmp_path, "a.yaml", "seed: -1")
    assert mistake(path).startswith(f"{path}: seed must be")
    assert mistake(path, "seed=-2").startswith("seed must be")


def test_a_long_value_is_cut():
    assert len(mistake(None, "policy.ranks=" + "x" * 500)) < 150


def test_broken_yaml_names_line_and_column(tmp_path):
    path = write(tmp_path, "a.yaml", "seed: 1\nrollout: {a: ]\n")
    assert f"{path} is not valid YAML at line 2, column 14" in mistake(path)


def test_a_key_that_occurs_twice_is_an_error(tmp_path):
    path = write(tmp_path, "a.yaml", "seed: 1\nname: x\nseed: 2\n")
    assert "line 3, column 1: the key 'seed' occurs twice" in mistake(path)


def test_a_file_that_holds_a_list_is_an_error(tmp_path):
    assert "must hold keys and values, but holds a list" in mistake(write(tmp_path, "a.yaml", "- 1"))


@pytest.mark.parametrize("text", ["", "# seed: 1\n", "---\n"])
def test_an_empty_file_is_an_error(tmp_path, text):
    path = write(tmp_path, "a.yaml", text)
    assert mistake(path) == f"{path} is empty: it must hold keys and values, such as seed: 1"


def test_a_missing_file_names_the_nearest_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    write(tmp_path / "configs", "one.yaml", "seed: 1")
    write(tmp_path / "configs", "quite_another.yaml", "seed: 1")
    text = mistake(Path("configs/oen.yaml"))
    assert text == "the configuration file configs/oen.yaml does not exist; did you mean configs/one.yaml?"


def test_a_missing_base_names_the_file_that_asked_for_it(tmp_path):
    path = write(tmp_path, "a.yaml", "base: gone.yaml")
    assert "gone.yaml (the `base` of a.yaml) does not exist" in mistake(path)


def test_a_circle_of_bases_is_an_error(tmp_path):
    write(tmp_path, "a.yaml", "base: b.yaml")
    path = write(tmp_path, "b.yaml", "base: a.yaml")
    assert "`base` leads back to this file" in mistake(path)


# --------------------------------------------------------------------------------------- sizes
def test_derived_sizes_follow_from_the_settings():
    overrides = ["train.iterations=10", "train.problems_per_iteration=4", "train.rollouts_per_problem=3"]
    config = load_config(None, [*overrides, "prm.warmup_iterations=5", "rollout.max_response_tokens=7"])
    assert config.derived() == {
        "rollouts per iteration": 12,
        "rollouts per policy update": 12,
        "most response tokens per iteration": 84,
        "PRM warm-up iterations": 5,
        "iterations in all": 15,
        "rollouts in all": 180,
    }


def test_a_method_without_a_prm_has_no_warmup():
    assert load_config(None, ["method=grpo"]).derived()["PRM warm-up iterations"] == 0


@pytest.mark.parametrize("axis", ["generations", "policy_tokens"])
def test_a_budget_below_the_first_round_of_a_search_is_refused(axis: str) -> None:
    with pytest.raises(ValueError, match=f"limits.{axis} must be at least the largest of budgets"):
        SearchConfig(budgets=[4, 16], limits={axis: 15})
    assert SearchConfig(budgets=[4, 16], limits={axis: 16}).limits == {axis: 16}


def test_an_algorithm_is_not_named_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        SearchConfig(algorithms=["beam", "beam"])


def test_a_run_in_which_nothing_learns_is_refused():
    assert "train.iterations is 0 and no PRM learns" in mistake(None, "train.iterations=0", "method=grpo")


def test_the_prm_may_learn_alone():
    config = load_config(None, ["train.iterations=0", "prm.warmup_iterations=7"])
    assert config.iterations == config.warmup_iterations == 7


def test_detours_of_a_task_that_has_none_are_refused_at_once():
    assert "the task arithmetic cannot make detours" in mistake(None, "sft.detour_share=0.3")
    assert load_config(None, ["task=countdown", "sft.detour_share=0.3"]).sft.detour_share == 0.3


def test_training_on_older_rollouts_needs_importance_weights():
    assert "set method.importance_cap" in mistake(None, "train.max_staleness=1")


def test_weights_in_the_middle_of_sampling_need_the_asynchronous_loop():
    assert "set train.max_staleness above 0" in mistake(None, "rollout.interruptible=true")


def test_the_asynchronous_loop_takes_weights_from_the_object_store_alone():
    nccl = "rollout.engine.weight_transfer=nccl"
    assert "set it to object_store" in mistake(None, "train.max_staleness=1", "method.importance_cap=2", nccl)


@pytest.mark.parametrize(
    ("overrides", "recomputes"),
    [
        (["method=airl_s"], False),
        (["method=airl_s", "model.dtype=bfloat16"], True),
        (["method=airl_s", "method.importance_cap=2", "train.max_staleness=1"], True),
        (["method=grpo", "model.dtype=bfloat16"], False),
        (["method=prime", "model.dtype=bfloat16"], False),
        # A given PRM compares with the policy only where its reward or its score does.
        (["method=math_shepherd", "model.dtype=bfloat16"], False),
        (["method=math_shepherd", "prm.reward=log_odds", "model.dtype=bfloat16"], True),
    ],
)
def test_log_probabilities_are_the_learners_where_the_samplers_will_not_do(
    overrides: list[str], recomputes: bool
) -> None:
    assert load_config(None, overrides).recomputes_log_probs == recomputes


def test_a_reference_ratio_needs_a_language_model() -> None:
    fields = ("prm.parameterisation=scalar_head", "prm.search_score=reference_ratio")
    assert "needs parameterisation=log_prob" in mistake(None, *fields)


def test_an_empty_list_is_one_sentence() -> None:
    said = mistake(None, "search.algorithms=[]")
    assert said == "search.algorithms must be a list of at least 1 item, but is []"


def test_densities_have_no_odds() -> None:
    fields = ("prm.parameterisation=log_prob", "prm.search_score=exp_f", "prm.search_aggregate=mean_odds")
    assert "use prod" in mistake(None, "method=repirl", *fields)


def test_repirl_takes_the_odds_of_probabilities_and_the_product_of_densities() -> None:
    def aggregate(*overrides: str) -> str:
        return load_config(None, ["method=repirl", *overrides]).prm.search_aggregate

    assert aggregate() == "mean_odds"
    assert aggregate("prm.parameterisation=log_prob") == "prod"
    assert aggregate("prm.parameterisation=log_prob", "prm.search_score=ratio") == "mean_odds"
    assert aggregate("prm.parameterisation=log_prob", "prm.search_aggregate=min") == "min"


def test_flash_attention_needs_bfloat16() -> None:
    assert "needs dtype=bfloat16" in mistake(None, "model.attention=flash_attention_2")


def test_an_attention_of_gpus_needs_a_learner_with_one() -> None:
    assert "no learner asks for one" in mistake(None, "model.attention=flex_attention")
    load_config(None, ["model.attention=flex_attention", "policy.resources.gpus=1"])
