"""What a learner looks at before it loads its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.learn.learners import PolicyLearner
from actors.learn.prm_learner import PRMLearner, PRMServer
from airls_ray.config import Config
from airls_ray.errors import RunError

CONFIG = Config.model_validate({"method": "airl_s"})
LEARNERS = {
    "policy": lambda run: PolicyLearner(0, CONFIG, "policy").start(("", 0), None, 0, run),
    "prm": lambda run: PRMLearner(0, CONFIG, "policy", "prm").start(("", 0), None, 0, run),
    "given-prm": lambda run: PRMServer(CONFIG, "policy", "prm").start(run),
}


@pytest.mark.parametrize("start", LEARNERS.values(), ids=LEARNERS)
def test_a_learner_whose_machine_does_not_see_the_run_folder_does_not_start(
    start: Any, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()  # what one that saved on its own machine has left
    with pytest.raises(RunError, match="does not see the run folder"):
        start(str(tmp_path))
