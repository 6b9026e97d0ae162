"""The script of a report's browser: its choices in node, and the whole page in a headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import airls_ray.report
from airls_ray.report import report, write_report
from airls_ray.report.page import asset
from airls_ray.search.records import records_table
from airls_ray.text.make_tokenizer import train_tokenizer
from tests.unit.report_pages import EVIL, metrics
from tests.unit.test_report_browser import make_run, table
from tests.unit.test_report_trees import record

SCRIPT = Path(airls_ray.report.__file__).with_name("browser.js")
NODE = shutil.which("node")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
with_node = pytest.mark.skipif(NODE is None, reason="there is no node on this machine to run the script with")
with_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine to open the report with"
)

ROLLOUTS: list[dict[str, Any]] = [
    {
        "scores": [0.9, 0.8],
        "truths": [True, True],
        "outcome": 1.0,
        "tokens": 5,
        "trace": 0.72,
        "logs": [-1.0, -1.0],
    },
    {
        "scores": [0.9, 0.7],
        "truths": [True, False],
        "outcome": 0.0,
        "tokens": 9,
        "trace": 0.63,
        "logs": [-3.0, -1.0],
    },
    {"scores": [0.9, 0.1], "truths": [True, True], "outcome": 1.0, "tokens": 7, "trace": 0.09},
    {"scores": [0.9, 0.1], "truths": [True, False], "outcome": 0.0, "tokens": 7, "rewards": [None, 2.0]},
    {"tokens": 3, "rewards": [None, 5.0]},
]
DATA: dict[str, Any] = {
    "sources": ["iteration 1", "test samples"],
    "kinds": ["iteration", "samples"],
    "prompts": ["1+1=", "Two AND two"],
    "rewards": ["reward", "reward/short"],
    "rollouts": [
        {"source": int(at >= 3), "prompt": int(at == 2), "problem": f"p{at}", **one}
        for at, one in enumerate(ROLLOUTS)
    ],
}


def in_node(call: str, *arguments: Any) -> Any:
    """What a call of the script returns; `script` are its functions."""
    code = f"const script = require({json.dumps(str(SCRIPT))});"
    code += "const given = JSON.parse(require('fs').readFileSync(0));"
    code += f"console.log(JSON.stringify(({call})(...given)))"
    done = subprocess.run(
        [str(NODE), "-e", code], input=json.dumps(arguments), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@with_node
def test_filters_and_orders() -> None:
    """One start of node for all cases: rollouts that pass, in their order."""
    cases: list[tuple[dict[str, str], list[int]]] = [
        ({}, [0, 1, 2, 3, 4]),
        ({"source": "0"}, [0, 1, 2]),
        ({"source": "samples"}, [3, 4]),
        ({"outcome": "right"}, [0, 2]),
        ({"outcome": "wrong"}, [1, 3]),
        ({"outcome": "none"}, [4]),
        ({"disagreement": "step_high"}, [1]),
        ({"disagreement": "step_low"}, [2]),
        ({"disagreement": "step"}, [1, 2]),
        ({"disagreement": "outcome_high"}, [1]),
        ({"disagreement": "outcome_low"}, [2]),
        ({"disagreement": "outcome"}, [1, 2]),
        ({"disagreement": "step_high", "threshold": "0.75"}, []),
        ({"disagreement": "step_low", "threshold": "0.85"}, [0, 2]),
        ({"problem": "two and"}, [2]),
        ({"problem": "P3"}, [3]),
        ({"shortest": "7"}, [1, 2, 3]),
        ({"shortest": "5", "longest": "7"}, [0, 2, 3]),
        ({"sort": "latest"}, [0, 1, 2, 3, 4]),
        ({"sort": "trace_high"}, [0, 1, 2, 3, 4]),
        ({"sort": "trace_low"}, [2, 1, 0, 3, 4]),
        ({"sort": "step_gap"}, [2, 1, 0, 3, 4]),
        ({"sort": "outcome_gap"}, [2, 1, 0, 3, 4]),
        ({"sort": "long"}, [1, 2, 3, 0, 4]),
        ({"sort": "short"}, [4, 0, 2, 3, 1]),
        ({"sort": "likely"}, [0, 1, 2, 3, 4]),
        ({"sort": "unlikely"}, [1, 0, 2, 3, 4]),
        ({"sort": "reward_1"}, [4, 3, 0, 1, 2]),
        ({"sort": "long", "outcome": "wrong", "source": "iteration"}, [1]),
    ]
    wanted = [{"threshold": "0.5", **filters} for filters, _ in cases]
    found = in_node("((data, all) => all.map(one => script.choose(data, one)))", DATA, wanted)
    assert found == [order for _, order in cases]


@with_node
def test_a_tree_is_walked_depth_first_and_the_chosen_path_is_marked() -> None:
    nodes = [{"parent": -1}, {"parent": 0}, {"parent": 1}, {"parent": 1, "leaf": 1}, {"parent": 2, "leaf": 0}]
    rows = in_node("script.treeRows", nodes, 0)
    assert [(row["at"], row["depth"], row["inset"], row["chosen"]) for row in rows] == [
        (1, 1, 0, True),
        (2, 2, 1, True),
        (4, 3, 1, True),
        (3, 2, 1, False),
    ]
    assert not any(row["chosen"] for row in in_node("script.treeRows", nodes, None))


@with_node
def test_a_step_is_said_in_words() -> None:
    step = {"score": 0.25, "log": -1.5, "truth": False}
    assert in_node("script.said", "step 2", step) == (
        "step 2: PRM score 0.250, log-probability -1.50 nats, truth: is wrong"
    )
    assert in_node("script.said", "step 1", {}) == "step 1: no PRM score, truth: unknown"


PROBE = """
{
const form = document.querySelector('.browser form');
const wait = name => { form.elements[name].dispatchEvent(new Event('input', { bubbles: true })); };
const count = () => document.querySelector('.browser .count').textContent;
const seen = { cards: document.querySelectorAll('.browser article').length, all: count() };
for (const [name, value] of [['outcome', 'wrong'], ['problem', 'no such problem']]) {
  form.elements[name].value = value; wait(name); seen[name] = count();
  form.elements[name].value = ''; wait(name);
}
seen.tree = document.querySelectorAll('.trees .steps li').length;
seen.plots = [...document.querySelectorAll('.plot')]
  .map(plot => plot.closest('details') || plot.querySelector('svg').getBoundingClientRect().width > 0)
  .map(Boolean);
seen.evil = document.querySelectorAll('.browser article script').length;
const node = document.createElement('pre');
node.id = 'probe'; node.textContent = JSON.stringify(seen); document.body.append(node);
}
"""


@with_chromium
def test_the_report_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every panel is drawn, the filters work, and nothing is written to the console."""
    tokenizer = tmp_path / "tokenizer"
    train_tokenizer([], 258, tokenizer)
    row = {"scores": [0.25, 0.75], "step_truth": [True, False], "prompt": EVIL}
    rows = table(tokenizer, row, {**row, "outcome": 0.0}, {**row, "outcome": 0.0})
    run = make_run(tmp_path / "run", tokenizer, {1: rows})
    for iteration in range(2, 5):
        run.log_metrics(iteration, metrics(iteration))
    (run.path / "search").mkdir()
    pq.write_table(records_table([record()]), run.path / "search" / "records.parquet")
    # The page runs what it has the hash of alone: the probe goes into our own script.
    monkeypatch.setattr(report, "asset", lambda name: asset(name) + PROBE)
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command += ["--enable-logging=stderr", "--dump-dom", write_report(run.path).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    probe = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert probe is not None
    seen = json.loads(probe[1])
    assert seen["plots"] and all(seen["plots"])
    assert {name: seen[name] for name in ("cards", "all", "outcome", "tree", "evil")} == {
        "cards": 3,
        "all": "1 to 3 of 3 rollouts",
        "outcome": "1 to 2 of 2 rollouts",
        "tree": 3,
        "evil": 0,
    }
    assert seen["problem"].startswith("No rollout")
