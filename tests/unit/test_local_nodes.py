"""The commands of clusters/local_nodes.py, with nodes that are only counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "clusters" / "local_nodes.py"


class Nodes:
    def __init__(self) -> None:
        self.kinds: list[bool] = []
        self.up = 0

    def add(self) -> str:
        self.up += 1
        return f"node {self.up}"

    def remove(self, graceful: bool) -> str | None:
        self.kinds.append(graceful)
        self.up -= 1
        return f"node {self.up + 1}" if self.up >= 0 else None

    def names(self) -> list[str]:
        return ["head", *(f"node {number}" for number in range(1, self.up + 1))]


def obey(nodes: Nodes, lines: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("local_nodes", FILE)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.obey(nodes, lines)


def test_nodes_join_and_leave_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = Nodes()
    obey(
        nodes, ["add\n", "add\n", "list\n", "remove\n", "kill\n", "remove\n", "\n", "ad\n", "quit\n", "add\n"]
    )
    assert capsys.readouterr().out.splitlines() == [
        "node 1 has joined",
        "node 2 has joined",
        "head, node 1, node 2",
        "node 2 has left",
        "node 1 has left",
        "there is no rollout node to end",
        "unknown command 'ad'; commands: add, remove, kill, list, quit",
    ]
    assert nodes.kinds == [True, False, True]
