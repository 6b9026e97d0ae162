"""The adapter to Ray: connecting, resources, deadlines. Beside this folder nothing calls Ray's core API."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private.node import Node
from ray._private.utils import detect_fate_sharing_support
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled
from ray._raylet import Config as RayletConfig  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError

from actors.cluster import kept
from airls_ray.config.schema import RayConfig, Resources
from airls_ray.errors import ProcessLost, ResourceError, RunError, UserError

_PROBE_SECONDS = 5.0
_DEATH_SECONDS = 10.0
"""Longest time until Ray knows of a death that another process has seen."""
_LOOPBACK = ("127.0.0.1", "localhost")
_OWN_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
_own_token: list[str] = []
"""The token of a cluster that this process started, while it runs."""

Refs = list[Any]
"""References to tables, one a share or a rank; the driver never holds the tokens behind them."""

ACTOR_FAILURES = (RunError, RayTaskError)
"""What `fetch` raises when a process died, hung, lost data or failed."""


@dataclass(frozen=True)
class Demand:
    """`count` actors called `name`, each asking for `resources`."""

    name: str
    resources: Resources
    count: int = 1

    def bundle(self) -> dict[str, float]:
        """What one of them asks of Ray."""
        bundle = {"CPU": self.resources.cpus, "GPU": self.resources.gpus, **self.resources.custom}
        return {key: value for key, value in bundle.items() if value > 0}


def connect(config: RayConfig) -> None:
    """Join the cluster at `config.address`, or the submitting job's, or start one on this machine.

    Raises:
        RunError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    common: dict[str, Any] = {"log_to_driver": config.worker_logs}
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        _start_own_cluster(config, common)
        return
    if address.partition(":")[0] in _LOOPBACK:
        ray_constants.ENABLE_RAY_CLUSTER = False  # else Ray asks for it at this machine's outer address
    try:
        _probe(address)
        ray.init(address=address, logging_level="warning", **common)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        if "InvalidAuthToken" in str(error):
            raise RunError(
                f"the Ray cluster at {address!r} asks for a token that this shell does not send: "
                "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where it is not the one in ~/.ray/auth_token"
            ) from error
        raise RunError(
            f"no Ray cluster answers at {address!r} ({_first_line(error)}): start one with "
            "`ray start --head`, or leave ray.address empty to start one on this machine"
        ) from error


def _start_own_cluster(config: RayConfig, common: dict[str, Any]) -> None:
    """Start Ray on this machine, on loopback, for this process alone."""
    # As Ray does on a Mac or on Windows: its own ports are on loopback, not open to the network.
    ray_constants.ENABLE_RAY_CLUSTER = False
    if not config.dashboard:  # which asks its user for the token of the file
        _keep_token_out_of_home()
    try:
        watchers = nullcontext() if config.dashboard else _without_watchers(config.worker_logs)
        with watchers, _in_another_process_group():
            ray.init(
                address="local",
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=int(config.object_store_gib * 2**30),
                logging_level="error",
                _system_config={"worker_niceness": 0},  # the actors are the work, not a background job
                **common,
            )
    except Exception as error:  # Ray has no class of its own for it
        if "timed out during startup" not in str(error):
            raise
        raise RunError(
            "Ray did not start on this machine within its 30 s, which a busy machine does not manage: "
            "try again when less runs beside it"
        ) from error


@contextmanager
def _without_watchers(worker_logs: bool) -> Iterator[None]:
    """Start no autoscaler, no dashboard and (without `worker_logs`) no log reader inside the block.

    Ray starts all of them on every head node, five seconds of processor time before the first actor, and has
    no switch for it. On a cluster of our own nobody scales and, unless asked for, nobody watches.
    """
    starters = ["start_monitor", "start_api_server", *([] if worker_logs else ["start_log_monitor"])]
    before = {name: getattr(Node, name) for name in starters}
    try:
        for name in starters:
            setattr(Node, name, lambda node, **options: None)
        yield
    finally:
        for name, starter in before.items():
            setattr(Node, name, starter)


@contextmanager
def _in_another_process_group() -> Iterator[None]:
    """Start Ray's own processes outside of this command's process group inside the block.

    Who ends a command by SIGTERM to its group (batch systems do) would else end them first, and nothing that
    the command still asks of Ray would be answered. Ctrl-C they ignore by themselves. They end with this
    process by the kernel's doing; where it cannot do that, Ray needs them in the group.
    """
    starter = services.ConsolePopen
    if detect_fate_sharing_support():
        services.ConsolePopen = partial(starter, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = starter


def _keep_token_out_of_home() -> None:
    """Give a cluster of our own a token in the environment, which its processes inherit.

    Ray would write one to ~/.ray/auth_token, and that file turns token mode on in every later `ray start`.
    """
    file = Path.home() / ".ray" / "auth_token"
    if not file.exists() and not any(name in os.environ for name in (*_OWN_TOKEN, "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray itself sets the mode
        AuthenticationTokenLoader.instance().reset_cache()
        _own_token.append(os.environ["RAY_AUTH_TOKEN"])


def _forget_own_token() -> None:
    """What was set for a cluster that has ended must not be sent to another one."""
    if _own_token and os.environ.get("RAY_AUTH_TOKEN") == _own_token.pop():
        for name in _OWN_TOKEN:
            os.environ.pop(name, None)
        RayletConfig.initialize("")  # reads the environment again
        AuthenticationTokenLoader.instance().reset_cache()


def _probe(address: str) -> None:
    """Open and close a connection to `host:port`: Ray itself tries for minutes, with a line for each try."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()


def is_connected() -> bool:
    """Whether this process has joined a cluster."""
    return bool(ray.is_initialized())


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends with all its processes."""
    kept.forget()
    if ray.is_initialized():
        ray.shutdown()
        _forget_own_token()


def require_resources(demands: Sequence[Demand], deadline_seconds: float) -> None:
    """Return when the cluster can hold all demands; until then an autoscaler is told what is missing.

    Raises:
        ResourceError: it cannot within the deadline; the message shows asked and available.
    """
    until = time.monotonic() + deadline_seconds
    told = False
    try:
        while True:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            lacking = _lacking(demands, nodes)
            if lacking is None:
                return
            if time.monotonic() >= until:
                raise ResourceError(lacking)
            if not told:
                request_resources(bundles=[d.bundle() for d in demands for _ in range(d.count)])
                told = True
            time.sleep(min(1.0, deadline_seconds))
    finally:
        if told:
            request_resources(bundles=[])  # from here on the actors themselves are the demand


def _lacking(demands: Sequence[Demand], nodes: Sequence[dict[str, float]]) -> str | None:
    """Say what can never be placed on these nodes, or return None."""
    available: Counter[str] = Counter()
    for node in nodes:
        available.update({key: value for key, value in node.items() if not key.startswith("node:")})
    asked: Counter[str] = Counter()
    for demand in demands:
        bundle = demand.bundle()
        asked.update({key: value * demand.count for key, value in bundle.items()})
        if not any(all(node.get(key, 0.0) >= value for key, value in bundle.items()) for node in nodes):
            return (
                f"no node can hold a {demand.name}: it asks for {_show(bundle)}, and the nodes have "
                f"{'; '.join(_show(node, bundle) for node in nodes)}; lower {demand.name}'s resources in the "
                "configuration or add a node"
            )
    short = [key for key, value in asked.items() if value > available[key] + 1e-9]
    if not short:
        return None
    parts = ", ".join(f"{demand.count} x {demand.name} ({_show(demand.bundle())})" for demand in demands)
    return (
        f"the cluster has too few resources: asked {_show(asked)} by {parts}; available "
        f"{_show(available, asked)}; lower the resources of the configuration or add nodes"
    )


def _show(resources: Any, like: Any = None) -> str:
    keys = like if like is not None else resources
    return ", ".join(f"{resources.get(key, 0):g} {key}" for key in sorted(keys)) or "nothing"


def fetch(refs: Any, deadline_seconds: float, what: str, until: float | None = None) -> Any:
    """`ray.get` with a deadline and with errors in words.

    Args:
        refs: a reference or several.
        deadline_seconds: longest time, counted from now.
        what: the call in words.
        until: its end in `time.monotonic()`, where it began before.

    Raises:
        ProcessLost: the deadline passed, the process died, or data went with a node.
        UserError: the actor itself raised one; it is passed on as it was.
    """
    try:
        left = deadline_seconds if until is None else max(0.0, until - time.monotonic())
        return ray.get(refs, timeout=left)
    except GetTimeoutError as error:
        raise ProcessLost(
            f"{what} did not finish within {deadline_seconds:g} s; raise its deadline_seconds"
        ) from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ObjectLostError | RayActorError):
            raise ProcessLost(f"{what}: what it reads is lost ({_first_line(cause)})") from error
        raise
    except RayActorError as error:
        raise ProcessLost(f"{what}: its process died ({_whose(error)}{_first_line(error)})") from error
    except ObjectLostError as error:
        raise ProcessLost(f"{what}: its result is lost ({_first_line(error)})") from error


def fetch_together(refs: Any, deadline_seconds: float, what: str, together: Sequence[Any]) -> Any:
    """As `fetch`, for calls that wait for each other, as the ranks of a learner do.

    Where the process of one dies, another's collective fails at once, and often sooner than Ray knows of the
    death: what is raised then is the death.

    Args:
        refs: a reference or several of `together`.
        deadline_seconds: longest time, counted from now.
        what: the call in words.
        together: references of all these calls.
    """
    try:
        return fetch(refs, deadline_seconds, what)
    except ProcessLost:
        raise
    except ACTOR_FAILURES as error:
        lost = _loss_among(together, what)
        if lost is None:
            raise
        raise lost from error


def _loss_among(refs: Sequence[Any], what: str) -> ProcessLost | None:
    """The loss of one of these calls, as soon as all have ended; None where those that have did not die."""
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_DEATH_SECONDS)
    for ref in ready:
        try:
            fetch(ref, _DEATH_SECONDS, what)
        except ProcessLost as lost:
            return lost
        except (UserError, RayTaskError):  # of a rank that lives
            continue
    return None


def resolve(values: Sequence[Any], deadline_seconds: float = 300.0) -> list[Any]:
    """Turn object references into their values and leave values as they are (inside actors)."""
    return [
        fetch(v, deadline_seconds, "reading a table") if isinstance(v, ray.ObjectRef) else v for v in values
    ]


def first_ready(refs: Sequence[Any], timeout: float | None = None) -> list[Any]:
    """The references that are ready, waiting for at least one until the timeout (seconds)."""
    ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout)
    return list(ready)


def all_ready(refs: Sequence[Any], timeout: float) -> list[Any]:
    """All references that are ready, waiting for the first of them until the timeout (seconds)."""
    if not refs or not first_ready(refs, timeout):
        return []
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
    return list(ready)


def wait_done(ref: Any, deadline_seconds: float, what: str) -> None:
    """Raise what the call behind `ref` raised, without fetching a large result twice (it is mapped)."""
    fetch(ref, deadline_seconds, what)


def put(value: Any) -> Any:
    """Put a value into the object store; the driver owns it."""
    return ray.put(value)


def node_address() -> str:
    """Address of this node, for rendezvous."""
    return str(ray.util.get_node_ip_address())


def object_store_used() -> float:
    """Bytes of the object store in use on all nodes (needs no dashboard)."""
    total = ray.cluster_resources().get("object_store_memory", 0.0)
    return float(total - ray.available_resources().get("object_store_memory", 0.0))


def sentence(error: BaseException) -> str:
    """One line that says what failed: the last of an actor's traceback, or the error's own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, RayTaskError) else 0].strip()[:300]


def _whose(error: RayActorError) -> str:
    """Class and name of the actor that died, as Ray's message has them."""
    found = dict(re.findall(r"^\s*(class_name|name): (\S+)", str(error), re.MULTILINE))
    return " ".join(found.values()) + ": " if found else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
