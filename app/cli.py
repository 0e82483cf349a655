"""`credentials`: what operators type."""

import click

from app.migrations import MigrationFailed, migrate
from app.settings import SettingsError, database_url_from_environment


@click.group()
def main() -> None:
    """Operate the LeadVibe Credentials service."""


@main.command("migrate")
def migrate_command() -> None:
    """Bring the database to the schema that this version needs.

    Safe when several hosts run it at once.
    """
    try:
        applied = migrate(database_url_from_environment())
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except MigrationFailed as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("The database is up to date.")
