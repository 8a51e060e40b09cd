"""The command line: one module per command, each parses, calls one function and prints.

Only :mod:`sincut.errors` and :mod:`sincut.config` are imported here and in the commands' modules;
torch, numpy and Pillow wait until a command runs, so that ``sincut --help`` answers at once.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import click

from sincut.cli.ablate import ablate
from sincut.cli.app import app
from sincut.cli.demo import demo
from sincut.cli.evaluate import evaluate
from sincut.cli.export import export
from sincut.cli.import_published import import_published
from sincut.cli.info import info
from sincut.cli.inspect import inspect
from sincut.cli.report import report
from sincut.cli.train import train
from sincut.cli.translate import translate
from sincut.errors import SincutError, ToldByAnother, one_line, printable
from sincut.version import __version__

_NEEDED = ("torch", "numpy", "PIL", "scipy", "tifffile", "safetensors", "rich")


class _Group(click.Group):
    """The one place where the library's error becomes a line on standard error and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every letter
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except SincutError as error:
            if not isinstance(error, ToldByAnother):
                click.echo(printable(f"Error: {error}"), err=True)
            sys.exit(2)
        except ModuleNotFoundError as error:
            if error.name not in _NEEDED:
                raise
            click.echo(
                f"Error: sincut needs {error.name}, which is not installed here; "
                "try pip install -c constraints.txt .",
                err=True,
            )
            sys.exit(2)
        except OSError as error:  # of a place or a name that nobody foresaw
            if error.errno == errno.EPIPE:  # whoever reads this has left; Click knows how to go
                raise
            about = "" if error.filename is None else f"{error.filename}: "
            click.echo(printable(f"Error: {about}{error.strerror or one_line(error)}"), err=True)
            sys.exit(2)
        except KeyboardInterrupt as interruption:
            # Click itself raises one without words; ours says what is kept.
            said = "" if not interruption.args else f": {interruption}"
            click.echo(printable(f"Interrupted{said}."), err=True)
            sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sincut")
def main() -> None:
    """Translate one high-resolution image into the look of another.

    Train on the pair, then translate the content (or any other image) at its full size:

    \b
      sincut train content.jpg style.jpg -o run
      sincut translate run content.jpg -o result.png
    """


for _command in (
    train,
    translate,
    evaluate,
    inspect,
    ablate,
    report,
    info,
    export,
    import_published,
    demo,
    app,
):
    main.add_command(_command)
