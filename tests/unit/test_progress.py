import io
import re
import threading

import pytest
from rich.console import Console

from airls_ray.console.choose import make_progress
from airls_ray.console.formatting import format_number, format_seconds
from airls_ray.console.progress import PlainProgress, QuietProgress
from airls_ray.console.terminal import TerminalProgress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


def test_a_log_gets_lines_and_a_terminal_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_progress(), PlainProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(make_progress(), TerminalProgress)
    assert isinstance(make_progress(quiet=True), QuietProgress)


def test_quiet_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    progress = QuietProgress()
    with progress.track("work", 2) as track, progress.phase("phase"):
        track.advance(outcome=0.5)
    progress.table("title", [{"a": 1}])
    progress.say("text")
    progress.phase_done("phase", 1.0)
    assert capfd.readouterr() == ("", "")


def test_plain_lines_show_count_fields_and_the_time_left(log: io.StringIO, clock: Clock) -> None:
    progress = PlainProgress(log, clock=clock)
    with progress.track("train", 4) as track:
        clock.now = 30.0
        track.advance(outcome=0.5, **{"tokens/s": 6200.0})
    assert log.getvalue() == "train  1/4 (25%)  outcome 0.500  tokens/s 6,200  30 s elapsed, 1:30 min left\n"


def test_plain_lines_come_each_ten_percent_of_a_slow_task(log: io.StringIO, clock: Clock) -> None:
    with PlainProgress(log, clock=clock).track("train", 100) as track:
        for _ in range(100):
            clock.now += 0.5
            track.advance()
    counts = [int(count) for count in re.findall(r"(\d+)/100", log.getvalue())]
    assert counts == [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_a_fast_task_prints_little(log: io.StringIO, clock: Clock) -> None:
    with PlainProgress(log, clock=clock).track("train", 1000) as track:
        for _ in range(1000):
            clock.now += 0.0001
            track.advance()
    assert len(log.getvalue().splitlines()) == 2  # the first and the last


def test_a_task_without_a_total_prints_each_ten_seconds(log: io.StringIO, clock: Clock) -> None:
    with PlainProgress(log, clock=clock).track("sample", None) as track:
        for _ in range(30):
            clock.now += 1.0
            track.advance()
    assert re.findall(r"sample  (\d+)", log.getvalue()) == ["1", "11", "21", "30"]


def test_a_resumed_task_counts_from_where_it_was(log: io.StringIO, clock: Clock) -> None:
    with PlainProgress(log, clock=clock).track("train", 60, done=40) as track:
        clock.now = 10.0
        track.advance()
    assert "41/60" in log.getvalue()
    assert "3:10 min left" in log.getvalue()  # 19 more at 10 s each


def test_the_seconds_of_overlapping_phases_are_their_own(log: io.StringIO, clock: Clock) -> None:
    progress = PlainProgress(log, clock=clock)
    outer, inner = progress.phase("engine ready"), progress.phase("learner ready")
    outer.__enter__()
    clock.now = 2.0
    inner.__enter__()
    clock.now = 12.3
    outer.__exit__(None, None, None)
    clock.now = 14.0
    inner.__exit__(None, None, None)
    lines = [line.split("  ") for line in log.getvalue().splitlines()]
    assert [(line[0], line[-1].strip()) for line in lines] == [
        ("engine ready", "12.3 s"),
        ("learner ready", "12.0 s"),
    ]


def test_phases_of_threads_do_not_mix_their_lines(log: io.StringIO) -> None:
    progress = PlainProgress(log)

    def work(number: int) -> None:
        for _ in range(20):
            with progress.phase(f"phase {number}"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = log.getvalue().splitlines()
    assert len(lines) == 80
    assert all(re.fullmatch(r"phase \d +0\.0 s", line) for line in lines)


def test_a_failed_phase_says_so(log: io.StringIO) -> None:
    with pytest.raises(ValueError), PlainProgress(log).phase("engine ready"):
        raise ValueError
    assert log.getvalue().startswith("engine ready: failed")


def test_a_plain_table_holds_all_cells_without_colours(log: io.StringIO) -> None:
    rows = [{"method": "airl_s [red]x", "accuracy": 0.75}, {"method": "grpo", "accuracy": None}]
    PlainProgress(results=log).table("Results", rows)
    assert "\x1b" not in log.getvalue()
    for text in ("Results", "method", "airl_s [red]x", "0.750", "grpo", " - "):
        assert text in log.getvalue()


def test_a_wide_plain_table_is_not_cut(log: io.StringIO) -> None:
    row = {f"a long column {number}": 0.123 for number in range(8)}
    PlainProgress(results=log).table("Results", [row])
    assert log.getvalue().count("0.123") == 8
    assert "a long column 7" in log.getvalue()


def test_a_terminal_shows_bars_and_leaves_lines() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=140)
    progress = TerminalProgress(screen, screen)
    with progress.track("train", 3) as track:
        track.advance(outcome=0.5)
        with progress.phase("weights [1/2]"):
            progress.table("Results", [{"a": 1}])
        track.advance(2, outcome=0.75)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())  # type: ignore[attr-defined]
    assert "weights [1/2]" in text
    assert "Results" in text
    assert re.search(r"train +\d+\.\d s +outcome 0\.750", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (3, "3"), (12345, "12,345"), (0.5, "0.500"), (0.74951, "0.750"), (6215.4, "6,215"),
     (123.4, "123"), (0.00012, "0.00012"), (float("nan"), "-"), (float("-inf"), "-inf"), ("a", "a"),
     (True, "True"), (2.0, "2")],
)  # fmt: skip
def test_numbers_read_well(value: object, text: str) -> None:
    assert format_number(value) == text


def test_durations_read_well() -> None:
    assert [format_seconds(value) for value in (8.4, 125, 3720)] == ["8 s", "2:05 min", "1:02 h"]
