from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from airls_ray.critics.python_tool import PythonTool


@pytest.fixture(scope="module")
def tool() -> Iterator[PythonTool]:
    tool = PythonTool(seconds=2.0)
    yield tool
    tool.close()


@pytest.mark.parametrize(
    ("pieces", "output"),
    [
        (["print(2 + 3)\nprint('so')"], "5\nso"),
        (
            ["x = 5\nprint('before')", "print(x * 2)"],
            "10",
        ),  # one namespace, of the last piece alone the output
        (["1 / 0", "print(7)"], "7"),
        (["print(1)\n1 / 0"], "Code execute Error: ZeroDivisionError: division by zero"),
        (["def f(:"], "Code execute Error: SyntaxError: invalid syntax (<string>, line 1)"),
        (["print('\\'\"{x}')"], "'\"{x}"),
        (["x = 1"], ""),
        ([], "Code format error: No code found."),
        (["while True: pass"], "Code execute time out: Code execution timed out"),
        (["import os; os._exit(3)"], "Code execute Error: ended_early"),
    ],
)
def test_the_last_piece_is_told_what_it_wrote(tool: PythonTool, pieces: list[str], output: str) -> None:
    assert tool.run(pieces) == output


def test_files_of_this_machine_are_out_of_reach(tool: PythonTool) -> None:
    assert tool.run([f"print(open({__file__!r}).read())"]).startswith("Code execute Error: ")


def test_many_threads_share_one_sandbox(tool: PythonTool) -> None:
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: tool.run([f"print({at} ** 2)"]), range(60)))
    assert found == [str(at**2) for at in range(60)] and time.monotonic() - start < 60
