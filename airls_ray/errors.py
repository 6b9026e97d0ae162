"""The errors that a user can cause, each one sentence that says what, where and the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: the command line prints the sentence on standard error and exits with code 2."""


class ConfigError(UserError):
    """A configuration key, type or range is wrong, or two settings contradict each other."""


class DoorError(ConfigError):
    """What a configuration names (a file, a module, a built-in) does not open, or has another signature."""


class DataError(UserError):
    """A data file or row does not have the form that its schema asks for."""


class ModelError(UserError):
    """A model folder, tokenizer or checkpoint is missing, broken or does not fit the others."""


class ResourceError(UserError):
    """The cluster cannot give what the configuration asks for."""


class RunError(UserError):
    """A run could not go on: a deadline passed, a process died, a disk is full."""


class Interrupted(UserError):
    """The user stopped a command; the sentence says what is left and how to go on."""


class RequestRefused(UserError):
    """An engine takes what it is asked for from nobody: the request is wrong, and no worker is to blame."""


class ProcessLost(RunError):
    """A process died, hung or took data with it; what it did can be done again."""
