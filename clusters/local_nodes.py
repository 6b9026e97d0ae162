"""Several Ray nodes on one machine, to try a cluster out: nodes join and leave while a run goes on.

    python clusters/local_nodes.py --nodes 2

starts a head, a learner node and two rollout nodes, all on loopback, prints the command of a run that uses
them, and then takes commands from standard input: `add` and `remove` a rollout node, `kill` one without
warning, `list`, `quit`. Leaving (also by Ctrl-C, SIGTERM or the end of the input) ends all its processes and
no others. A node here is a set of processes with Ray resources of its own; the machine's cores and memory are
shared by all of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

HOST = "127.0.0.1"
HELP = "commands: add, remove, kill, list, quit"


class LocalNodes:
    """A head, a learner node and rollout nodes, which come and go."""

    def __init__(self, port: int, dashboard_port: int, store_mib: int) -> None:
        """Start head and learner node; `store_mib`: object store of each node."""
        from ray.cluster_utils import Cluster

        # All nodes share /dev/shm, and a node on loopback is reached from this machine alone.
        self._common = {
            "node_ip_address": HOST,
            "object_store_memory": store_mib * 2**20,
            "dashboard_agent_listen_port": None,  # a free one: other clusters may be on this machine
        }
        head = {
            "num_cpus": 0,
            "gcs_server_port": port,
            "include_dashboard": True,
            "dashboard_host": HOST,
            "dashboard_port": dashboard_port,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._common, **head})
        self._rollout: list[Any] = []
        self._number = 0
        self._names: dict[Any, str] = {}
        resources = {"learner": 8, "verifier": 1}
        cores = os.cpu_count() or 1
        self._cluster.add_node(
            num_cpus=cores, resources=resources, labels={"role": "learner"}, **self._common
        )

    @property
    def address(self) -> str:
        """`ray.address` of a run that uses these nodes."""
        return str(self._cluster.address)

    def add(self) -> str:
        """Start a rollout node; returns its name."""
        node = self._cluster.add_node(
            num_cpus=1, resources={"rollout": 1}, labels={"role": "rollout"}, **self._common
        )
        _interrupt_on_sigterm()
        self._number += 1
        self._names[node] = f"rollout node {self._number}"
        self._rollout.append(node)
        return self._names[node]

    def remove(self, graceful: bool) -> str | None:
        """End the youngest rollout node, or return None where there is none.

        `graceful`: its processes are asked to end; otherwise they are killed, as when a machine is lost.
        """
        if not self._rollout:
            return None
        node = self._rollout.pop()
        self._cluster.remove_node(node, allow_graceful=graceful)
        return self._names[node]

    def names(self) -> list[str]:
        """The nodes that are up."""
        return ["head", "learner node", *(self._names[node] for node in self._rollout)]

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def obey(nodes: LocalNodes, lines: Iterable[str]) -> None:
    """Do what the lines say until `quit` or the last one."""
    for line in lines:
        command = line.strip()
        if command == "quit":
            return
        if command == "add":
            print(f"{nodes.add()} has joined", flush=True)
        elif command in ("remove", "kill"):
            name = nodes.remove(graceful=command == "remove")
            print(f"{name} has left" if name else "there is no rollout node to end", flush=True)
        elif command == "list":
            print(", ".join(nodes.names()), flush=True)
        elif command:
            print(f"unknown command {command!r}; {HELP}", flush=True)


def main(
    nodes: Annotated[int, typer.Option(min=0, help="Rollout nodes at the start.")] = 2,
    port: Annotated[int, typer.Option(help="Port of the head (ray.address=127.0.0.1:PORT).")] = 6399,
    dashboard_port: Annotated[int, typer.Option(help="Port of the dashboard and of `ray job`.")] = 8299,
    store_mib: Annotated[int, typer.Option(min=80, help="Object store of each node, MiB.")] = 256,
) -> None:
    """Bring up Ray nodes on this machine, then add and remove rollout nodes on request."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Else whoever joins by 127.0.0.1 (a node's own job agent, above all) is sent to this machine's outer
    # address, where nothing listens, and `ray job submit` waits for ever.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # the actors are the work here, not a background job
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled

    token = Path.home() / ".ray" / "auth_token"
    was_there = token.exists()
    ensure_token_if_auth_enabled(create_token_if_missing=True)
    cluster = LocalNodes(port, dashboard_port, store_mib)
    _interrupt_on_sigterm()
    try:
        for _ in range(nodes):
            cluster.add()
        print(
            f"{', '.join(cluster.names())} are up; dashboard http://{HOST}:{dashboard_port}\n"
            "In another terminal:\n"
            f"  export RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}\n"
            "  airls-ray train configs/demo_arithmetic.yaml name=local_nodes "
            f"ray.address={cluster.address} \\\n"
            "      'rollout.resources.custom={rollout: 1}' 'policy.resources.custom={learner: 1}' \\\n"
            "      'prm.learner.resources.custom={learner: 1}' 'verifier.resources.custom={verifier: 1}'\n"
            f"{HELP}",
            flush=True,
        )
        obey(cluster, sys.stdin)
    except KeyboardInterrupt:
        pass
    finally:
        print("ending all nodes", flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would find Ray's locks taken, and wait
        cluster.close()
        if not was_there:  # else every later `ray start` would ask for it
            token.unlink(missing_ok=True)


def _interrupt_on_sigterm() -> None:
    """End as at Ctrl-C; installed after each start of a node, which puts a handler of Ray's own there."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    typer.run(main)
