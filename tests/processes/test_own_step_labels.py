"""`train-prm` by the command line with a loss and a label rule of the user's own that are wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import make_text_policy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "prm_from_step_labels.yaml"
OWN = """
print("to standard output")
def mean(logits, labels): return ((logits.sigmoid() - labels) ** 2).sum() / max(len(labels), 1), {}
def half(values): return values[::2]
def of_outcomes(outcomes, step_rows): return outcomes[step_rows]
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (
            ["--steps", str(EXAMPLE.with_suffix(".jsonl"))],
            ["supervised_prm.step_loss=own.py:mean"],
            r"supervised_prm.step_loss: own.py:mean returned 0.2",
        ),
        (
            [],
            ["supervised_prm.labels=own.py:half"],
            "own.py:half returned an array of shape [7], and it must",
        ),
        ([], ["supervised_prm.labels=own.py:haf"], "own.py has no attribute 'haf' (did you mean 'half'?)"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(
    tmp_path: Path, policy: Path, options: list[str], settings: list[str], said: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    command = ["train-prm", str(EXAMPLE), "--policy", str(policy), "--output", "out", *options, *settings]
    done = subprocess.run(
        [sys.executable, "-m", "airls_ray.cli.main", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
