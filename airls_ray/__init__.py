"""Train a policy and a process reward model together from correct traces, then search with it."""

__version__ = "0.1.0"
