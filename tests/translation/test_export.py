"""Exported files give sincut's own image, at every size, with and without the noise."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch.export.passes import move_to_device_pass

import sincut.translation.export as exporting
from sincut.cli import main
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.models.generator import Generator
from sincut.models.model_file import load_model, save_model
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator
from sincut.translation.export import Exported, export, noise_inputs
from sincut.translation.tiles import translate_pixels
from sincut.version import __version__
from tests.translation.test_whole_image_norms import trained_like

# Height and width: odd, even, long, smaller than the halo, a single pixel.
SIZES = [(47, 61), (96, 128), (150, 33), (5, 5), (3, 2), (1, 1)]

Runner = Callable[[dict[str, np.ndarray]], np.ndarray]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


def noisy(generator: Generator) -> Generator:
    """With noise and biases that show in the image."""
    torch.manual_seed(2)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_weight"):
            parameter.fill_(0.4)
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return generator.eval()


def run(*arguments: Any) -> Result:
    """The command, as ``sincut export`` calls it."""
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def message(*arguments: Any, call: Any = export, **options: Any) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments, **options)
    return str(error.value)


def images(*rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 as a batch for the exported graph."""
    return np.stack([each.transpose(2, 0, 1) / np.float32(255) for each in rgb]).astype(np.float32)


def pixels(output: np.ndarray) -> np.ndarray:
    """A batch from the exported graph as (N, H, W, 3), rounded to 8 bits, as integers."""
    assert output.dtype == np.float32
    assert output.min() >= 0
    assert output.max() <= 1
    return np.rint(output.transpose(0, 2, 3, 1) * 255).astype(int)


def run_onnx(path: Path) -> Runner:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return lambda inputs: session.run(["translated"], inputs)[0]


@dataclass
class Case:
    """An exported file, the model it came from, and what the command or function said of it."""

    model: Path
    path: Path
    border: str
    said: Any

    @cached_property
    def generator(self) -> Generator:
        """As sincut has it."""
        return load_model(self.model).generator

    @cached_property
    def _program(self) -> tuple[Any, dict[str, Any]]:
        kept = {"sincut.json": ""}
        program = torch.export.load(self.path, extra_files=kept)
        return program.module(), json.loads(kept["sincut.json"])

    @cached_property
    def run(self) -> Runner:
        """Runs the file without sincut."""
        if self.path.suffix == ".onnx":
            return run_onnx(self.path)
        return lambda inputs: self._program[0](*map(torch.from_numpy, inputs.values())).numpy()

    @cached_property
    def properties(self) -> dict[str, Any]:
        """What the file says of itself, read as somebody without sincut would."""
        if self.path.suffix == ".pt2":
            return self._program[1]
        onnx = pytest.importorskip("onnx")
        texts = {entry.key: entry.value for entry in onnx.load(self.path).metadata_props}
        words = ("sincut_version", "image", "translated", "noise", "border")
        return {k: v if k in words else json.loads(v) for k, v in texts.items()}

    @property
    def has_noise(self) -> bool:
        """Whether noise is an input."""
        return bool(self.properties["noise"] == "input")


@pytest.fixture(scope="module")
def corrected(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the header of a run, a correction of an affine map, and noise that shows."""
    torch.manual_seed(4)
    generator = noisy(ColourCorrectingGenerator(4, 2).requires_grad_(False))
    path = tmp_path_factory.mktemp("models") / "corrected.safetensors"
    save_model(path, generator, None, load_model(tiny_run).header)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as ``sincut import`` writes it."""
    torch.manual_seed(1)
    generator = noisy(StyleGAN2Generator(4, blocks=2).requires_grad_(False))
    path = tmp_path_factory.mktemp("models") / "plain.safetensors"
    save_model(path, generator, None, {"origin": "imported from latest_net_G.pth"})
    return path


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two downsamplings, and so with noise of two sizes, and correction."""
    torch.manual_seed(3)
    generator = noisy(ColourCorrectingGenerator(4, 2, downsamplings=2).requires_grad_(False))
    path = tmp_path_factory.mktemp("models") / "deep.safetensors"
    save_model(path, generator, None, {"config": {"downsamplings": 2}})
    return path


@pytest.fixture(scope="module")
def onnx_with_noise(corrected: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    said = run(corrected, "-o", path, "--noise=input", "--json")
    assert said.exit_code == 0, said.output
    return Case(corrected, path, "reflect", said)


@pytest.fixture(scope="module")
def onnx_without(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return Case(plain, path, "reflect", export(str(plain), str(path)))


@pytest.fixture(scope="module")
def program(deep: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    said = run(deep, "-o", path, "--format=torch-export", "--noise=input", "--border=zero")
    assert said.exit_code == 0, said.output
    return Case(deep, path, "zero", said)


ALL = ["onnx_with_noise", "onnx_without", "program"]


@pytest.fixture(scope="module", params=ALL)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


def given(case: Case, rgb: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What the exported file is to be run with."""
    inputs = {"image": images(rgb)}
    if case.has_noise:
        inputs |= noise_inputs(case.model, *rgb.shape[:2], seed, border=case.border)
    return inputs


def expected(case: Case, rgb: np.ndarray, seed: int) -> np.ndarray:
    """What sincut makes of an image: in tiles, where it is larger than one."""
    generator = load_model(case.model).generator
    if not case.has_noise:
        for layer in generator.upsampling:
            layer.noise_weight.zero_()
    config = TranslateConfig(seed=seed, border=case.border, tile="64", device="cpu")
    return translate_pixels(generator, rgb, config).astype(int)


def test_every_size_gives_the_translated_image(case: Case) -> None:
    runner = case.run
    for size in SIZES:
        if min(size) < case.properties["smallest_size"][0]:
            continue
        rgb = picture(*size)
        wanted = expected(case, rgb, seed=7)
        got = pixels(runner(given(case, rgb, seed=7)))[0]
        assert np.abs(got - wanted).max() <= 1, size
        assert (got != wanted).mean() < 0.01


def test_the_noise_matters_and_its_seed(case: Case) -> None:
    """The comparison above would fail had the noise been ignored, or left in."""
    rgb = picture(47, 61)
    runner = case.run
    other = pixels(runner(given(case, rgb, seed=8)))[0]
    difference = np.abs(other - expected(case, rgb, seed=7)).max()
    assert difference > 20 if case.has_noise else difference <= 1
    noise_as_drawn = translate_pixels(case.generator, rgb, TranslateConfig(border=case.border))
    silent = expected(case, rgb, 0) if not case.has_noise else other
    assert np.abs(noise_as_drawn.astype(int) - silent).max() > 20


def test_a_batch(case: Case) -> None:
    first, second = picture(18, 21), picture(21, 18).transpose(1, 0, 2)
    inputs = given(case, first, seed=1)
    inputs["image"] = images(first, second)
    got = pixels(case.run(inputs))
    for index, rgb in enumerate((first, second)):
        assert np.abs(got[index] - expected(case, rgb, seed=1)).max() <= 1


def test_a_program_moves_to_another_device(program: Case) -> None:
    """By PyTorch's own pass; ``meta`` is a device that every machine has."""
    moved = move_to_device_pass(torch.export.load(program.path), "meta")
    rgb = torch.from_numpy(images(picture(20, 30))).to("meta")
    noise = noise_inputs(program.generator, 20, 30, border=program.border).values()
    output = moved.module()(rgb, *(torch.from_numpy(each).to("meta") for each in noise))
    assert (output.device.type, output.shape) == ("meta", (1, 3, 20, 30))


def test_larger_noise_serves_smaller_images(onnx_with_noise: Case) -> None:
    rgb = picture(20, 30)
    runner = onnx_with_noise.run
    inputs = given(onnx_with_noise, rgb, seed=3)
    larger = noise_inputs(onnx_with_noise.generator, 64, 80, 3)
    assert larger["noise_0"].shape > inputs["noise_0"].shape
    np.testing.assert_array_equal(runner(inputs), runner({"image": inputs["image"], **larger}))


def test_windows_joined_as_documented(onnx_with_noise: Case) -> None:
    """Two windows of an image, cut at the distance that the file tells, give the whole."""
    told = onnx_with_noise.properties
    rgb, seam = picture(40, 160), 80
    runner = onnx_with_noise.run
    whole = runner(given(onnx_with_noise, rgb, seed=0))
    parts = []
    reach = told["reach"]
    start = seam - reach - reach % told["alignment"]
    for first, last, keep in ((0, seam + reach, slice(0, seam)), (start, 160, slice(seam, None))):
        assert first % told["alignment"] == 0
        noise = noise_inputs(onnx_with_noise.model, 40, last - first, left=first)
        part = runner({"image": images(rgb[:, first:last]), **noise})
        parts.append(part[..., max(keep.start - first, 0) : (keep.stop or last) - first])
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), whole, atol=1e-5)


def test_noise_is_that_of_the_image_with_its_border(onnx_with_noise: Case) -> None:
    generator = onnx_with_noise.generator
    assert (generator.halo, generator.alignment) == (15, 2)
    (name, noise), = noise_inputs(generator, 47, 61, 5).items()  # fmt: skip
    wanted = generator.position_noise(5, -16, -16, 48 + 32, 62 + 32, torch.device("cpu"))[0]
    assert (name, noise.dtype) == ("noise_0", np.float32)
    np.testing.assert_array_equal(noise, wanted.numpy())
    window = noise_inputs(generator, 20, 20, 5, top=10, left=20)["noise_0"]
    np.testing.assert_array_equal(window, noise[:, :, 10 : 10 + 52, 20 : 20 + 52])


def test_noise_sizes_are_told_as_formulas(case: Case) -> None:
    sizes = case.properties["noise_sizes"]
    assert list(sizes) == ([f"noise_{i}" for i in range(case.generator.downsamplings)]
                           if case.has_noise else [])  # fmt: skip
    for height, width in ((47, 61), (96, 127), (1, 2)):
        noise = noise_inputs(case.generator, height, width, border=case.border)
        names = {"height": height, "width": width, "ceil": math.ceil}
        for name, size in sizes.items():
            assert noise[name].shape[2:] == tuple(eval(each, names) for each in size)


def test_what_is_in_the_files(case: Case) -> None:
    told, header = case.properties, load_model(case.model).header
    assert told["header"] == header
    assert told["sincut_version"] == __version__
    assert told["image"] == "(batch, 3, height, width) float32, sRGB from 0 to 1"
    assert told["smallest_size"] == [{"reflect": 1, "zero": 5}[case.border]] * 2
    assert told["translated"] == "the same shape and range"
    halo = {"reflect": -(-case.generator.halo // case.generator.alignment), "zero": 0}[case.border]
    assert told["halo"] == halo * case.generator.alignment
    assert (told["reach"], told["alignment"]) == (case.generator.halo, case.generator.alignment)
    assert told["border"] == case.border


def test_nothing_of_this_machine_is_in_the_files(case: Case) -> None:
    data = case.path.read_bytes()
    if case.path.suffix == ".pt2":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = b"".join(archive.read(name) for name in archive.namelist())
    for trace in (str(Path(exporting.__file__).parent), str(Path.home()), "generator.py"):
        assert trace.encode() not in data


def test_the_onnx_graph(onnx_with_noise: Case) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_with_noise.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    sides = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert sides == {
        "image": ["batch", 3, "height", "width"],
        "noise_0": [1, 1, "noise_0_height", "noise_0_width"],
        "translated": ["batch", 3, "height", "width"],
    }
    assert model.functions == []
    constants = {tensor.name for tensor in model.graph.initializer}
    weights = [node.input[1] for node in model.graph.node if node.op_type.startswith("Conv")]
    assert len(weights) > 10
    assert set(weights) <= constants
    assert {tensor.data_location for tensor in model.graph.initializer} == {
        onnx.TensorProto.DEFAULT
    }


def test_json(onnx_with_noise: Case) -> None:
    assert onnx_with_noise.said.stderr == ""
    told = json.loads(onnx_with_noise.said.stdout)
    assert 0 <= told.pop("difference") < 1e-5
    assert told == {
        "path": str(onnx_with_noise.path),
        "format": "onnx",
        "noise": "input",
        "border": "reflect",
        "inputs": {
            "image": ["batch", 3, "height", "width"],
            "noise_0": [1, 1, "noise_0_height", "noise_0_width"],
        },
        "outputs": {"translated": ["batch", 3, "height", "width"]},
        "noise_sizes": {"noise_0": ["2 * ceil(height / 2) + 32", "2 * ceil(width / 2) + 32"]},
        "smallest_size": [1, 1],
        "halo": 16,
        "reach": 15,
        "alignment": 2,
        "bytes": onnx_with_noise.path.stat().st_size,
        "notices": [],
    }


def test_lines_for_people(program: Case) -> None:
    lines = program.said.stdout.splitlines()
    megabytes = program.path.stat().st_size / 1e6
    assert lines[:-1] == [
        f"{program.path}: torch-export, {megabytes:.1f} MB",
        "  input image: float32 (batch, 3, height, width), sRGB from 0 to 1",
        "  input noise_0: float32 (1, 1, noise_0_height, noise_0_width), "
        "at least 2 * ceil(height / 4) + 0 × 2 * ceil(width / 4) + 0",
        "  input noise_1: float32 (1, 1, noise_1_height, noise_1_width), "
        "at least 4 * ceil(height / 4) + 0 × 4 * ceil(width / 4) + 0",
        "  output translated: float32 (batch, 3, height, width), sRGB from 0 to 1",
        "  any size from 5×5; beyond the image the network sees zeros",
    ]
    assert lines[-1].startswith("  on a trial image it differs from sincut by ")
    assert program.said.stderr == ""


def test_the_record(onnx_without: Case) -> None:
    said: Exported = onnx_without.said
    assert (said.path, said.format, said.noise) == (onnx_without.path, "onnx", "off")
    assert said.inputs == {"image": ("batch", 3, "height", "width")}
    assert said.noise_sizes == {}
    assert said.notices == (
        "the noise that sincut translate adds is left out; --noise input makes it an input",
    )


def test_a_graph_that_differs_is_not_written(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(data: bytes) -> Runner:
        return lambda inputs: np.zeros_like(inputs["image"])

    monkeypatch.setattr(exporting, "_as_program", lambda *_: b"a graph")
    monkeypatch.setattr(exporting, "_program_runner", wrong)
    (tmp_path / "old.pt2").write_bytes(b"old")
    assert message(plain, tmp_path / "old.pt2", force=True) == (
        "the exported graph does not do what sincut does: on a trial image they differ by 0.9 "
        "of 1; nothing is written; try the versions in constraints.txt"
    )
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_without_onnxruntime_the_file_is_written_untried(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_check_packages", lambda: None)
    monkeypatch.setattr(exporting, "_as_onnx", lambda *_: b"a graph")
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    said = export(plain, tmp_path / "model.onnx", noise="input")
    assert (said.difference, said.notices) == (
        None,
        ("the file was not tried: onnxruntime is not installed",),
    )
    assert (tmp_path / "model.onnx").read_bytes() == b"a graph"
    told = run(plain, "-o", tmp_path / "model.onnx", "--force")
    assert told.stdout.splitlines() == [
        f"{tmp_path}/model.onnx: onnx, 0.0 MB",
        "  input image: float32 (batch, 3, height, width), sRGB from 0 to 1",
        "  output translated: float32 (batch, 3, height, width), sRGB from 0 to 1",
        "  any size from 1×1; beyond the image the network sees 14 mirrored pixels",
    ]
    assert told.stderr == (
        f"Note on {tmp_path}/model.onnx: the noise that sincut translate adds is left out; "
        "--noise input makes it an input.\n"
        f"Note on {tmp_path}/model.onnx: the file was not tried: onnxruntime is not installed.\n"
    )
    assert run(plain, "-o", tmp_path / "model.onnx", "--force", "--quiet").output == ""


def test_missing_packages(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name: "here" if name in there else None
    )
    assert message(tiny_run, tmp_path / "a.onnx") == (
        "the format onnx needs onnx and onnxscript, which are not installed; "
        "try pip install 'sincut[export]' or --format torch-export"
    )
    there.add("onnx")
    assert message(tiny_run, tmp_path / "a.onnx") == (
        "the format onnx needs onnxscript, which is not installed; "
        "try pip install 'sincut[export]' or --format torch-export"
    )


def test_refused_before_the_work(tiny_run: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.onnx"
    there.write_bytes(b"kept")
    assert message(tiny_run, there) == f"{there} exists already; try --force or another -o"
    assert message(tiny_run, tmp_path / "a.pt") == (
        f"{tmp_path}/a.pt has no ending of a format to export to; allowed: .onnx, .pt2; try a.onnx"
    )
    assert message(tiny_run, tmp_path / "a.onnx", format="torch-export") == (
        f"a file of the format torch-export must end with .pt2, got {tmp_path}/a.onnx; try a.pt2"
    )
    assert message(tiny_run, tmp_path / "a", format="onnx") == (
        f"a file of the format onnx must end with .onnx, got {tmp_path}/a; try a.onnx"
    )
    assert message(tiny_run, there, format="tflite") == (
        "format must be one of auto, onnx, torch-export, got tflite; try --format onnx"
    )
    assert message(tiny_run, there, noise="on") == (
        "noise must be one of off, input, got on; try --noise input"
    )
    assert message(tiny_run, there, border="wrap").startswith(
        "border must be one of reflect, zero, got wrap"
    )
    assert message(tiny_run, tmp_path / "none" / "a.onnx") == (
        f"the folder {tmp_path}/none does not exist; create it first"
    )
    (tmp_path / "folder.onnx").mkdir()
    assert message(tiny_run, tmp_path / "folder.onnx") == (
        f"{tmp_path}/folder.onnx is a folder, not a file; give a file name for the output"
    )
    assert message(tiny_run, ".").startswith(". is a folder, not a file; ")
    model = tmp_path / "model.pt2"
    model.write_bytes((tiny_run / "model.safetensors").read_bytes())
    assert message(model, model, force=True) == f"{model} is an input; give another -o"
    assert message(tmp_path, tmp_path / "a.onnx") == (
        f"{tmp_path} is not a run: it has no model.safetensors; give a run folder or a model file"
    )
    assert there.read_bytes() == b"kept"


def test_refused_noise(plain: Path, deep: Path) -> None:
    assert message(plain, 0, 5, call=noise_inputs) == "height must be at least 1 pixel, got 0"
    assert message(plain, 5, -1, call=noise_inputs) == "width must be at least 1 pixel, got -1"
    assert message(deep, 5, 5, top=6, call=noise_inputs) == (
        "top must be a multiple of 4, got 6; try 4"
    )
    assert "seed" in message(plain, 5, 5, -1, call=noise_inputs)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_network_that_normalises_does_so_over_the_image_it_is_given(
    ending: str, tmp_path: Path
) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    model, path = tmp_path / "model.safetensors", tmp_path / f"out{ending}"
    save_model(model, trained_like(), None, {"config": {}, "step": 0})
    case = Case(model, path, "reflect", export(model, path))
    assert case.properties["normalises"] is True
    assert (case.said.halo, case.said.smallest_size) == (0, (8, 8))
    assert case.said.notices == (
        "it normalises over the image it is given: windows of one would differ from it",
    )
    for size in ((8, 8), (9, 31), (50, 33)):
        rgb = picture(*size)
        expected = translate_pixels(case.generator, rgb, TranslateConfig()).astype(int)
        got = pixels(case.run({"image": images(rgb, rgb[::-1])}))
        assert np.abs(got[0] - expected).max() <= 1
    assert message(model, tmp_path / f"b{ending}", border="zero") == (
        "a network that normalises over the whole image brings its own border: border must be "
        "reflect, got zero; try it without"
    )
