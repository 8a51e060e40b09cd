"""``sincut info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(model: Path, as_json: bool) -> None:
    """Say what a run or model file is: networks, images, steps, every setting."""
    from sincut.models.model_file import load_model

    loaded = load_model(model)
    generator = loaded.generator
    facts: dict[str, Any] = {
        **loaded.header,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "halo": generator.halo,
        "alignment": generator.alignment,
    }
    click.echo(json.dumps(facts) if as_json else "\n".join(_lines(facts)))


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, f"{indent}  ")]
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {text}")
    return lines
