"""TensorBoard scalars without TensorFlow or PyTorch: one event file, written in the caller's thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class EventLog:
    """Scalars by iteration; the file and its imports (0.7 s) come with the first write."""

    def __init__(self, folder: Path) -> None:
        """Name the folder of the event files."""
        self._folder = folder
        self._records: Any = None  # tensorboard's RecordWriter: it has no type annotations

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Append one event that holds all `values` of an iteration, and flush it."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(wall_time=time.time(), step=iteration, summary=Summary(value=scalars)))

    def restart(self, iteration: int) -> None:
        """Tell TensorBoard to forget the points of `iteration` and later: they will be written again."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), step=iteration, session_log=start))

    def _append(self, event: Event) -> None:
        if self._records is None:
            self._records = self._open()
        self._records.write(event.SerializeToString())
        self._records.flush()

    def _open(self) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # Nanoseconds in the name: TensorBoard reads the files of one folder in the order of their names.
        path = self._folder / f"events.out.tfevents.{now:.9f}.{socket.gethostname()}"
        # Unbuffered: what a full disk refuses must not be tried again when the file is closed.
        records = RecordWriter(path.open("xb", buffering=0))
        records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        return records
