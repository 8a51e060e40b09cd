"""Public functions under any state of PyTorch, and with what is no path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sincut
from tests.conftest import TINY


class _DefaultType:
    def __enter__(self) -> None:
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: Any) -> None:
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default type": _DefaultType,
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_callers_state_changes_nothing(
    name: str, pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with STATES[name]():
        sincut.train(*pair, run, **TINY, report=False)
        sincut.translate(run, pair[0], tmp_path / "out.png")
        generator = sincut.load_generator(run)
    mine, expected = (load_file(each / "model.safetensors") for each in (run, tiny_run))
    assert mine.keys() == expected.keys()
    for key, value in mine.items():
        assert torch.equal(value, expected[key]), key
    assert next(generator.parameters()).dtype == torch.float32
    sincut.translate(tiny_run, pair[0], tmp_path / "expected.png")
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, "builtins.int"),
        (b"content.png", "builtins.bytes"),
        (torch.zeros(4, 4, 3), "torch.Tensor"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_path_is_named(value: Any, kind: str, tmp_path: Path) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "model": lambda: sincut.export(value, "m.pt2"),
        "output": lambda: sincut.translate("run", "a.png", value),
        "run": lambda: sincut.report(value),
    }
    of_images: dict[str, Callable[[], Any]] = {
        "content": lambda: sincut.train(value, "style.png", tmp_path),
        "style": lambda: sincut.evaluate("content.png", value, ["out.png"]),
        "input-2": lambda: sincut.translate("run", ["a.png", value], tmp_path / "out.png"),
    }
    for name, call in {**calls, **of_images}.items():
        with pytest.raises(sincut.SincutError) as error:
            call()
        allowed = "a path, a PIL image or an array" if name in of_images else "a path"
        assert str(error.value) == (
            f"{name} must be {allowed}, got {kind}; write it to a file first, and give that"
        )


def test_an_empty_name_is_not_the_current_folder() -> None:
    for call in (
        lambda: sincut.train("a.png", "", "run"),
        lambda: sincut.translate("run", [""], "out.png"),
    ):
        with pytest.raises(sincut.SincutError, match="is an empty name; give a path"):
            call()
