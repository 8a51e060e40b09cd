"""``sincut import``."""

from __future__ import annotations

from pathlib import Path

import click

from sincut.cli.options import PATH


@click.command("import")
@click.argument("weights", metavar="LATEST_NET_G.pth", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="Model file to write.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def import_published(weights: Path, output: Path, force: bool) -> None:
    """Turn a generator of the authors' code into a model file: of SinCUT, CUT or FastCUT.

    One of SinCUT is to be translated with --border zero to get what that code would have shown.
    """
    from sincut.files import check_file, check_free
    from sincut.models.architectures import description
    from sincut.models.model_file import save_model
    from sincut.models.published import read_published

    check_file(output)
    check_free(output, force=force, inputs=[weights])
    generator = read_published(weights)
    save_model(output, generator, None, {"origin": f"imported from {weights.name}"})
    kind = description(generator)["architecture"]
    click.echo(f"{output}: {kind} with {generator.channels} channels, {generator.blocks} blocks")
