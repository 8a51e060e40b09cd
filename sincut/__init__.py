"""SinCUT: translate one high-resolution image into the look of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sincut.version import __version__ as __version__

__all__ = [
    "SincutError",
    "ablate",
    "evaluate",
    "evaluate_folders",
    "export",
    "inspect",
    "load_generator",
    "report",
    "train",
    "translate",
]

if TYPE_CHECKING:
    from sincut.ablation.ablate import ablate
    from sincut.errors import SincutError
    from sincut.evaluation.evaluate import evaluate
    from sincut.evaluation.folders import evaluate_folders
    from sincut.inspection.inspect import inspect
    from sincut.models.model_file import load_generator
    from sincut.runs.reporting import report
    from sincut.runs.train import train
    from sincut.translation.export import export
    from sincut.translation.translate import translate


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: importing torch takes seconds."""
    import importlib

    homes = {
        "SincutError": "errors",
        "ablate": "ablation.ablate",
        "evaluate": "evaluation.evaluate",
        "evaluate_folders": "evaluation.folders",
        "export": "translation.export",
        "inspect": "inspection.inspect",
        "load_generator": "models.model_file",
        "report": "runs.reporting",
        "train": "runs.train",
        "translate": "translation.translate",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sincut.{homes[name]}"), name)
