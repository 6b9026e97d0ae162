"""Read YAML files with `base:` and `a.b=c` overrides into a `Config`; every mistake is one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from airls_ray.config.base import StrictModel
from airls_ray.config.explain import explain
from airls_ray.config.named import name_beside, refuse_names, with_names, without_names
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import MixtureTaskConfig, TaskConfig, task_of
from airls_ray.config.task_sections import RewardedTaskConfig
from airls_ray.data.sources import is_hub
from airls_ray.errors import ConfigError
from airls_ray.text.characters import half_character

Tree = dict[str, Any]
Named = TypeVar("Named", bound=RewardedTaskConfig)

EVERY_TASK = ("reward", "test_problems")
"""Settings that all tasks have."""
NAMED_SECTIONS = ("task", "method")
"""Sections whose `name` decides what else they hold: `method: grpo` or `method=grpo` is a whole new one."""


class _Whole(Tree):
    """A section that replaces the one below it instead of being merged into it."""


_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""A number with an exponent by YAML 1.2; PyYAML's own, of YAML 1.1, wants a point and a sign."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that occurs twice is an error, and `1e-6` a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """What `_Loader` reads: a text that looks like a number is quoted."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _load_yaml(text: str) -> Any:
    """Return what YAML text says; whatever its values do wrong is a `yaml.YAMLError`."""
    try:
        value = yaml.load(text, _Loader)
        half = half_character(value)  # walks through all of it
    except (ValueError, AttributeError) as error:  # `!!int x`, 2024-13-45: PyYAML's own classes let them pass
        raise yaml.YAMLError(f"a value is none of its type ({error})") from error
    except RecursionError as error:
        raise yaml.YAMLError("a value is nested too deeply, or contains itself") from error
    if half is not None:
        raise yaml.YAMLError(f"a text has {half}, which is no character")
    return value


Overrides = Sequence[str] | Mapping[str, Any]
"""Settings on top of others: `["a.b=c"]`, or sections and whole paths with their values."""


def load_config(source: Path | Mapping[str, Any] | None, overrides: Overrides = ()) -> Config:
    """Return the configuration of `source` with `overrides` on top.

    A file may name another one as `base: other.yaml`, relative to itself, and then holds only what
    differs. Overrides are `a.b=c`, the value in YAML, or a mapping (see `sections_of`).

    Args:
        source: a YAML file; or the sections that it would hold; None: the defaults.
        overrides: what counts more.

    Raises:
        ConfigError: the file is missing or broken, or a key, type, range or combination is wrong.
    """
    path = None if source is None or isinstance(source, Mapping) else Path(source)
    given = source if isinstance(source, Mapping) else {}
    tree = sections_of(given) if path is None else _read_layers(path, ())
    changes = sections_of(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    merged = merge(tree, changes)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, merged, changes, path)) from None


def load_task(section: Mapping[str, Any]) -> TaskConfig:
    """Return a task's section alone, whatever the rest of a configuration would say of it.

    Raises:
        ConfigError: a key, type or range is wrong.
    """
    given = {"task": dict(section)}
    try:
        return task_of(given["task"])
    except ValidationError as error:
        raise ConfigError(explain(error, given, {}, None)) from None


def load_run_config(folder: Path, overrides: Overrides = (), *, trust: bool | None = None) -> Config:
    """Return the configuration of a run folder. Name and output are those of the folder where it stands now,
    whatever they were when it was made, unless `overrides` give others.

    `trust`: whether code may be opened that the folder names as a file, a module or a URL; None: the caller
    opens none, and such names are left out.

    Raises:
        ConfigError: as of `load_config`; or the folder names code of its own, which is not trusted.
    """
    given = sections_of(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    # A folder may be called what no configuration would call it.
    config = load_config(folder / "config.yaml", merge({"name": "run"}, given))
    place = folder.resolve()
    now: Tree = {"name": place.name, "output": place.parent}
    now = {key: value for key, value in now.items() if key not in given}
    if trust is None:
        config = without_names(config, given)
    elif not trust:
        refuse_names(config, given, str(folder / "config.yaml"))
    return config.model_copy(update=now)


def with_absolute_paths(config: Config) -> Config:
    """Return `config` with paths that name the same from every folder; names of a hub stay."""

    def here(path: str | None) -> str | None:
        return str(Path(path).absolute()) if path is not None and Path(path).exists() else path

    config = with_names(config, lambda name: name_beside(name, Path.cwd()))
    sections = {
        "task": _absolute_files(config.task),
        "search": config.search.model_copy(
            update={
                "algorithms": [name_beside(name, Path.cwd()) for name in config.search.algorithms],
                "instance_adaptive": _with_whole_path(config.search.instance_adaptive, "calibration"),
                "auto": _with_whole_path(config.search.auto, "plan"),
            }
        ),
        "model": config.model.model_copy(update={"path": here(config.model.path)}),
        "prm": config.prm.model_copy(update={"path": here(config.prm.path)}),
        "reference": config.reference.model_copy(update={"path": here(config.reference.path)}),
    }
    return config.model_copy(update=sections)


def _with_whole_path(section: StrictModel, field: str) -> StrictModel:
    """Return the section with the whole path of its file, if it names one."""
    path: Path | None = getattr(section, field)
    return section if path is None else section.model_copy(update={field: path.absolute()})


def _absolute_files(task: Named) -> Named:
    """Return a task's section, or a mixture's, with whole paths of its files."""

    def whole(source: Path) -> Path:
        return source if is_hub(source) else source.absolute()

    changes: Tree = {
        name: whole(getattr(task, name))
        for name in ("train_file", "test_file")
        if getattr(task, name, None) is not None
    }
    if held := getattr(task, "hold_out_files", None):
        changes["hold_out_files"] = [whole(path) for path in held]
    if isinstance(task, MixtureTaskConfig):
        parts = [one.model_copy(update={"task": _absolute_files(one.task)}) for one in task.parts]
        changes["parts"] = parts
    return task.model_copy(update=changes)


def dump_config(config: Config, path: Path | None = None) -> str:
    """Return `config` as YAML, every field present, so that `load_config` gives it back; with `path` the
    text is written there too."""
    tree = config.model_dump(mode="json")
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def parse_overrides(overrides: Sequence[str]) -> Tree:
    """Return `["a.b=c"]` as nested dictionaries; later ones win, values are parsed as YAML.

    Raises:
        ConfigError: one has no `=`, an empty key or a value that is not YAML.
    """
    tree: Tree = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names) or half_character(key):
            raise ConfigError(f"an override must look like section.key=value, but is {text!r}")
        try:
            parsed = _load_yaml(value)
        except yaml.YAMLError as error:
            problem = " ".join((getattr(error, "problem", None) or str(error)).split())
            raise ConfigError(f"the value of the override {text!r} is not YAML: {problem}") from None
        for name in reversed(names):
            parsed = {name: parsed}
        tree = merge(tree, _normalise(parsed))
    return tree


def sections_of(settings: Mapping[str, Any]) -> Tree:
    """Return settings as nested dictionaries: `{"train": {"iterations": 5}, "train.seed": 1}` holds sections
    and whole paths, the later ones on top.

    Raises:
        ConfigError: a path has an empty name, or a text is no text.
    """
    tree: Tree = {}
    for key, value in settings.items():
        names = str(key).split(".")
        half = half_character([key, value])
        if half is not None or not all(names):
            raise ConfigError(
                f"a setting must have a name like section.key and whole characters, not {key!r}"
            )
        nested = dict(value) if isinstance(value, Mapping) and not isinstance(value, _Whole) else value
        for name in reversed(names):
            nested = {name: nested}
        tree = merge(tree, _normalise(nested))
    return tree


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Return `below` with `above` on top: sections are merged, everything else is replaced."""
    result = _Whole(below) if isinstance(below, _Whole) else dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not isinstance(value, _Whole):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _normalise(tree: Tree) -> Tree:
    """Return `tree` with `method: grpo` written out as a whole section."""
    result = dict(tree)
    for key in NAMED_SECTIONS:
        if isinstance(result.get(key), str):
            result[key] = _Whole(name=result[key])
    return result


def _read_layers(path: Path, above: tuple[Path, ...]) -> Tree:
    """Return the file with its chain of bases below it; `above` are the files that led here."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: `base` leads back to this file")
    tree = _read_yaml(path, above)
    base = tree.pop("base", None)
    # A section whose lines are all commented out reads as null.
    tree = _normalise({key: value for key, value in tree.items() if value is not None})
    tree = _doors_beside(tree, path.parent)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of a YAML file, but is {base!r}")
    below = _read_layers(path.parent / base, (*above, path.resolve()))
    theirs, own = below.get("task", {}), tree.get("task", {})
    sections = isinstance(theirs, Mapping) and isinstance(own, Mapping)
    if sections and own.get("name", "arithmetic") != theirs.get("name", "arithmetic") and "name" in own:
        # The other fields belong to the other task.
        below["task"] = {name: theirs[name] for name in EVERY_TASK if name in theirs}
    return merge(below, tree)


def _doors_beside(value: Any, folder: Path) -> Any:
    """Return `value` with the whole path in every text `file.py:NAME`, wherever it stands."""
    if isinstance(value, str):
        return name_beside(value, folder)
    if isinstance(value, dict):
        return type(value)({key: _doors_beside(one, folder) for key, one in value.items()})
    return [_doors_beside(one, folder) for one in value] if isinstance(value, list) else value


def _read_yaml(path: Path, above: tuple[Path, ...]) -> Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        asked = f" (the `base` of {above[-1].name})" if above else ""
        known = {one.name: str(one) for one in sorted(Path("configs").glob("*.yaml"))}
        near = difflib.get_close_matches(path.name, known, n=1)
        there = f"; did you mean {known[near[0]]}?" if near else ""
        raise ConfigError(f"the configuration file {path}{asked} does not exist{there}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the configuration file {path} cannot be read: {reason}") from None
    try:
        tree = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(f"{path} is not valid YAML at {place}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        raise ConfigError(f"{path} is empty: it must hold keys and values, such as seed: 1")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, but holds a {type(tree).__name__}")
    return tree
