"""The child process of a reward pool: loads one reward, reads requests, writes a line per call.

Started as `python -m airls_ray.grading.reward_worker --deadline-seconds S`. Standard input: the reward as one
line of JSON (`door`, `options`, `where`), then one line per chunk: a list of calls, each a list of rows.
Standard output: `ready {"batch": ...}`, or why not (`{"sentence": ...}`, or a traceback as a JSON string),
then one line per call, `[values, failed, problem, traceback]`, with one value and one flag for each row.

A call that takes longer than the deadline is stopped where it is, so that its traceback shows where; the
parent ends the process if that does not help.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from airls_ray.doors import Door, load, told
from airls_ray.errors import DoorError
from airls_ray.grading.reward_calls import Reward, Row, WrongValue
from airls_ray.grading.reward_url import reward_of_url

Answer = tuple[list[Any], list[bool], str | None, str | None]
"""Values, which of them failed, what was wrong, and the traceback."""


class Late(BaseException):
    """The deadline of a call passed. Not an Exception: a reward that catches these must not catch it."""


def main() -> None:
    """Answer what comes on standard input until it closes."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--deadline-seconds", type=float, required=True)
    deadline = arguments.parse_args().deadline_seconds
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a reward prints must not get between the answers
    requests = sys.stdin.buffer
    setup = json.loads(requests.readline())
    door = Door(**setup["door"])
    try:
        reward = _open(door, setup["where"], setup["options"], deadline)
    except DoorError as error:
        _write(output, {"sentence": str(error)})
        raise SystemExit(1) from None
    except Exception:  # hides nothing: the parent is told of it, and this process ends with it
        _write(output, traceback.format_exc())
        raise
    os.write(output, b"ready " + json.dumps({"batch": reward.batch}).encode() + b"\n")
    caller = Caller(reward, door, deadline)
    for line in requests:
        calls = [[Row(*row) for row in rows] for rows in json.loads(line)]
        for answer in caller.answers(calls):
            _write(output, answer)


class Caller:
    """Calls a reward with a deadline; a reward that waits is called for all rows of a chunk at once."""

    def __init__(self, reward: Reward, door: Door, deadline_seconds: float) -> None:
        """`door`: where the reward came from, for sentences."""
        self._reward, self._door, self._deadline = reward, door, deadline_seconds
        self._loop = asyncio.new_event_loop()  # one for all calls: clients of servers belong to a loop

    def answers(self, calls: Sequence[Sequence[Row]]) -> Iterator[Answer]:
        """Yield the answer of each call, in order."""
        if not self._reward.is_async:
            for rows in calls:
                yield self._answer(rows)
            return
        tasks = [self._loop.create_task(self._wait_for(rows)) for rows in calls]
        for task in tasks:
            yield self._loop.run_until_complete(task)

    def _answer(self, rows: Sequence[Row]) -> Answer:
        try:
            with _deadline(self._deadline):
                returned = self._reward.call(rows)
                if isinstance(returned, Awaitable):
                    returned = self._loop.run_until_complete(asyncio.ensure_future(returned, loop=self._loop))
            return self._read(rows, returned)
        except (Exception, Late) as error:
            return self._failed(rows, error)

    async def _wait_for(self, rows: Sequence[Row]) -> Answer:
        try:
            returned = await asyncio.wait_for(self._reward.call(rows), self._deadline)
            return self._read(rows, returned)
        except TimeoutError:
            return self._failed(rows, Late())
        except Exception as error:
            return self._failed(rows, error)

    def _read(self, rows: Sequence[Row], returned: Any) -> Answer:
        found = self._reward.read(rows, returned)
        wrong = [isinstance(one, WrongValue) for one in found]
        problem = next((str(one) for one in found if isinstance(one, WrongValue)), None)
        return [None if bad else one for one, bad in zip(found, wrong, strict=True)], wrong, problem, None

    def _failed(self, rows: Sequence[Row], error: BaseException) -> Answer:
        nothing: list[Any] = [None] * len(rows)
        trace = None
        if isinstance(error, WrongValue):
            problem = str(error)
        else:
            trace = "".join(traceback.format_exception(error))
            problem = (
                f"gave no value within {self._deadline:g} s{_place(error, self._door)}"
                if isinstance(error, Late)
                else f"raised {told(error, self._door)}"
            )
        return nothing, [True] * len(rows), problem, trace


def _place(error: BaseException, door: Door) -> str:
    """Where a call was stopped, in words."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == door.target]
    return f" (it was in line {frames[-1].lineno} of {os.path.basename(door.target)})" if frames else ""


def _open(door: Door, where: str, options: dict[str, Any], deadline: float) -> Reward:
    if door.source == "url":
        return reward_of_url(door.target, options, deadline)
    reward: Reward = load(door, where, options)
    return reward


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `Late` in the block, wherever it is, after `seconds`; end with a parent that is gone."""
    parent, stopped = os.getppid(), False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if os.getppid() != parent:  # nobody is left to end a call that cannot be stopped
            os._exit(1)
        if not stopped:
            stopped = True
            raise Late

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _write(output: int, said: Any) -> None:
    data = json.dumps(said).encode() + b"\n"
    while data:
        data = data[os.write(output, data) :]


if __name__ == "__main__":
    main()
