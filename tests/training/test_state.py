"""Model files and training states: round trips, and files that are broken, changed or foreign."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sincut.config.training import PairConfig
from sincut.errors import SincutError
from sincut.models.model_file import load_model, load_tensors, save_model
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.training.state import initial_state, restored_state, save_state

MODEL_HINT = "give a model.safetensors that sincut wrote; for a latest_net_G.pth try sincut import"


def header_of(path: Path) -> dict[str, Any]:
    """The JSON at the start of a safetensors file, read without any library."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    result: dict[str, Any] = json.loads(data[8 : 8 + length])
    return result


@pytest.fixture
def model(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a model file, to be broken."""
    path = tmp_path / "model.safetensors"
    path.write_bytes((tiny_run / "model.safetensors").read_bytes())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SincutError) as caught:
        load_model(path)
    return str(caught.value)


def test_a_model_file_describes_itself(model: Path, pair: tuple[Path, Path]) -> None:
    header = json.loads(header_of(model)["__metadata__"]["header"])
    assert header["step"] == 6
    assert PairConfig.from_dict(header["config"]).channels == 4
    assert header["content"]["name"] == "content.png"
    assert (header["content"]["width"], header["content"]["height"]) == (160, 128)
    assert len(header["style"]["sha256"]) == 64
    assert header["sincut_version"]
    loaded = load_model(model)
    assert loaded.projector is not None
    assert loaded.projector.heads[0][0].weight.shape == (16, 3)
    assert (loaded.generator.channels, loaded.generator.blocks) == (4, 6)


def test_generator_survives_the_file(tmp_path: Path) -> None:
    generator = StyleGAN2Generator(3, blocks=2, downsamplings=2)
    save_model(tmp_path / "m.safetensors", generator, None, {})
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.projector is None
    for name, value in generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], value)


def test_state_survives_the_file(tiny_run: Path, tmp_path: Path) -> None:
    tensors, header = load_tensors(tiny_run / "state.safetensors", "sincut-state")
    config = PairConfig.from_dict(header["config"])
    state = restored_state(tensors, header["step"], config)
    assert state.step == 6
    save_state(tmp_path / "again", state, {"config": config.to_dict()})
    before, after = (load_file(p) for p in (tiny_run / "state.safetensors", tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Adam's moments of all three networks are there, and they are not what a new one starts from.
    fresh = initial_state(config)
    for name, optimizer in state.optimizers.items():
        assert len(optimizer.state) == len(list(fresh.networks()[name].parameters()))
        assert any(moments["exp_avg_sq"].abs().max() > 0 for moments in optimizer.state.values())


def test_truncated(model: Path) -> None:
    data = model.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        model.write_bytes(data[:length])
        text = refusal(model)
        assert text.startswith(f"{model} is not a readable safetensors file (")
        assert text.endswith(f"); {MODEL_HINT}")


def test_changed_tensor(model: Path) -> None:
    data = bytearray(model.read_bytes())
    data[-3] ^= 1
    model.write_bytes(bytes(data))
    assert refusal(model) == (
        f"{model} was changed or damaged: its checksum does not match; {MODEL_HINT}"
    )


def test_changed_header(model: Path) -> None:
    tensors = load_file(model)
    metadata = header_of(model)["__metadata__"]
    header = json.loads(metadata["header"])
    header["config"]["patches"] = 999
    for broken in ({"header": json.dumps(header)}, {"header": ""}, {"sha256": "0" * 64}):
        save_file(tensors, model, {**metadata, **broken})
        assert "its checksum does not match" in refusal(model)
    save_file(tensors, model, {k: v for k, v in metadata.items() if k != "sha256"})
    assert "its checksum does not match" in refusal(model)
    save_file(tensors, model, metadata)
    load_model(model)


def test_foreign_safetensors(model: Path) -> None:
    save_file({"weight": torch.zeros(3)}, model)
    assert refusal(model) == (
        f"{model} is of another kind: format must be sincut-model, got none; {MODEL_HINT}"
    )


def test_state_given_as_a_model(tiny_run: Path) -> None:
    path = tiny_run / "state.safetensors"
    assert refusal(path) == (
        f"{path} is of another kind: format must be sincut-model, got sincut-state; {MODEL_HINT}"
    )


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} does not exist or is not a file; {MODEL_HINT}"
    )
    assert refusal(tmp_path) == (
        f"{tmp_path} is not a run: it has no model.safetensors; give a run folder or a model file"
    )


def test_no_pickle_is_ever_written(tiny_run: Path) -> None:
    for path in tiny_run.rglob("*"):
        texts = ("", ".json", ".jsonl", ".html", ".js", ".md")
        assert path.suffix in (".safetensors", ".png", *texts)
