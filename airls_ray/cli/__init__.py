"""The command line. Modules import Typer only; each command imports what it needs when it runs."""
