"""Import of the authors' generators. That they compute the same is in test_golden.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sincut import load_generator
from sincut.cli import main
from sincut.errors import SincutError
from sincut.models.model_file import load_model
from sincut.models.published import (
    generator_from_published,
    published_name,
    published_resnet_name,
    read_published,
)
from sincut.models.resnet import ResnetGenerator
from sincut.models.stylegan2 import StyleGAN2Generator

GOLDEN = Path(__file__).parents[1] / "reference/sincut_reference_small.npz"


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as file:
        return {k[2:]: torch.from_numpy(file[k]) for k in file.files if k.startswith("G.")}


def test_import_command(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "latest_net_G.pth")
    arguments = [
        "import",
        str(tmp_path / "latest_net_G.pth"),
        "-o",
        str(tmp_path / "m.safetensors"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "m.safetensors")
    assert (model.generator.channels, model.generator.blocks, model.generator.downsamplings) == (
        8,
        6,
        1,
    )
    assert model.projector is None
    assert model.header["origin"] == "imported from latest_net_G.pth"
    image = torch.rand(1, 3, 20, 20)
    expected = generator_from_published(weights)(image)
    assert torch.equal(load_generator(tmp_path / "m.safetensors")(image), expected)

    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert again.stderr == (
        f"Error: {tmp_path / 'm.safetensors'} exists already; try --force or another -o\n"
    )
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0


@pytest.mark.parametrize(("blocks", "downsamplings"), [(2, 1), (6, 1), (4, 2), (6, 3)])
def test_every_structure_is_recognised(blocks: int, downsamplings: int) -> None:
    ours = StyleGAN2Generator(2, blocks, downsamplings)
    torch.nn.init.normal_(ours.to_rgb.bias)
    foreign = {
        published_name(name, blocks // 2, downsamplings): value
        for name, value in ours.state_dict().items()
    }
    foreign["encoder.convs.2.conv2.0.kernel"] = torch.zeros(4, 4)  # a blur, constant
    read = generator_from_published(foreign)
    assert (read.blocks, read.downsamplings) == (blocks, downsamplings)
    for name, value in ours.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)


@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize("blur_down", [True, False])
@pytest.mark.parametrize("blur_up", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_resnet_is_recognised(
    blocks: int, blur_down: bool, blur_up: bool, prefix: str
) -> None:
    """Also those saved on a CPU, with biases before norms and constant blurs."""
    ours = ResnetGenerator(2, blocks, blur_down=blur_down, blur_up=blur_up)
    foreign = {
        prefix + published_resnet_name(name, ours): value
        for name, value in ours.state_dict().items()
    }
    for name in [name for name in foreign if name.endswith("weight")]:
        foreign.setdefault(name.replace("weight", "bias"), torch.ones(2))
    if blur_down:
        foreign[f"{prefix}model.7.filt"] = torch.zeros(4, 1, 3, 3)
    read = generator_from_published(foreign)
    assert read.arguments == ours.arguments
    for name, value in ours.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latest_net_G.pth"
    expected = (
        f"{path} is not a file of PyTorch weights alone; give the latest_net_G.pth that the "
        "authors' code saved"
    )
    torch.save({"encoder.convs.1.0.weight": Evil()}, path)
    contents = [path.read_bytes(), pickle.dumps(Evil()), b"", b"text", path.read_bytes()[:200]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(SincutError) as caught:
            read_published(path)
        assert str(caught.value) == expected
    assert "code ran" not in capsys.readouterr().out


def test_weights_of_other_networks(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "latest_net_G.pth"
    expected = (
        f"{path} is not a generator of the authors' code: neither of its single-image model "
        "(StyleGAN2 encoder and decoder) nor of CUT or FastCUT (ResNet with instance norm); give "
        "the latest_net_G.pth of a run with --model sincut or cut"
    )
    first = "encoder.convs.1.0.weight"
    others: list[Any] = [
        {"model.1.weight": torch.zeros(64, 3, 7, 7)},  # a ResNet's first layer alone
        torch.zeros(3),
        {first: weights[first]},
        {k: v for k, v in weights.items() if "noise" not in k},
        {**weights, "decoder.convs.9.weight": torch.zeros(1)},
        {**weights, "encoder.convs.3.conv1.0.weight": torch.zeros(2, 2)},
        {**weights, first: 3},
    ]
    for other in others:
        torch.save(other, path)
        with pytest.raises(SincutError) as caught:
            read_published(path)
        assert str(caught.value) == expected
    with pytest.raises(SincutError) as caught:
        read_published(tmp_path / "none.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'none.pth'} does not exist or is not a file; give a latest_net_G.pth"
    )
