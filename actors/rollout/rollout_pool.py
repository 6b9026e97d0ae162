"""The rollout workers as one: groups go to whoever is ready, and each is delivered exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from actors.cluster import cluster
from actors.rollout.fleet import FixedFleet, Fleet, Member
from actors.rollout.jobs import Job, times_before
from actors.rollout.node_calls import tell_all
from actors.rollout.rollout_worker import RolloutRequest
from airls_ray.config.schema import FailureConfig
from airls_ray.dispatch import Dispatch, Share, by_owner, cut
from airls_ray.errors import ProcessLost, RunError, UserError

_TICK_SECONDS = 0.5
"""Longest wait between two looks at the fleet."""
_PROOF_SECONDS = 60.0
"""Longest time for a worker to sample a token, after an error of a share."""


class _Sync(NamedTuple):
    """New weights on their way to a worker that goes on sampling."""

    member: Member
    until: float
    weights: Any


class RolloutPool:
    """Lives in the driver and holds references only."""

    def __init__(
        self,
        workers: Sequence[Any] | Fleet,
        deadline_seconds: float,
        failures: FailureConfig | None = None,
        shares_per_worker: int = 1,
    ) -> None:
        """Give work to started actors, or to a fleet that brings its own.

        Args:
            workers: actors, or a fleet.
            deadline_seconds: longest time for one share; a worker that takes longer counts as hung.
            failures: how often a share is tried, and when again.
            shares_per_worker: parts of a worker's share of a `generate`.
        """
        self.fleet: Fleet = FixedFleet(workers) if isinstance(workers, Sequence) else workers
        self._deadline = deadline_seconds
        self._dispatch = Dispatch(failures or FailureConfig())
        self._parts = shares_per_worker
        self._running: dict[Any, tuple[Member, Share, float]] = {}
        self._syncing: dict[Any, _Sync] = {}
        self._jobs: dict[int, Job] = {}
        self._numbers = 0
        self._told = {"requeued": 0, "dropped": 0, "deaths": 0}
        self.sync_again: Callable[[], None] = lambda: None
        """Called where none is ready and some have arrived, who wait for a sync that reaches all at once."""

    @property
    def counts(self) -> Dispatch:
        """What was submitted, delivered, dropped and done again so far."""
        return self._dispatch

    def take_metrics(self) -> dict[str, float]:
        """Workers that are ready, and what went wrong since the last call (0 in a quiet run)."""
        now = {
            "requeued": self._dispatch.requeued,
            "dropped": len(self._dispatch.dropped),
            "deaths": self.fleet.deaths,
        }
        since = {f"pool/{name}": float(count - self._told[name]) for name, count in now.items()}
        self._told = now
        counts = self.fleet.counts()
        states = {
            "pool/workers": float(counts["ready"]),
            "pool/starting": float(sum(counts.get(name, 0) for name in ("waiting", "loading", "syncing"))),
            "pool/draining": float(counts.get("draining", 0)),
            "pool/waiting": float(self._dispatch.waiting),
        }
        return states | since

    # ----------------------------------------------------------------------------- what is asked
    def generate(self, problems: pa.Table, request: RolloutRequest) -> list[Any]:
        """Sample rollouts for all problems; returns one table reference per share, in group order.

        A group is sampled by one engine (shared prefix cache). A share whose worker dies goes to
        another one; its seeds make it the same rollouts.

        Raises:
            RunError: no worker is left, or a group failed too often.
        """
        return [ref for _, ref in self._all(self.start_sampling(problems, request))]

    def start_sampling(
        self, problems: pa.Table, request: RolloutRequest, rows: Sequence[int] | None = None
    ) -> Job:
        """Ask for rollouts of some rows of the problems or of all; `advance` then works on it.

        Groups that failed too often are named in the job.
        """
        asked = range(problems.num_rows) if rows is None else rows
        before = times_before(problems["problem_id"].to_pylist(), asked)

        def submit(worker: Any, rows: Sequence[int]) -> Any:
            groups = [request.first_group + row for row in rows]
            own = replace(request, times_before=tuple(before[row] for row in rows))
            return worker.generate.remote(_take(problems, rows), groups, own)

        return self._submit(asked, submit)

    def complete(self, prefixes: pa.Table, request: RolloutRequest) -> list[Any]:
        """Continue all prefixes (schema PREFIXES); one table (COMPLETIONS) per share, in prefix order.

        Each worker continues its share in one batch; `request.first_group` numbers the first prefix.

        Raises:
            RunError: no worker is left, or a prefix failed too often.
        """

        def submit(worker: Any, rows: Sequence[int]) -> Any:
            numbers = [request.first_group + row for row in rows]
            return worker.complete.remote(_take(prefixes, rows), numbers, request)

        job = self._submit(range(prefixes.num_rows), submit)
        return [ref for _, ref in self._all(job)]

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> list[tuple[list[int], Any]]:
        """Continue the prefixes of a search (schema EXPANSIONS).

        Args:
            expansions: what is wanted.
            owners: for each row a number of its problem; a problem stays on one worker, whose prefix cache
                holds its tree.

        Returns:
            For each share its rows and the reference to its CONTINUATIONS.

        Raises:
            RunError: no worker is left, or a row failed too often.
        """

        def submit(worker: Any, rows: Sequence[int]) -> Any:
            return worker.expand.remote(_take(expansions, rows))

        return self._all(self._submit(range(expansions.num_rows), submit, owners))

    def forget_prefixes(self) -> None:
        """Empty the prefix caches of all workers."""
        self._tell_all("forget_prefixes", "emptying the prefix caches")

    def update_weights(self, weights: Any, version: int = 0, wait: bool = True) -> None:
        """Give all workers the weights behind a reference (one buffer, read in place), newcomers too.

        Without `wait` a worker that samples takes them when it can, and `advance` sees whether it did.

        Raises:
            ProcessLost: whoever made them died, so that there are none.
        """
        self.fleet.set_weights(weights, version)
        if wait:
            what = "weight sync to the rollout workers"
            for member in self._tell_all("update_weights", what, weights, large=True):
                member.version = version
            self._syncing.clear()  # those before have been overtaken
            return
        self.fleet.step(self._busy())
        until = time.monotonic() + self._deadline
        for member in self.fleet.ready:
            member.version = version
            self._syncing[member.handle.update_weights.remote(weights)] = _Sync(member, until, weights)

    # ------------------------------------------------------------------------------- how it is done
    def _submit(
        self,
        rows: Sequence[int],
        submit: Callable[[Any, Sequence[int]], Any],
        owners: Sequence[int] | None = None,
    ) -> Job:
        job = Job(self._numbers, len(rows), submit)
        self._numbers += 1
        self._jobs[job.number] = job
        self.fleet.step(self._busy())
        names = [member.name for member in self.fleet.ready]
        if owners is not None and names:
            shares = by_owner(job.number, owners, names)
        else:  # while nobody is ready they wait for those who are to come
            shares = cut(job.number, rows, self._parts * (len(names) or self.fleet.size))
        self._dispatch.submit(shares)
        return job

    def finish(self, job: Job) -> None:
        """Work until a job is finished; an error ends this job alone, and the pool can be used again."""
        try:
            while not job.finished:
                self.advance(_TICK_SECONDS)
        except BaseException:
            self._dispatch.forget(job.number)
            raise
        finally:
            self.close(job)

    def close(self, job: Job) -> None:
        """Forget a finished job."""
        self._jobs.pop(job.number, None)

    def advance(self, timeout: float) -> None:
        """Hand out shares, wait for one to finish until the timeout (seconds), and take in what has.

        Raises:
            RunError: no worker is left.
            ProcessLost: whoever made the new weights died, so that there are none.
            UserError: a worker's own sentence about its input.
        """
        busy = self._busy()
        self.fleet.step(busy)
        now = time.monotonic()
        if self._dispatch.has_waiting:
            self._hand_out(busy, now)
        if not self._running and not self._syncing:
            self._idle(timeout, now)
            return
        for ref in cluster.all_ready([*self._running, *self._syncing], timeout):
            if ref in self._running or ref in self._syncing:  # else its worker was just lost
                self._take_in(ref)
        self._end_hung()

    def _hand_out(self, busy: set[str], now: float) -> None:
        self._dispatch.free_all_but({member.name for member in self.fleet.ready})
        for member in self.fleet.ready:
            share = None if member.name in busy else self._dispatch.take(member.name, now)
            if share is not None:
                ref = self._jobs[share.job].submit(member.handle, share.rows)  # type: ignore[index]
                self._running[ref] = (member, share, now + self._deadline)

    def rest(self) -> bool:
        """Look after the workers while nothing is asked; returns whether one is ready."""
        self.advance(0.0)
        return bool(self.fleet.ready)

    def give_up(self) -> None:
        """Forget all jobs; what workers are doing for them is waited for and thrown away."""
        for number in list(self._jobs):
            self._dispatch.forget(number)
        while self._running:
            self.advance(_TICK_SECONDS)
        self._jobs.clear()

    def _idle(self, timeout: float, now: float) -> None:
        """Nothing runs: wait for a worker, or for the time at which a share may be tried again."""
        if not self.fleet.ready and self.fleet.arrived:
            self.sync_again()
            return
        if not self.fleet.ready and not self.fleet.expecting:
            raise RunError("no rollout worker is left")
        later = self._dispatch.next_try()
        time.sleep(timeout if later is None else min(timeout, max(later - now, _TICK_SECONDS / 10)))

    def _take_in(self, ref: Any) -> None:
        share: Share | None = None
        sent: list[Any] = []
        if ref in self._syncing:
            member, _, weights = self._syncing.pop(ref)
            sent = [weights]
        else:
            member, share, _ = self._running.pop(ref)
        try:
            cluster.wait_done(ref, self._deadline, "rollouts")
        except ProcessLost as error:
            self._require(sent)
            self._failed(member, cluster.sentence(error))
        except cluster.ACTOR_FAILURES as error:  # it raised, so its process lives
            self._require(sent)
            if share is not None and self._works(member):
                self._give_back(member, cluster.sentence(error))
            else:
                self._failed(member, cluster.sentence(error))
        except UserError:  # bad input, which no other worker can take either
            self._dispatch.refuse(member.name)
            raise
        else:
            self._deliver(member, share, ref)

    def _deliver(self, member: Member, share: Share | None, ref: Any) -> None:
        if share is None:
            return
        job = self._jobs.get(share.job)  # type: ignore[call-overload]
        if job is not None:  # else an error has ended it
            job.done[share.rows] = ref
        self._dispatch.deliver(member.name)
        self.fleet.delivered(member)

    def _require(self, sent: Sequence[Any]) -> None:
        """Return if what workers were sent is there; else it is not their fault that they could not take it.

        Raises:
            ProcessLost: whoever made it died.
        """
        try:
            cluster.resolve(sent, self._deadline)
        except cluster.ACTOR_FAILURES:  # which the others that were sent it will see, too
            self._syncing = {ref: sync for ref, sync in self._syncing.items() if sync.weights not in sent}
            raise

    def _works(self, member: Member) -> bool:
        """Whether a worker whose share raised an error samples all the same: then the share is to blame."""
        try:
            cluster.fetch(
                member.handle.prove.remote(), min(_PROOF_SECONDS, self._deadline), "a proof of life"
            )
        except cluster.ACTOR_FAILURES:
            return False
        except UserError:  # an answer, too
            return True
        return True

    def _failed(self, member: Member, why: str) -> None:
        # Whatever else it was doing is void: a result that still came would be a second delivery.
        self._running = {ref: one for ref, one in self._running.items() if one[0] is not member}
        self._syncing = {ref: one for ref, one in self._syncing.items() if one.member is not member}
        self._give_back(member, why)
        self.fleet.lost(member, why)

    def _give_back(self, member: Member, why: str) -> None:
        """The share that a worker has is tried again, or dropped where it failed too often."""
        dropped = len(self._dispatch.dropped)
        share = self._dispatch.fail(member.name, time.monotonic())
        if share is None:
            return
        job = self._jobs.get(share.job)  # type: ignore[call-overload]
        if job is None:  # an error has ended it
            self._dispatch.forget(share.job)
            return
        job.reason = why
        job.dropped += [row for _, row in self._dispatch.dropped[dropped:]]

    def _end_hung(self) -> None:
        now = time.monotonic()
        hung = [(member, "its share") for member, _, until in self._running.values() if now > until]
        hung += [(sync.member, "its weight sync") for sync in self._syncing.values() if now > sync.until]
        for member, what in hung:
            self._failed(member, f"{what} took longer than rollout.deadline_seconds ({self._deadline:g} s)")

    def _busy(self) -> set[str]:
        """Workers with a share, and those whose new weights are on their way.

        These get nothing new before they have them, or staleness would grow. And neither answers a probe:
        both have a deadline instead.
        """
        sampling = {member.name for member, _, _ in self._running.values()}
        return sampling | {sync.member.name for sync in self._syncing.values()}

    def _all(self, job: Job) -> list[tuple[list[int], Any]]:
        self.finish(job)
        return self.whole(job)

    def whole(self, job: Job) -> list[tuple[list[int], Any]]:
        """Rows and reference of every share of a finished job, in order.

        Raises:
            RunError: rows failed too often.
        """
        if job.dropped:
            raise RunError(
                f"{len(job.dropped)} of {job.rows} rows failed {self._dispatch.attempts} times, the last "
                f"time: "
                f"{job.reason}; raise failures.attempts if that was no fault of theirs"
            )
        return job.in_order()

    def _tell_all(self, call: str, what: str, *arguments: Any, large: bool = False) -> list[Member]:
        """Call all ready workers and wait; one that dies leaves, and those that are left are returned."""
        self.fleet.step(self._busy())
        members = list(self.fleet.ready)
        failed = tell_all(members, call, arguments, self._deadline, what, large=large)
        if failed and len(failed) == len(members):
            self._require(arguments)
        for member in members:
            if member.name in failed:
                self._failed(member, failed[member.name])
        return [member for member in members if member.name not in failed]


def _take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Rows of a table; contiguous ones without a copy."""
    if rows and rows[-1] - rows[0] == len(rows) - 1:
        return table.slice(rows[0], len(rows))
    return table.take(pa.array(rows, pa.int64()))
