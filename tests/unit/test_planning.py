from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    Qwen2Config,
    Qwen3Config,
)

from airls_ray.config import Config, load_config
from airls_ray.errors import ModelError
from airls_ray.planning import Plan, make_plan
from airls_ray.planning.memory import (
    GIB,
)
from airls_ray.planning.placement import ActorDemand, place
from airls_ray.planning.shapes import PUBLISHED, ModelShape, parse_shape, policy_shape
from tests.unit.model_shapes import ARCHITECTURES, SMALL, numel, shape_of


# -------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "more"), ARCHITECTURES)
def test_the_parameter_count_is_that_of_the_real_model(kind, more, tied):
    config = kind(**SMALL, **more, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config).parameters == numel(model)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_parameter_count_of_a_scalar_head_is_that_of_the_real_token_classifier(labels):
    config = Qwen3Config(**SMALL, head_dim=8, num_labels=labels)
    with torch.device("meta"):
        model = AutoModelForTokenClassification.from_config(config)
    assert shape_of(config).head_parameters(labels) == numel(model)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # the model cards' totals
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-3B-Instruct", 3_085_938_688),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
    ],
)
def test_the_published_shapes_give_the_published_parameter_counts(name, parameters):
    assert PUBLISHED[name].parameters == parameters


def test_a_new_model_is_counted_as_it_will_be_made(tmp_path):
    from airls_ray.models.create import qwen3_config
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec, build_tokenizer

    config = load_config(None, ["model.layers=2", "model.tie_embeddings=true"])
    task = make_task(config.task)
    build_tokenizer(task, tmp_path)
    with torch.device("meta"):
        codec = TextCodec.from_folder(tmp_path, task)
        model = AutoModelForCausalLM.from_config(qwen3_config(config.model, codec))
    shape = policy_shape(config)
    assert isinstance(shape, ModelShape)
    assert shape.parameters == numel(model)


def test_a_config_file_without_a_size_is_named():
    with pytest.raises(ModelError, match=r"x/config.json has no hidden_size"):
        parse_shape({"model_type": "llama"}, "x/config.json")


def test_a_hub_name_that_is_not_known_has_a_reason_in_place_of_a_shape(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = make_plan(load_config(None, ["model.path=someone/model"]))
    assert plan.shape is None
    assert plan.unknown == "the sizes of someone/model are not known before it is downloaded"
    assert not plan.memory


def test_a_hub_name_in_the_local_cache_is_read_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--someone--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    config = Qwen2Config(**SMALL)
    config.save_pretrained(folder)
    assert make_plan(load_config(None, ["model.path=someone/model"])).shape == shape_of(config)


# ----------------------------------------------------------------------------------- placement
def test_actors_go_on_the_first_node_with_room_and_the_largest_first():
    demands = [ActorDemand("small", 3, 1, 1), ActorDemand("large", 2, 2, 4), ActorDemand("none", 1, 0.5, 0)]
    placement = place(demands, gpus_per_node=6)
    assert [dict(node.actors) for node in placement.nodes] == [
        {"large": 1, "small": 2, "none": 1},
        {"large": 1, "small": 1},
    ]
    assert [node.cpus for node in placement.nodes] == [4.5, 3]


def test_shares_of_a_gpu_go_together_and_whole_ones_do_not():
    placement = place([ActorDemand("half", 3, 0, 0.5), ActorDemand("whole", 1, 0, 1)], gpus_per_node=3)
    assert placement.nodes[0].gpus == [["whole"], ["half", "half"], ["half"]]


def test_actors_of_different_custom_resources_stand_on_different_nodes():
    demands = [
        ActorDemand("plain", 1, 1, 1),
        ActorDemand("rank", 2, 1, 1, {"learner": 1}),
        ActorDemand("rollout worker", 1, 1, 1, {"rollout": 1}),
        ActorDemand("grader", 1, 1, 0, {"verifier": 1}),
        ActorDemand("none of it", 1, 1, 0, {"verifier": 0}),
    ]
    nodes = place(demands, gpus_per_node=8).nodes
    assert [(set(node.custom), dict(node.actors)) for node in nodes] == [
        ({"learner"}, {"plain": 1, "rank": 2, "none of it": 1}),
        ({"rollout"}, {"rollout worker": 1}),
        ({"verifier"}, {"grader": 1}),
    ]


def test_an_actor_that_never_fits_is_a_sentence():
    placement = place([ActorDemand("rollout worker", 1, 1, 16), ActorDemand("rank", 1, 1, 1)], 8)
    assert placement.never == (
        "a rollout worker can never be placed: it needs 16 GPUs of one node, and a node has 8",
    )
    assert dict(placement.nodes[0].actors) == {"rank": 1}


def test_a_share_above_one_gpu_is_refused_as_ray_does():
    assert "Ray gives whole GPUs above 1" in place([ActorDemand("rank", 1, 1, 1.5)], 8).never[0]


# ---------------------------------------------------------------------------------------- plan
def plan_of(*overrides: str) -> Plan:
    return make_plan(load_config(None, ["model.path=Qwen/Qwen2.5-3B-Instruct", *overrides]))


def test_the_actors_are_those_that_training_starts():
    from actors.train.start import demands

    for overrides in ([], ["method=grpo"], ["method=prime"], ["method=pure", "prm.learner.ranks=2"]):
        config = load_config(None, [*overrides, "rollout.min_workers=2", "rollout.max_workers=2"])
        asked = {one.name: (one.count, one.resources.cpus) for one in demands(config)}
        assert {one.name: (one.count, one.cpus) for one in make_plan(config).demands} == asked


def test_an_engine_over_several_gpus_stands_on_one_node():
    plan = plan_of("rollout.engine.tensor_parallel=4", "rollout.resources.gpus=4", "policy.resources.gpus=1")
    workers = [gpu for gpu in plan.placement.nodes[0].gpus if gpu == ["rollout worker"]]
    assert len(workers) == 4


def test_the_sizes_of_an_iteration():
    sizes = plan_of(
        "train.problems_per_iteration=8", "train.rollouts_per_problem=4", "model.context_tokens=100",
        "method.updates_per_iteration=2", "train.iterations=10", "policy.ranks=2",
        "policy.tokens_per_microbatch=300", "prm.replay_iterations=1", "prm.warmup_iterations=5",
    ).sizes  # fmt: skip
    assert sizes["most tokens per iteration (with prompts)"] == 3200
    assert sizes["most tokens per policy update"] == 1600
    assert sizes["policy micro-batches per update and rank"] == 3
    assert sizes["policy updates in all"] == 20
    assert sizes["PRM sequences per iteration (at most)"] == 80  # (32 rollouts + 8 traces), as many old
    assert sizes["PRM updates in all"] == 30


def test_bytes_of_a_sync_and_of_a_checkpoint():
    sizes = plan_of("model.dtype=bfloat16", "prm.parameterisation=scalar_head").sizes
    policy, prm = 3_085_938_688, 3_085_938_688 + 2049  # the head has 2,048 weights and a bias
    assert sizes["GiB per weight sync"] == 2 * policy / GIB
    assert sizes["GiB per checkpoint"] == pytest.approx(14 * (policy + prm) / GIB)


def test_a_method_without_a_prm_plans_none():
    plan = plan_of("method=grpo")
    assert set(plan.memory) == {"policy learner"}
    assert not any("PRM" in name and "sequences" in name for name in plan.sizes)


def test_a_frozen_prm_is_one_server_without_an_optimiser():
    plan = plan_of("method=pure", "prm.learner.ranks=3")
    assert [one.count for one in plan.demands if one.name == "PRM"] == [1]
    assert plan.memory["PRM"].optimizer == 0


# ------------------------------------------------------------------------------------ warnings
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=pure"], "method pure needs a trained PRM: set prm.path"),
        (["policy.resources.gpus=1", "model.dtype=float32"], "the GPU of policy learner needs about"),
        (["rollout.engine.tensor_parallel=2", "rollout.resources.gpus=1"], "rollout.resources.gpus is 1"),
        (["rollout.engine.tensor_parallel=3", "rollout.resources.gpus=3"], "must divide the model's 16"),
        (["rollout.engine.weight_transfer=nccl"], "needs GPUs for rollout workers and policy learner"),
        (["model.dtype=bfloat16", "train.sync_tolerance=1e-4"], "train.sync_tolerance is 0.0001 nats"),
        (["model.dtype=bfloat16"], "set method.importance_cap (2 is usual)"),
        (["method=pure", "prm.reward=probability"], "set prm.reward=signed_probability"),
        (["ray.object_store_gib=5"], "a weight sync puts 11.5 GiB into the object store"),
        (["policy.resources.gpus=2"], "a rank of a learner uses one GPU"),
        (["policy.lora.rank=2", "policy.lora.target_modules=[wq]"], "policy.lora.target_modules names wq"),
        (["rollout.resources.gpus=1", "model.context_tokens=40000"], "the policy takes 32768 tokens"),
        (["rollout.engine.kv_cache_gib=0.001"], "no room for one sequence"),
        (["rollout.resources.gpus=16"], "it needs 16 GPUs of one node"),
        (["rollout.resources.gpus=0.9", "policy.resources.gpus=0.1"], "give each a GPU of its own"),
    ],
)
def test_what_a_run_would_stumble_over_is_said(overrides, words):
    assert words in " | ".join(plan_of(*overrides).warnings)


def test_a_checkpoint_with_lora_has_states_of_the_adapters_alone():
    def gib(*overrides: str) -> float:
        return plan_of("method=grpo", *overrides).sizes["GiB per checkpoint"]

    adapters = 36 * 4 * (2048 + 2048)  # layers, rank, inputs and outputs of the queries' projection
    lora = ["policy.lora.rank=4", "policy.lora.target_modules=[q_proj]"]
    assert gib() * GIB == pytest.approx(3_085_938_688 * (4 + 12))
    assert gib(*lora) * GIB == pytest.approx(3_085_938_688 * 4 + adapters * (4 + 12))


def test_a_run_without_a_policy_to_start_from_is_told(tmp_path):
    config = load_config(None, [f"output={tmp_path}"])
    assert any("run `airls-ray sft` first" in one for one in make_plan(config).warnings)
    (tmp_path / "run" / "sft").mkdir(parents=True)
    assert not make_plan(config).warnings


def test_planning_imports_neither_torch_nor_ray():
    code = (
        "import sys; from airls_ray.config import Config; from airls_ray.planning import make_plan; "
        "make_plan(Config()); print(sorted({'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_model_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        make_plan(Config.model_validate({"model": {"path": str(tmp_path)}}))
