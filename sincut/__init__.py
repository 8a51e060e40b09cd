"""SinCUT: translate one high-resolution image into the look of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["SincutError", "evaluate", "load_generator", "train", "translate"]

if TYPE_CHECKING:
    from sincut.errors import SincutError
    from sincut.evaluation import evaluate
    from sincut.run import train
    from sincut.translation import load_generator, translate


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: importing torch takes seconds."""
    import importlib

    homes = {"SincutError": "errors", "evaluate": "evaluation", "train": "run"}
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sincut.{homes.get(name, 'translation')}"), name)
