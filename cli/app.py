"""``sincut app``."""

from __future__ import annotations

from pathlib import Path

import click

from sincut.cli.options import PATH
from sincut.errors import SincutError, printable

_EXTRA = ("starlette", "uvicorn", "jinja2", "markupsafe", "anyio", "h11")


@click.command()
@click.option(
    "--folder",
    default="sincut-runs",
    show_default=True,
    type=PATH,
    help="Folder of the runs that the page shows and makes.",
)
@click.option(
    "--port",
    default=0,
    metavar="NUMBER",
    help="Port of 127.0.0.1 to answer on.  [default: any that is free]",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--demo", is_flag=True, help="Begin with the example pair filled in.")
def app(folder: Path, port: int, no_browser: bool, demo: bool) -> None:
    """Open a page on this machine to train, watch and finish runs, without a command more.

    Nothing leaves the machine: the page answers to this machine only, and to whoever has the
    address that is printed. Trainings and translations are processes of their own; they go on when
    the page, the browser or this command ends.
    """
    try:
        from sincut.app.server import serve
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise SincutError(
            f"sincut app needs {error.name}, which is not installed here; "
            'try pip install -c constraints.txt ".[app]"'
        ) from None
    serve(
        folder,
        port=port,
        browser=not no_browser,
        demo=demo,
        tell=lambda line: click.echo(printable(line)),
    )
