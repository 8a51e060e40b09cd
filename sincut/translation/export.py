"""The generator as a file for other programs: an ONNX graph, or a program of ``torch.export``.

The graph does in one piece what ``sincut translate`` does in tiles::

    image       (batch, 3, height, width) float32, sRGB, 0 … 1; any batch, any size from 1×1 (with
                the border ``zero`` from one more than ``alignment``)
      →         extended as tiling.py says: by ``halo`` mirrored pixels on every side, and at the
                bottom and on the right up to a multiple of ``alignment``
      →         [-1, 1], the generator, back to 0 … 1, cropped, clamped
    translated  the same shape and range

A generator that normalises over the whole image does so over the image it is given. It brings its
own border: the image is extended at the bottom and on the right by its last row and column.

The decoder's noise is left out, or comes in beside the image: :func:`noise_inputs` makes what
``sincut translate --seed`` draws. An image too large for one piece is cut by the caller into
windows that start at multiples of ``alignment``; of their outputs the ``reach`` pixels at an edge
that is not the image's own are dropped.

A program of ``torch.export`` is made for a CPU: it names its device in the graph, so ``.to`` is not
enough, and ``torch.export.passes.move_to_device_pass`` brings it to another.

Beside graph and weights a file holds the header of the model file (names and digests of content and
style, the settings of the training), and nothing of this machine: PyTorch notes the path of a
source file at every operation, and those are taken out.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sincut.compute.public import public
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.files import check_file, check_free, write_atomically
from sincut.models.generator import Generator
from sincut.models.model_file import Model, load_model, model_file
from sincut.translation.tiles import translate_pixels
from sincut.translation.tiling import align_up
from sincut.translation.whole_image_norms import check_border
from sincut.version import __version__

Array = npt.NDArray[np.float32]
Runner = Callable[[dict[str, Array]], Array]

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2"}
NOISES = ("off", "input")
OPSET = 18  # of ONNX: what PyTorch's exporter writes without a conversion
METADATA_FILE = "sincut.json"  # the extra file of a .pt2

# What a graph may differ from sincut on the trial image: half a step of 8 bits.
_LARGEST_DIFFERENCE = 0.5 / 255
_TRIAL_SIZE = 37, 53  # odd, and not what the graph was traced with
_NO_LIMIT = 1 << 40
_SIDES = "height", "width"
# What PyTorch notes at a node for those who debug it: files and lines, classes.
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


@dataclass(frozen=True)
class Exported:
    """What was written.

    ``inputs`` and ``outputs`` have the shapes by name, in order; text stands for a side that is
    free. ``noise_sizes`` has the height and width that a noise input needs, as formulas of the
    image's; of a larger one the top left part is used. ``smallest_size`` is (height, width).
    ``halo`` is how many pixels are mirrored on each side inside the graph (none with the border
    ``zero``), ``reach`` how far away an input pixel can matter to an output pixel, beside the
    statistics of a generator that normalises. ``difference``
    is the largest between the file's output and sincut's on a trial image, white being 1; absent
    where nothing is installed that runs the file.
    """

    path: Path
    format: str
    noise: str
    border: str
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    noise_sizes: dict[str, tuple[str, str]]
    smallest_size: tuple[int, int]
    halo: int
    reach: int
    alignment: int
    bytes: int
    difference: float | None
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "path": str(self.path)}


class Translation(nn.Module):
    """A generator as the exported graph has it: from sRGB of 0 … 1 to the same.

    Everything that depends on the image's size is an index computed inside, so that one graph
    serves all sizes: padding and cropping by the size itself would have PyTorch ask for even sides.
    """

    def __init__(self, generator: Generator, border: str) -> None:
        super().__init__()
        self.generator = generator
        self.alignment = generator.alignment
        self.halo = _halo(generator, border)

    def forward(self, image: Tensor, *noise: Tensor) -> Tensor:
        """(N, 3, H, W) and the noise of :func:`noise_inputs`, or none of it → (N, 3, H, W)."""
        height, width = image.shape[-2:]
        rows, columns = self._extended(height), self._extended(width)
        source = _taken(image, self._mirrored(height, rows), self._mirrored(width, columns))
        levels = None
        if noise:
            levels = [
                _taken(each, torch.arange(rows // shrink), torch.arange(columns // shrink))
                for each, shrink in zip(noise, self.generator.noise_shrinks, strict=True)
            ]
        output = self.generator.generate(source * 2 - 1, levels)[0]
        inside = (torch.arange(self.halo, self.halo + side) for side in (height, width))
        return ((_taken(output, *inside) + 1) / 2).clamp(0, 1)

    def _extended(self, side: int) -> int:
        # Not align_up: PyTorch's symbolic sizes want the division as it will be simplified.
        steps = (side + self.alignment - 1) // self.alignment
        return steps * self.alignment + 2 * self.halo

    def _mirrored(self, side: int, extended: int) -> Tensor:
        """As :func:`sincut.translation.tiling.reflected`; or as :meth:`Generator.forward`."""
        places = torch.arange(-self.halo, extended - self.halo)
        if self.generator.normalises:
            return places.clamp(max=side - 1)
        longest = torch.sym_max(2 * (side - 1), 1)  # type: ignore[no-untyped-call]
        period = torch.full((1,), longest, dtype=torch.int64)
        places = torch.remainder(places, period)
        return torch.minimum(places, period - places)


@public
def export(
    model: Path | str,
    output: Path | str,
    *,
    format: str = "auto",
    noise: str = "off",
    border: str = "reflect",
    force: bool = False,
) -> Exported:
    """Write a trained generator as one file that runs without sincut.

    Args:
        model: a run folder or model file.
        output: ends with ``.onnx`` or ``.pt2``.
        format: ``onnx``, ``torch-export`` (a saved ``torch.export.ExportedProgram``), or ``auto``:
            what the ending of ``output`` says.
        noise: ``off`` leaves out the decoder's noise, which ``sincut translate`` adds; ``input``
            makes an input of it, one for each upsampling layer.
        border: what the network sees beyond the image: its mirror (``reflect``), or zeros as in
            the published code (``zero``).
        force: overwrite an existing ``output``.

    Raises:
        SincutError: an option, the model or the place is wrong, or a package is missing; or the
            graph, tried on an image, does not do what sincut does. Nothing is written then.
    """
    output = Path(output)
    format = _checked(output, format, noise, border)
    check_free(output, force=force, inputs=[model_file(Path(model))])
    if format == "onnx":
        _check_packages()
    trained, painted = _without_brushwork(Path(model))
    generator, translation = trained.generator, Translation(trained.generator, border).eval()
    if generator.normalises:
        check_border(border)
    sizes = _noise_sizes(generator, border) if noise == "input" else {}
    smallest = _smallest_side(generator, border)
    properties = {
        **_contract(translation, smallest),
        "noise": noise,
        "noise_sizes": {name: list(size) for name, size in sizes.items()},
        "border": border,
        "header": trained.header,
    }
    inputs = _inputs(generator, smallest, border)
    inputs = {name: each for name, each in inputs.items() if name == "image" or name in sizes}
    runner: Runner | None
    if format == "onnx":
        data = _as_onnx(translation, inputs, smallest, properties)
        runner = _onnx_runner(data)
    else:
        data = _as_program(translation, inputs, smallest, properties)
        runner = _program_runner(data)
    difference = None if runner is None else _difference(runner, generator, noise, border)
    if difference is not None and not difference <= _LARGEST_DIFFERENCE:
        raise SincutError(
            f"the exported graph does not do what sincut does: on a trial image they differ by "
            f"{difference:.2g} of 1; nothing is written; try the versions in constraints.txt"
        )
    with write_atomically(output) as file:
        file.write(data)
    return Exported(
        path=output,
        format=format,
        noise=noise,
        border=border,
        inputs={name: _shape(name) for name in inputs},
        outputs={"translated": _shape("image")},
        noise_sizes=sizes,
        smallest_size=(smallest, smallest),
        halo=translation.halo,
        reach=generator.halo,
        alignment=generator.alignment,
        bytes=len(data),
        difference=difference,
        notices=tuple(_notices(generator, noise, difference, painted=painted)),
    )


def _without_brushwork(path: Path) -> tuple[Model, bool]:
    """The model with its network alone, and whether it had brushwork."""
    trained = load_model(path)
    painted, trained.generator.brushwork = trained.generator.brushwork is not None, None
    return trained, painted


def _inputs(generator: Generator, smallest: int, border: str) -> dict[str, Tensor]:
    """An image to trace the graph with, and noise of its size."""
    height, width = smallest + 5, smallest + 7  # any that are not the smallest, nor alike
    noise = noise_inputs(generator, height, width, border=border)
    samples = {name: torch.from_numpy(sample) for name, sample in noise.items()}
    return {"image": torch.zeros(2, 3, height, width), **samples}


def _contract(translation: Translation, smallest: int) -> dict[str, Any]:
    """What the graph takes and gives, for whoever runs it."""
    return {
        "sincut_version": __version__,
        "image": "(batch, 3, height, width) float32, sRGB from 0 to 1",
        "translated": "the same shape and range",
        "smallest_size": [smallest, smallest],
        "halo": translation.halo,
        "reach": translation.generator.halo,
        "normalises": translation.generator.normalises,  # over the image it is given
        "alignment": translation.alignment,
    }


def noise_inputs(
    model: Path | str | Generator,
    height: int,
    width: int,
    seed: int = 0,
    *,
    top: int = 0,
    left: int = 0,
    border: str = "reflect",
) -> dict[str, Array]:
    """The noise that ``sincut translate --seed`` draws, as inputs of the exported file.

    Args:
        model: a run folder, a model file, or its generator.
        height, width: size of the image, or of a window of it, in pixels.
        seed: 0 … 2^63 − 1, as of ``sincut translate``.
        top, left: where the window starts in the image, multiples of the alignment.
        border: as the file was exported with.

    Returns:
        ``noise_0``, … → (1, 1, rows, columns) float32, for all images of a batch. With the border
        ``reflect`` they begin ``halo`` pixels above and to the left of the window.

    Raises:
        SincutError: a number is outside what is allowed.
    """
    generator = model if isinstance(model, Generator) else load_model(Path(model)).generator
    alignment, halo = generator.alignment, _halo(generator, border)
    TranslateConfig(seed=seed, border=border)  # which checks them
    for name, value in zip(_SIDES, (height, width), strict=True):
        if value < 1:
            raise SincutError(f"{name} must be at least 1 pixel, got {value}")
    for name, value in (("top", top), ("left", left)):
        if value % alignment:
            raise SincutError(
                f"{name} must be a multiple of {alignment}, got {value}; "
                f"try {value // alignment * alignment}"
            )
    rows, columns = (align_up(side, alignment) + 2 * halo for side in (height, width))
    noise = generator.position_noise(
        seed, top - halo, left - halo, rows, columns, torch.device("cpu")
    )
    return {f"noise_{level}": each.contiguous().numpy() for level, each in enumerate(noise)}


def _taken(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return image.index_select(2, rows).index_select(3, columns)


def _halo(generator: Generator, border: str) -> int:
    if generator.normalises:
        return 0
    return align_up(generator.halo, generator.alignment) if border == "reflect" else 0


def _smallest_side(generator: Generator, border: str) -> int:
    """Of the image. With zeros around it one pixel of features is too few: PyTorch takes a side of
    1 for one that never changes. One that normalises extends smaller sides by another rule."""
    if generator.normalises:
        return generator.extended(1)
    return 1 if _halo(generator, border) else generator.alignment + 1


def _noise_sizes(generator: Generator, border: str) -> dict[str, tuple[str, str]]:
    sizes, alignment = {}, generator.alignment
    for level, shrink in enumerate(generator.noise_shrinks):
        step, more = alignment // shrink, 2 * _halo(generator, border) // shrink
        rows, columns = (f"{step} * ceil({side} / {alignment}) + {more}" for side in _SIDES)
        sizes[f"noise_{level}"] = rows, columns
    return sizes


def _shape(name: str) -> tuple[int | str, ...]:
    if name == "image":
        return "batch", 3, *_SIDES
    return 1, 1, f"{name}_height", f"{name}_width"


def _checked(output: Path, format: str, noise: str, border: str) -> str:
    """The format, chosen by the ending where it is ``auto``."""
    check_file(output)  # first: of "." and "/" no ending can be told
    endings = ", ".join(ENDINGS.values())
    if format not in ("auto", *ENDINGS):
        raise SincutError(
            f"format must be one of auto, {', '.join(ENDINGS)}, got {format}; try --format onnx"
        )
    if noise not in NOISES:
        raise SincutError(
            f"noise must be one of {', '.join(NOISES)}, got {noise}; try --noise input"
        )
    TranslateConfig(border=border)  # which checks it
    by_ending = {ending: name for name, ending in ENDINGS.items()}
    found = by_ending.get(output.suffix.lower())
    if format == "auto" and found is None:
        raise SincutError(
            f"{output} has no ending of a format to export to; allowed: {endings}; "
            f"try {output.with_suffix('.onnx').name}"
        )
    chosen = found if format == "auto" else format
    assert chosen is not None
    if found != chosen:
        raise SincutError(
            f"a file of the format {chosen} must end with {ENDINGS[chosen]}, got {output}; "
            f"try {output.with_suffix(ENDINGS[chosen]).name}"
        )
    return chosen


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise SincutError(
            f"the format onnx needs {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed; try "
            "pip install 'sincut[export]' or --format torch-export"
        )


def _dynamic_shapes(inputs: dict[str, Tensor], smallest: int) -> dict[str, Any]:
    """The sides that are free, by the arguments of :class:`Translation`."""

    def free(name: str) -> dict[int, Any]:
        least = {side: smallest for side in _SIDES if smallest > 1}
        return {
            axis: torch.export.Dim(side, min=least.get(side))
            for axis, side in enumerate(_shape(name))
            if isinstance(side, str)
        }

    image, *noise = inputs
    return {"image": free(image)} | ({"noise": tuple(map(free, noise))} if noise else {})


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what PyTorch's exporters tell those who develop them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _as_onnx(
    translation: Translation, inputs: dict[str, Tensor], smallest: int, properties: dict[str, Any]
) -> bytes:
    with _silent():
        program = torch.onnx.export(
            translation,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["translated"],
            dynamic_shapes=_dynamic_shapes(inputs, smallest),
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        model: Any = program.model
        # Gains are folded into the weights, whatever their size: not every runtime does that, and
        # some take a convolution only with constant weights.
        optimizer = importlib.import_module("onnxscript.optimizer")
        optimizer.optimize(
            model,
            onnx_shape_inference=False,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
        )
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.name = "sincut"
    model.graph.metadata_props.clear()
    model.doc_string = "An image translation network, exported by sincut"
    model.metadata_props.clear()
    model.metadata_props.update(
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in properties.items()}
    )
    return bytes(program.model_proto.SerializeToString())


def _as_program(
    translation: Translation, inputs: dict[str, Tensor], smallest: int, properties: dict[str, Any]
) -> bytes:
    with _silent():
        program = torch.export.export(
            translation, tuple(inputs.values()), dynamic_shapes=_dynamic_shapes(inputs, smallest)
        )
        # In ATen's functional operations alone: others than PyTorch know no autocast regions.
        program = program.run_decompositions({})
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                for trace in _TRACES:
                    node.meta.pop(trace, None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(properties)})
    return buffer.getvalue()


def _onnx_runner(data: bytes) -> Runner | None:
    """Runs the file in ONNX Runtime on the CPU, where that is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Array]) -> Array:
        return np.asarray(session.run(None, inputs)[0])

    return run


def _program_runner(data: bytes) -> Runner:
    with _silent():
        module = torch.export.load(io.BytesIO(data)).module()

    def run(inputs: dict[str, Array]) -> Array:
        output: Tensor = module(*(torch.from_numpy(each) for each in inputs.values()))
        return output.numpy()

    return run


def _difference(runner: Runner, generator: Generator, noise: str, border: str) -> float:
    """The largest between the file's output and sincut's, on a random image; white is 1."""
    rgb = np.random.default_rng(0).random((*_TRIAL_SIZE, 3), np.float32)
    inputs = {"image": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])}
    if noise == "input":
        inputs |= noise_inputs(generator, *_TRIAL_SIZE, border=border)
    else:
        generator = _without_noise(generator)
    config = TranslateConfig(tile="whole", border=border, device="cpu", precision="fp32")
    expected = translate_pixels(generator, rgb, config)
    return float(np.abs(runner(inputs)[0].transpose(1, 2, 0) - expected).max())


def _without_noise(generator: Generator) -> Generator:
    silent = copy.deepcopy(generator)
    for weight in _noise_weights(silent):
        weight.zero_()
    return silent


def _noise_weights(generator: Generator) -> Sequence[Tensor]:
    return [p for name, p in generator.named_parameters() if name.endswith("noise_weight")]


def _notices(
    generator: Generator, noise: str, difference: float | None, *, painted: bool
) -> Iterator[str]:
    if painted:
        yield "it is the network alone: the brushwork that sincut translate adds is left out"
    if noise == "off" and any(float(weight) for weight in _noise_weights(generator)):
        yield "the noise that sincut translate adds is left out; --noise input makes it an input"
    if generator.normalises:
        yield "it normalises over the image it is given: windows of one would differ from it"
    if difference is None:
        yield "the file was not tried: onnxruntime is not installed"
