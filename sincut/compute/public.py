"""What every public function begins with: paths that are paths, and PyTorch as it is by default."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

from sincut.files import check_path

P = ParamSpec("P")
R = TypeVar("R")


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function that the caller's state of PyTorch does not change, and that refuses what is no
    path where its annotation names one."""
    signature = inspect.signature(function)
    told = {name: str(each.annotation) for name, each in signature.parameters.items()}
    of_paths = [name for name, text in told.items() if "Path" in text and "Callable" not in text]

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        for name in of_paths:
            for value in _each(given.get(name)):
                if not isinstance(value, torch.nn.Module):  # where a function takes a model as well
                    check_path(name, value)
        with default_state():
            return function(*args, **kwargs)

    return called


@contextmanager
def default_state() -> Iterator[None]:
    """PyTorch with its default type, device, gradients and precision; the caller's come back."""
    dtype = torch.get_default_dtype()
    device = torch.get_default_device()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if device.type != "cpu":  # or every call would pay for it
            stack.enter_context(torch.device("cpu"))
        yield


def _each(value: Any) -> list[Any]:
    """A path by itself or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
