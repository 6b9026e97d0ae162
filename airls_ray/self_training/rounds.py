"""What a round of self-training is made of: its configurations, its files, and what is checked before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.schema import (
    ArithmeticTaskConfig,
    Config,
    CountdownTaskConfig,
    FileTaskConfig,
)
from airls_ray.errors import ConfigError
from airls_ray.prm.forms import check_search_models, check_search_score
from airls_ray.prm.spoiled import refuse_spoiled
from airls_ray.prm.supervised import check_form
from airls_ray.search.registry import make_searcher


@dataclass(frozen=True)
class RoundFiles:
    """Where a round leaves what it makes; of every stage the file that says that it is finished."""

    folder: Path

    @classmethod
    def of(cls, output: Path, number: int) -> RoundFiles:
        """Those of a round, from 1."""
        return cls(output / f"round_{number}")

    def trial(self, temperature: float) -> Path:
        """Folder of the search by which a temperature is judged."""
        return self.folder / "balance" / f"temperature_{temperature:g}"

    @property
    def search(self) -> Path:
        """Folder of the search."""
        return self.folder / "search"

    @property
    def kept(self) -> Path:
        """Figures of the traces, written after these."""
        return self.folder / "kept.json"

    @property
    def traces(self) -> Path:
        """Problems with the traces that were kept."""
        return self.folder / "traces.jsonl"

    @property
    def policy(self) -> Path:
        """Folder of the new policy."""
        return self.folder / "policy"

    @property
    def values(self) -> Path:
        """Labels that the search's tree gave."""
        return self.folder / "values.parquet"

    @property
    def train_prm(self) -> Path:
        """Folder of the PRM's training, with the PRM in `prm`."""
        return self.folder / "train_prm"

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation of the new policy."""
        return self.folder / "evaluation"


def check_settings(config: Config, policy: str, prm: Path | None) -> None:
    """Refuse what a round could not do, before anything is spent.

    Raises:
        ConfigError: there are several searches or none, no PRM, a task whose traces cannot come from a file,
            or a PRM that could not learn.
        ModelError: the policy or the PRM is missing or broken.
    """
    search, section = config.search, config.self_train
    if len(search.algorithms) != 1 or len(search.budgets) != 1:
        raise ConfigError(
            f"self-train searches by one algorithm and one width, but search.algorithms has "
            f"{len(search.algorithms)} and search.budgets {len(search.budgets)}: set one of each"
        )
    if not isinstance(config.task, ArithmeticTaskConfig | CountdownTaskConfig | FileTaskConfig):
        raise ConfigError(
            f"self-train writes traces to a file to learn from, which task.name={config.task.name} does not "
            "read: take file, arithmetic or countdown"
        )
    make_searcher(search.algorithms[0], search, search.budgets[0], "prod")
    check_search_models(config, policy, prm)
    if section.prm == "none":
        return
    if search.scorer.needs != "prm":
        raise ConfigError(
            f"search.scorer={search.scorer.shown} reads no PRM, so none need learn: set self_train.prm=none, "
            "or search.scorer=prm"
        )
    if section.prm == "values":
        refuse_spoiled(config, "the search (self_train.prm=values)")
    check_form(config.prm, logprobs=section.prm == "completions" and not config.supervised_prm.spoiled)
    for temperature in section.balance.temperatures or [search.temperature]:
        check_search_score(searching(config, temperature), "of later rounds")


def searching(config: Config, temperature: float) -> Config:
    """The configuration of a search on training problems."""
    return config.model_copy(update={"search": config.search.model_copy(update={"temperature": temperature})})


def learning(config: Config, policy: str, traces: Path, test_file: Path) -> Config:
    """The configuration of a warm start of `policy` on kept traces: all updates, whatever the accuracy.

    Args:
        config: that of all rounds.
        policy: folder or hub name to start from.
        traces: problems in our own fields.
        test_file: the test problems in our own fields, which go with them where a file has other ones.
    """
    changes: dict[str, Any] = {"train_file": traces}
    if isinstance(config.task, FileTaskConfig):
        changes |= {"test_file": test_file, "format": None, "fields": FieldsConfig()}
    return config.model_copy(
        update={
            "task": config.task.model_copy(update=changes),
            "model": config.model.model_copy(update={"path": policy}),
            "sft": config.sft.model_copy(update={"target_accuracy": 1.0}),
        }
    )


def compared_settings(config: Config) -> dict[str, Any]:
    """What the stages depend on: a self-training that goes on must have the same; more rounds may follow."""
    names = {"seed", "task", "model", "sft", "rollout", "prm", "supervised_prm", "search", "self_train"}
    tree = config.model_dump(mode="json", include=names)
    del tree["self_train"]["rounds"]
    for section in (tree["rollout"], tree["search"], tree["sft"]["learner"], tree["prm"]["learner"]):
        section.pop("resources")
    return tree
