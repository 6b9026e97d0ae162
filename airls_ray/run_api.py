"""The door for Python to whole runs: `train`, `search_task` and what they share (docs/python.md).

They need the extras `cpu` or `gpu`, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airls_ray.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from airls_ray.config.schema import Config


def train(
    config: str | Path | Mapping[str, Any] | Config,
    *,
    resume: bool = False,
    trust: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Train policy and PRM as `airls-ray train` does; returns the summary that is also in the run folder.

        airls_ray.train("configs/demo_arithmetic.yaml", method="grpo", train={"iterations": 5})

    Args:
        config: a YAML file, a run folder, sections as a dictionary, or a configuration that is loaded.
        resume: go on from the run's last checkpoint.
        trust: open files, modules and URLs that a run folder names, such as rewards, searches or trackers.
        overrides: sections, of which what is given replaces that of `config`, or whole paths:
            `**{"train.iterations": 5}`.

    Raises:
        UserError: with one sentence; the run folder keeps what was written.
        Interrupted: by Ctrl-C or SIGTERM; the sentence says how to go on.
    """
    settings = read_settings(config, overrides, trust=trust)
    with_actors("train")
    from actors.train.launch import run_training

    return run_training(settings, resume, again="with resume=True")


@contextmanager
def one_cluster(config: str | Path | Mapping[str, Any] | Config = MappingProxyType({})) -> Iterator[None]:
    """Let the runs of a block share a Ray cluster and the processes that each would import anew.

        with airls_ray.one_cluster():
            for rate in (1e-4, 2e-4):
                airls_ray.train(FILE, name=f"rate_{rate}", policy={"learning_rate": rate})

    On one machine without GPUs a later run begins to sample after two seconds instead of thirty. Where actors
    ask for GPUs, or the cluster has several nodes, only the cluster is shared.

    Args:
        config: where the cluster is (section `ray`), as for `train`; by default one of this machine's own.

    Raises:
        UserError: with one sentence.
    """
    settings = read_settings(config, {})
    with_actors("one_cluster")
    from actors.train.start import connected

    with connected(settings, keep=True):
        yield


def search_task(
    config: str | Path | Mapping[str, Any] | Config,
    *,
    policy_path: Path | str | None = None,
    prm_path: Path | str | None = None,
    results: Path | str | None = None,
    resume: bool = False,
    trust: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Search a task's test problems as `airls-ray search` does; returns the summary.

        airls_ray.search_task("runs/demo", search={"algorithms": ["beam"], "budgets": [16]})

    (The name `airls_ray.search` is that of a package.)

    Args:
        config: a YAML file, a run folder, sections as a dictionary, or a configuration that is loaded.
        policy_path: policy folder; None: that of the run's latest checkpoint.
        prm_path: PRM folder; None: the latest one, or none beside `policy_path`.
        results: folder of records, summary and curves; None: `search/` in the run folder.
        resume: go on with the records that are there.
        trust: as for `train`.
        overrides: as for `train`.

    Raises:
        UserError: with one sentence.
    """
    from airls_ray.prm.forms import check_search_models
    from airls_ray.runs.run_folder import latest_models

    settings = read_settings(config, overrides, trust=trust)
    run = settings.output / settings.name
    prm = None if prm_path is None else Path(prm_path)
    policy = None if policy_path is None else Path(policy_path)
    if policy is None:
        policy, prm = latest_models(run, prm)
    check_search_models(settings, policy, prm)
    with_actors("search_task")
    from actors.search.search import run_search

    return run_search(settings, policy, prm, run / "search" if results is None else Path(results), resume)


def read_settings(
    config: str | Path | Mapping[str, Any] | Config, overrides: Mapping[str, Any], *, trust: bool = False
) -> Config:
    """Return the configuration that `train` and `search_task` mean.

    >>> read_settings({"task": "countdown"}, {"train.iterations": 5, "method": "grpo"}).train.iterations
    5

    Raises:
        ConfigError: a file is missing or broken, a setting is unknown or wrong, or there are overrides of a
            configuration that is loaded.
    """
    from airls_ray.config.load import load_config, load_run_config
    from airls_ray.config.schema import Config

    if isinstance(config, Config):
        if overrides:
            raise ConfigError(
                f"a configuration that is loaded takes no settings ({', '.join(overrides)}): give them with "
                "the file, or to load_config"
            )
        return config
    if isinstance(config, Mapping):
        return load_config(config, overrides)
    if Path(config).is_dir():
        return load_run_config(Path(config), overrides, trust=trust)
    return load_config(Path(config), overrides)


def with_actors(what: str) -> None:
    """Raise a sentence where Ray is not installed, in place of an ImportError from deep below.

    Raises:
        ModelError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise ModelError(f"{what} needs Ray, which is not installed: pip install 'airls-ray[train]'")
