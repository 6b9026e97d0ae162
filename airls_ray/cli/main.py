"""`airls-ray`: the commands, and what the user sees when one fails."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import typer
from typer import TyperException

from airls_ray.cli import (
    aggregate,
    calibrate,
    config,
    data,
    doctor,
    doors,
    evaluate,
    evaluate_outputs,
    evaluate_prm,
    live,
    plan_search,
    score,
    self_train,
    serve,
    train,
    train_prm,
)
from airls_ray.errors import Interrupted, UserError
from airls_ray.files import fault_of_path

EXIT_USER_ERROR = 2
_TRAIN = "run `make install` in a checkout, or pip install 'airls-ray[train]'"
_VLLM = "run `make install` in a checkout, or see docs/clusters.md for an installation by hand"
EXTRAS = dict.fromkeys(("ray", "deepspeed", "peft", "tensorboard"), _TRAIN) | {"vllm": _VLLM}
"""Packages without which a part of the commands works, and how to get them."""
EXIT_INTERRUPTED = 130  # what a shell gives for a process that SIGINT ended

app = typer.Typer(
    name="airls-ray",
    help="Train a policy and a process reward model together from correct traces, then search with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from airls_ray.version import __version__

        typer.echo(__version__)
        raise typer.Exit


app.command("doctor")(doctor.doctor)
app.command("list")(doors.list_doors)
app.command("config")(config.config)
app.add_typer(data.app, name="data")
app.command("sft")(train.sft)
app.command("train")(train.train)
app.command("train-prm")(train_prm.train_prm)
app.command("evaluate")(evaluate_outputs.evaluate)
app.command("search")(evaluate.search)
app.command("self-train")(self_train.self_train)
app.command("serve")(serve.serve)
app.command("score")(score.score)
app.command("evaluate-prm")(evaluate_prm.evaluate_prm)
app.command("aggregate")(aggregate.aggregate)
app.command("calibrate")(calibrate.calibrate)
app.command("plan-search")(plan_search.plan_search)
app.command("report")(evaluate.report)
app.command("scale")(live.scale)
app.command("status")(live.status)
app.command("demo")(train.demo)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a user's mistake becomes one sentence on standard error.

    Other exceptions pass: they are ours, and their traceback is what a bug report needs.
    """
    try:
        code = app(list(arguments), prog_name="airls-ray", standalone_mode=False)
    except TyperException as error:  # wrong usage: unknown command or option, missing argument
        message = error.format_message().rstrip(".")
        # Without a command Typer has printed the help, and the message is empty.
        context = getattr(error, "ctx", None)
        command = "airls-ray" if context is None else context.command_path
        return _fail(f"{message}; see {command} --help", error.exit_code) if message else error.exit_code
    except Interrupted as error:
        return _fail(str(error), EXIT_INTERRUPTED, "Interrupted")
    except (UserError, OSError, ModuleNotFoundError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        return _fail(sentence, EXIT_USER_ERROR)
    if code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this code
        return _fail("what was written stays readable", EXIT_INTERRUPTED, "Interrupted")
    return code if isinstance(code, int) else 0


def sentence_of(error: BaseException) -> str | None:
    """Return the sentence for the user that `error` carries, or None if it is not the user's to mend.

    Ray wraps the error of an actor in one of its own, which has the first as `cause` and a traceback as
    text.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return sentence_of(cause)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"this needs {error.name}, which is not installed: {EXTRAS[error.name]}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while {error.filename} was written" if error.filename else ""
        return f"the disk is full{where}: free some space, or set output= to a folder on another disk"
    fault = fault_of_path(error) if isinstance(error, OSError) else None
    return None if fault is None else f"cannot read or write {fault}; give another path"


def _fail(sentence: str, code: int, kind: str = "Error") -> int:
    end = "" if sentence.endswith((".", "?", "!")) else "."
    print(f"{kind}: {sentence}{end}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
