"""Questions to the person at the terminal, or input from the script that runs a command."""

import sys
from collections.abc import Callable

import click


def confirm(question: Callable[[], str], *, yes: bool) -> None:
    """Ask for confirmation, and end the command unless the answer is yes."""
    if yes:
        return
    if not _is_terminal():
        raise click.UsageError("There is no terminal to ask for confirmation. Confirm with --yes.")
    click.confirm(question(), abort=True, err=True)


def read_secret(what: str) -> str:
    """Return one line from standard input. A person at a terminal is asked, and sees no echo.

    Secrets are never arguments: the list of processes shows those to everybody.
    """
    if _is_terminal():
        secret: str = click.prompt(what, hide_input=True, err=True)
    else:
        line = sys.stdin.buffer.readline() if sys.stdin else b""  # it may be closed
        secret = line.decode(errors="replace")
    if not secret.strip():
        raise click.UsageError(f"Write the {what.lower()} to standard input.")
    return secret.strip()


def read_secrets(what: str) -> list[str]:
    """Return the lines of standard input that are not empty. A person is asked for one.

    As for `read_secret`, they are never arguments.
    """
    if _is_terminal():
        return [read_secret(what)]
    text = sys.stdin.buffer.read().decode(errors="replace") if sys.stdin else ""
    lines = [each.strip() for each in text.splitlines()]
    if not any(lines):
        raise click.UsageError(f"Write each {what.lower()} to a line of standard input.")
    return [each for each in lines if each]


def tell_person(text: Callable[[], str]) -> None:
    """Write the text to standard error if that is a terminal: a script need not know it."""
    if sys.stderr and sys.stderr.isatty():
        click.echo(text(), err=True)


def _is_terminal() -> bool:
    return bool(sys.stdin and sys.stdin.isatty())
