"""The files of clusters/: they fit Ray's schema, the pinned version, the configuration and each other."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from actors.cluster.monitoring import exported_names
from airls_ray.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS = ROOT / "clusters"
LAUNCHERS = ["aws.yaml", "gcp.yaml", "on_premise.yaml"]
MANIFESTS = ["kuberay_cluster.yaml", "kuberay_job.yaml"]
CONFIG = "cluster_airl_s_qwen2.5_7b"
GIB = 2**30


def read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTERS / name).read_text(encoding="utf-8")))


def launcher(name: str) -> dict[str, Any]:
    (document,) = read(name)
    return document


def cluster_spec(name: str) -> dict[str, Any]:
    for document in read(name):
        if document["kind"] == "RayCluster":
            return document["spec"]
        if document["kind"] == "RayJob":
            return document["spec"]["rayClusterSpec"]
    raise AssertionError(name)


def groups(name: str) -> list[dict[str, Any]]:
    spec = cluster_spec(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def containers(name: str) -> list[dict[str, Any]]:
    return [one for group in groups(name) for one in group["template"]["spec"]["containers"]]


def gib(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Gi|Ti)", quantity).groups()
    return int(number) * {"Gi": 1, "Ti": 1024}[unit]


def node_types(name: str) -> dict[str, tuple[dict[str, float], int, int]]:
    """Resources, fewest and most nodes of each kind of worker."""
    if name in LAUNCHERS:
        types = launcher(name)["available_node_types"]
        return {
            kind: (one["resources"], one["min_workers"], one["max_workers"])
            for kind, one in types.items()
            if kind != "head"
        }
    found = {}
    for group in cluster_spec(name)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        custom = json.loads(json.loads(group["rayStartParams"]["resources"]))
        resources = {"CPU": int(limits["cpu"]), "GPU": limits["nvidia.com/gpu"], **custom}
        found[group["groupName"]] = (resources, group["minReplicas"], group["maxReplicas"])
    return found


def demands(config: Config) -> dict[str, list[dict[str, float]]]:
    """What the actors of each kind of node ask for at the start of a run."""

    def bundle(resources: Any) -> dict[str, float]:
        return {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}

    policy, prm = config.policy, config.prm.learner
    return {
        "learner": [bundle(policy.resources)] * policy.ranks
        + [bundle(prm.resources)] * prm.ranks
        + [bundle(config.verifier.resources)],
        "rollout": [bundle(config.rollout.resources)] * config.rollout.min_workers,
    }


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "configs" / f"{CONFIG}.yaml")


@pytest.fixture(scope="module")
def ray_version() -> str:
    lines = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = [line for line in lines if line.startswith("ray==")]
    return pin.removeprefix("ray==")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_files_fit_rays_schema(name: str) -> None:
    (folder,) = importlib.util.find_spec("ray").submodule_search_locations
    schema = json.loads((Path(folder) / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(launcher(name), schema)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schema_of_kuberay(name: str) -> None:
    folder = os.environ.get("AIRLS_RAY_KUBERAY_CRDS")
    if not folder:
        pytest.skip("set AIRLS_RAY_KUBERAY_CRDS to a folder with KubeRay's ray.io_*.yaml")
    checked = 0
    for document in read(name):
        if document["apiVersion"] != "ray.io/v1":
            continue
        definition = Path(folder) / f"ray.io_{document['kind'].lower()}s.yaml"
        versions = yaml.load(definition.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]["versions"]
        (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
        jsonschema.Draft202012Validator(closed(schema)).validate(document)
        checked += 1
    assert checked == 1


def closed(schema: Any) -> Any:
    """A Kubernetes schema as `kubectl apply --validate=strict` applies it: unknown fields are errors."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" not in schema:
        return {
            key: closed(value) if key in ("items", "additionalProperties") else value
            for key, value in schema.items()
        }
    fields = {name: closed(one) for name, one in schema["properties"].items()}
    return {**schema, "properties": fields, "additionalProperties": False}


@pytest.mark.parametrize("name", [*LAUNCHERS, *MANIFESTS, "Dockerfile"])
def test_images_have_the_pinned_version_of_ray(name: str, ray_version: str) -> None:
    text = (CLUSTERS / name).read_text(encoding="utf-8")
    images = re.findall(r"(?:image: |FROM |build .*-t )(\S+)", text)
    assert images
    for image in images:
        assert re.search(r":(?:ray)?(\d+\.\d+\.\d+)", image)[1] == ray_version
    if name in MANIFESTS:
        assert cluster_spec(name)["rayVersion"] == ray_version


def test_the_job_makes_the_same_cluster() -> None:
    assert cluster_spec("kuberay_job.yaml") == cluster_spec("kuberay_cluster.yaml")


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", *MANIFESTS])
@pytest.mark.parametrize("kind", ["learner", "rollout"])
def test_the_actors_of_the_configuration_fit_on_the_nodes(name: str, kind: str, config: Config) -> None:
    resources, fewest, most = node_types(name)[kind]
    asked = demands(config)[kind]
    for bundle in asked:
        assert all(resources.get(key, 0) >= value for key, value in bundle.items()), bundle
    for key in {key for bundle in asked for key in bundle}:
        total = sum(bundle.get(key, 0) for bundle in asked)
        assert total <= resources.get(key, 0) * fewest, f"{key}: {total} asked at the start"
    if kind == "rollout":
        assert resources["rollout"] * most >= config.rollout.max_workers


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", *MANIFESTS])
def test_every_actor_names_the_nodes_it_belongs_to(name: str, config: Config) -> None:
    kinds = node_types(name)
    for kind, asked in demands(config).items():
        for bundle in asked:
            fitting = [other for other, (has, _, _) in kinds.items() if bundle.items() and fits(bundle, has)]
            assert fitting == [kind], bundle


def fits(bundle: dict[str, float], node: dict[str, float]) -> bool:
    return all(node.get(key, 0) >= value for key, value in bundle.items())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_ask_for_the_token_and_keep_the_dashboard_on_loopback(name: str) -> None:
    document = launcher(name)
    starts = document["head_start_ray_commands"] + document["worker_start_ray_commands"]
    for command in starts:
        assert command == "ray stop" or "RAY_AUTH_MODE=token ray start" in command
    assert "--dashboard-host=127.0.0.1" in document["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in (CLUSTERS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_ask_for_the_token_and_open_no_way_in(name: str) -> None:
    assert cluster_spec(name)["authOptions"] == {"mode": "token"}
    assert cluster_spec(name)["headGroupSpec"]["serviceType"] == "ClusterIP"
    text = (CLUSTERS / name).read_text(encoding="utf-8")
    assert not re.search(r"LoadBalancer|NodePort|hostNetwork|hostPort|privileged: true|[Ii]ngress:", text)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_container_has_probes_and_limits(name: str) -> None:
    assert len(containers(name)) == 3
    for group, container in zip(groups(name), containers(name), strict=True):
        port = int(group["rayStartParams"]["dashboard-agent-listen-port"])
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == port
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert int(resources["requests"]["cpu"]) <= int(resources["limits"]["cpu"])
    limits = cluster_spec(name)["autoscalerOptions"]["resources"]["limits"]
    assert set(limits) == {"cpu", "memory"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_object_store_fits_in_shared_memory_and_that_in_the_pod(name: str) -> None:
    for group, container in zip(groups(name), containers(name), strict=True):
        volumes = {one["name"]: one for one in group["template"]["spec"]["volumes"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        memory = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert memory["medium"] == "Memory"
        store = int(group["rayStartParams"]["object-store-memory"]) / GIB
        assert store < gib(memory["sizeLimit"]) < gib(container["resources"]["limits"]["memory"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_all_nodes_see_the_output_of_the_configuration(name: str, config: Config) -> None:
    assert config.output.is_absolute()
    for group, container in zip(groups(name), containers(name), strict=True):
        volumes = {one["name"]: one for one in group["template"]["spec"]["volumes"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        claim = volumes[mounts[f"/{config.output.parts[1]}"]]["persistentVolumeClaim"]["claimName"]
        assert claim == read("kuberay_cluster.yaml")[0]["metadata"]["name"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_only_rollout_nodes_come_and_go(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    elastic = {kind for kind, (_, fewest, most) in node_types(name).items() if fewest != most}
    assert elastic == {"rollout"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_job_resumes_the_run_of_the_configuration(config: Config) -> None:
    (document,) = read("kuberay_job.yaml")
    entrypoint = document["spec"]["entrypoint"]
    assert f"{config.output}/{config.name}/config.yaml" in entrypoint
    assert f"/opt/airls-ray/configs/{CONFIG}.yaml $resume" in entrypoint
    assert "WORKDIR /opt/airls-ray" in (CLUSTERS / "Dockerfile").read_text(encoding="utf-8")


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    return json.loads((CLUSTERS / "monitoring" / "grafana_dashboard.json").read_text(encoding="utf-8"))


def known_to(package: str, file: str, pattern: str) -> set[str]:
    """Metric names in the source of an installed library, read without importing it."""
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    return set(re.findall(pattern, (Path(folder) / file).read_text(encoding="utf-8")))


def test_every_metric_of_the_dashboard_exists(board: dict[str, Any]) -> None:
    expressions = [target["expr"] for panel in panels(board) for target in panel.get("targets", ())]
    used = {name for expression in expressions for name in re.findall(r"\bray_\w+", expression)}
    own = {name for name in used if name.startswith("ray_airls_ray_")}
    assert own
    assert own <= exported_names()
    vllm = known_to("vllm", "v1/metrics/loggers.py", r'name="vllm:(\w+)"')
    engine = {name for name in used if name.startswith("ray_vllm_")}
    assert {re.sub(r"^ray_vllm_|_total$|_bucket$", "", name) for name in engine} <= vllm
    modules = "dashboard/modules"
    rays = known_to("ray", f"{modules}/metrics/dashboards/default_dashboard_panels.py", r"\bray_\w+")
    gauges = known_to("ray", f"{modules}/reporter/reporter_agent.py", r'Gauge\(\s*"(\w+)"')
    assert used - own - engine <= rays | {f"ray_{name}" for name in gauges}


def test_the_dashboard_is_sound(board: dict[str, Any]) -> None:
    found = list(panels(board))
    numbers = [panel["id"] for panel in found]
    assert len(set(numbers)) == len(numbers)
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"run", "session"} < set(variables)
    for panel in found:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
    assert len([panel for panel in found if panel["type"] == "row"]) >= 6


def test_panels_of_the_dashboard_do_not_overlap(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(board):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_every_expression_selects_a_run_or_a_session(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel.get("targets", ()):
            for selector in re.findall(r"\bray_\w+(\{[^}]*\})?", target["expr"]):
                assert 'run="$run"' in selector or 'SessionName="$session"' in selector, target["expr"]


def test_prometheus_reads_rays_list_of_nodes() -> None:
    (job,) = launcher("monitoring/prometheus.yml")["scrape_configs"]
    (source,) = job["file_sd_configs"]
    assert source["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    assert known_to("ray", "_private/ray_constants.py", r"prom_metrics_service_discovery\.json")


def test_pods_have_the_port_that_the_pod_monitor_asks_for() -> None:
    (endpoint,) = launcher("monitoring/pod_monitor.yaml")["spec"]["podMetricsEndpoints"]
    for container in containers("kuberay_cluster.yaml"):
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
