"""Libraries that extra packages bring, or the line that names the package. No torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sincut.errors import SincutError


def library(module: str, package: str, extra: str, what: Path | str) -> Any:
    """The module, for a file, or an option, that takes it.

    Raises:
        SincutError: it is not installed, or what it loads is not.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise SincutError(
            f"{what} takes the package {package}, which is not installed; try "
            f"pip install 'sincut[{extra}]'"
        ) from None
