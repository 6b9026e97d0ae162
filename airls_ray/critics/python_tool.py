"""The Python of a critic: its pieces of code run in the sandbox, and it reads what they wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from airls_ray.errors import ConfigError, DoorError
from airls_ray.grading.sandbox.box import Sandbox
from airls_ray.grading.sandbox.limits import Limits

_CODE = re.compile(r"```python\s*(.*?)\s*```", re.DOTALL)
_PROGRAM = """
import contextlib, io
_names = {{"__name__": "__main__"}}
_written = io.StringIO()
for _piece in {before!r}:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(_piece, _names)
    except Exception:
        pass
try:
    with contextlib.redirect_stdout(_written):
        exec({last!r}, _names)
except Exception as _error:
    print(f"Code execute Error: {{type(_error).__name__}}: {{_error}}")
else:
    print(_written.getvalue().strip())
"""
"""An error is said in the place of what was written, as GenPRM's program does. That of an earlier piece was
said when that piece was the last one, and must not hide what this one writes."""


def code_in(text: str) -> list[str]:
    """Return the pieces of Python in a text, which stand between lines of three backticks."""
    return [piece.strip() for piece in _CODE.findall(text)]


class PythonTool:
    """One sandbox in a thread of its own, whose programs run one after the other; for many threads."""

    def __init__(self, seconds: float = 5.0) -> None:
        """Start it.

        Args:
            seconds: wall clock of one run.

        Raises:
            DoorError: this machine does not shut programs in; the text follows the scorer's name.
        """
        self._thread = ThreadPoolExecutor(1, "critic-python")
        limits = Limits(wall_seconds=seconds, cpu_seconds=max(int(seconds), 1), output_kib=16)
        try:
            self._sandbox = self._thread.submit(Sandbox, limits).result()
        except ConfigError as error:
            raise DoorError(
                f"runs its critics' Python in a sandbox, which this machine does not give ({error}): set the "
                "option execute to false"
            ) from error

    def run(self, pieces: Sequence[str]) -> str:
        """Run pieces of code in one namespace; return what the last of them wrote, or its error in a line.

        Raises:
            RunError: the sandbox cannot be started again.
        """
        if not pieces:
            return "Code format error: No code found."
        program = _PROGRAM.format(before=list(pieces[:-1]), last=pieces[-1])
        failed, written = self._thread.submit(self._sandbox.run, program).result()
        if failed == "timeout":
            return "Code execute time out: Code execution timed out"
        return f"Code execute Error: {failed}" if failed else written.strip()

    def close(self) -> None:
        """End the sandbox."""
        self._thread.submit(self._sandbox.close).result()
        self._thread.shutdown()
