"""Rollouts of the iterations to come, sampled and graded by a thread while the learners train.

Bounded staleness: iteration i may be sampled as soon as `i - max_staleness` iterations are trained, so that
it is at most `max_staleness` policy updates old when its turn comes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa

from actors.cluster.cluster import Refs
from actors.learn.groups import NoReference, ReferenceGroup
from actors.rollout.jobs import Job
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.rollout.sampling import IterationSampling, training_request
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.data.training_problems import TrainingProblems
from airls_ray.errors import RunError

_TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Gathered:
    """What an iteration learns from."""

    problems: pa.Table
    rollouts: Refs
    grades: Any
    reference: Refs
    position: int
    """Problems drawn from the stream up to and with this iteration."""
    sampling_seconds: float
    grading_seconds: float


@dataclass
class _Open:
    sampling: IterationSampling
    position: int
    started: float


class RolloutStream:
    """Use as a context; `take` gives the iterations in order, `train_done` and `push` let it go on."""

    def __init__(
        self,
        pool: RolloutPool,
        problems: TrainingProblems,
        verifier: VerifierHandle,
        reference: ReferenceGroup | NoReference,
        config: Config,
        iteration: int,
    ) -> None:
        """`iteration`: iterations that are trained already."""
        self._pool, self._problems, self._config = pool, problems, config
        self._verifier, self._reference = verifier, reference
        self._trained = self._next = iteration
        self._taken = iteration
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._ready: dict[int, Future[Gathered]] = {}
        self._asked: list[tuple[Job, Future[Refs]]] = []
        """What `generate` waits for."""
        self._changed = threading.Condition()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._grader = ThreadPoolExecutor(1, thread_name_prefix="grading")
        self._thread = threading.Thread(target=self._run, name="rollout-stream", daemon=True)

    def __enter__(self) -> RolloutStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()  # no call in it is without a deadline
        self._grader.shutdown(wait=True, cancel_futures=True)
        try:
            self._pool.give_up()
        except RunError as lost:
            if error is None:
                raise
            logging.getLogger(__name__).warning("%s", lost)  # what counts is the error that ended the loop
        if error is not None:
            return
        if self._failure is not None:  # of the thread, and nobody has asked it for anything since
            raise self._failure
        self._obey()  # what comes after the loop samples with the weights of its last iteration

    # ------------------------------------------------------------------ for the loop's thread
    def take(self) -> Gathered:
        """Wait for the next iteration's rollouts and grades; every share and every call has its own deadline.

        Raises:
            BaseException: whatever ended the sampling or the grading.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._taken in self._ready or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            future = self._ready.pop(self._taken)
            self._taken += 1
        return future.result()

    def train_done(self) -> None:
        """One more iteration is trained, so one more may be sampled."""
        with self._changed:
            self._trained += 1

    def push(self, weights: Any, version: int) -> None:
        """Give the workers new weights, as soon as the thread looks; those that sample go on meanwhile."""
        self._commands.put(lambda: self._pool.update_weights(weights, version, wait=False))

    def generate(self, problems: pa.Table, request: RolloutRequest) -> Refs:
        """As `RolloutPool.generate`, side by side with the iterations to come and behind what waits of them.

        All is sampled with the weights of the last `push`: no worker gets a share before weights that are on
        their way to it, and whoever waits here pushes no others.

        Raises:
            BaseException: whatever ended the sampling.
        """
        answer: Future[Refs] = Future()
        self._commands.put(lambda: self._asked.append((self._pool.start_sampling(problems, request), answer)))
        with self._changed:
            self._changed.wait_for(lambda: answer.done() or self._failure is not None)
            if self._failure is not None:
                raise self._failure
        return answer.result()

    def counts(self) -> dict[str, float]:
        """Iterations that are submitted and not yet learned from, and groups that workers have."""
        return {
            "stream/iterations_ahead": float(self._next - self._taken),
            "stream/groups_running": float(self._pool.counts.running),
        }

    # ----------------------------------------------------------------------- the thread's own
    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._changed:
                    trained = self._trained
                self._obey()  # after the look: the weights of every iteration that counts as trained are sent
                self._submit(trained)
                self._pool.advance(_TICK_SECONDS)
                self._publish()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _obey(self) -> None:
        while not self._commands.empty():
            self._commands.get()()

    def _submit(self, trained: int) -> None:
        """Begin every iteration that may be sampled now."""
        train = self._config.train
        while self._next < self._config.iterations and self._next <= trained + train.max_staleness:
            request = training_request(self._config, self._next)
            problems = self._problems.choose(self._next, train.problems_per_iteration)
            sampling = IterationSampling(self._pool, self._problems, problems, request, self._config.failures)
            self._open[self._next] = _Open(sampling, self._problems.position, time.perf_counter())
            self._next += 1

    def _publish(self) -> None:
        """Hand finished iterations to the grader, which has a thread of its own, and answer `generate`."""
        for job, answer in [one for one in self._asked if one[0].finished]:
            self._asked.remove((job, answer))
            self._pool.close(job)
            refs = [ref for _, ref in self._pool.whole(job)]
            with self._changed:
                answer.set_result(refs)
                self._changed.notify_all()
        for number in [number for number, one in self._open.items() if one.sampling.finished()]:
            one = self._open.pop(number)
            seconds = time.perf_counter() - one.started
            future = self._grader.submit(self._grade, one, seconds)
            with self._changed:
                self._ready[number] = future
                self._changed.notify_all()

    def _grade(self, one: _Open, sampling_seconds: float) -> Gathered:
        start = time.perf_counter()
        problems, rollouts = one.sampling.result()
        # Asked again where the verifier is lost.
        grades = self._verifier.grade(rollouts, problems, learning=self._config.grades_more)
        reference = self._reference.log_probs(rollouts)
        return Gathered(
            problems, rollouts, grades, reference, one.position, sampling_seconds, time.perf_counter() - start
        )
