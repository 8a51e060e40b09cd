"""What several processes tell each other, and what they do where one is gone."""

from __future__ import annotations

import importlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from sincut.compute.processes import ALONE, Processes
from sincut.errors import SincutError, ToldByAnother


def test_one_alone_changes_nothing() -> None:
    tensor = torch.arange(3.0)
    with ALONE.joined("cpu"):
        ALONE.average([tensor])
        ALONE.take_over([tensor])
        assert ALONE.largest(3, 4) == [3, 4]
        assert ALONE.by_all(lambda: 5) == ALONE.by_first(lambda: 5) == 5
        assert torch.equal(ALONE.gathered(tensor), tensor[None])
        with pytest.raises(ZeroDivisionError):
            ALONE.by_all(lambda: 1 // 0)
    assert torch.equal(tensor, torch.arange(3.0))
    assert not torch.distributed.is_initialized()


def test_several_have_to_know_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SincutError) as caught, Processes(1, 2, None).joined("cpu"):
        pass
    assert str(caught.value) == (
        "2 processes need MASTER_ADDR and MASTER_PORT in the environment to train together, got "
        "none; try torchrun --nproc-per-node 2 -m sincut …"
    )


def refused(work: Any) -> tuple[str, str]:
    try:
        work()
    except SincutError as error:
        return type(error).__name__, str(error)
    return "", ""


def conversation(index: int, port: int, folder: Path) -> None:
    """All that one of three processes says and hears; the last leaves without a word."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = Processes(index, 3, None)
    found: dict[str, Any] = {}

    def fails_in(which: int) -> int:
        if index == which:
            raise SincutError(f"{which} fails")
        return index

    with processes.joined("cpu"):
        importlib.import_module("torch._dynamo")  # as torch.compile does, and whatever it brings
        found["largest"] = processes.largest(index, -index)
        found["all"] = processes.by_all(lambda: index)
        found["first"] = processes.by_first(lambda: index + 10)
        found["fails in all"] = refused(lambda: processes.by_all(lambda: fails_in(1)))
        found["fails in first"] = refused(lambda: processes.by_first(lambda: fails_in(0)))
        square = torch.full((2, 3, 2, 2), float(index)).to(memory_format=torch.channels_last)
        line = torch.arange(4.0) * index
        processes.average([square, line])
        found["average"] = square.unique().tolist(), line.tolist()
        kept = [torch.arange(3) + index, torch.full((), index + 0.5), torch.ones(2) * index]
        processes.take_over(kept)
        found["take over"] = [each.tolist() for each in kept]
        rows = torch.full((1, 2), float(index), requires_grad=True, dtype=torch.float64)
        gathered = processes.gathered(rows)
        found["gathered"] = gathered.tolist(), gathered.requires_grad
        if index == 2:
            (folder / "2.json").write_text(json.dumps(found))
            os._exit(0)
        for _ in range(2):  # what was on its way may still arrive
            found["gone"] = refused(lambda: processes.average([line]))
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    found["threads"] = [name for name in threads if "gloo" in name]
    (folder / f"{index}.json").write_text(json.dumps(found))


def test_a_conversation(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(conversation, (port, tmp_path), 3)  # type: ignore[no-untyped-call]
    found = [json.loads((tmp_path / f"{index}.json").read_text()) for index in range(3)]
    kinds = ["SincutError", "ToldByAnother", "ToldByAnother"]
    assert ToldByAnother.__name__ == kinds[1]
    for index, (each, kind) in enumerate(zip(found, kinds, strict=True)):
        gone = each.pop("gone", None)
        # A thread that outlives the conversation may abort the process as it ends.
        assert each.pop("threads", []) == []
        assert each == {
            "largest": [2, 0],
            "all": index,
            "first": 10,
            "fails in all": [kind, "1 fails"],
            "fails in first": [kind, "0 fails"],
            "average": [[1.0], [0.0, 1.0, 2.0, 3.0]],
            "take over": [[0, 1, 2], 0.5, [0.0, 0.0]],
            "gathered": [[[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 2.0]]], False],
        }
        if index < 2:
            assert gone[0] == kind
            assert gone[1].startswith("one of the 3 processes of this training is gone (")
