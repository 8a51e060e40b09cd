"""Kernels compiled ahead of time: registers, spills, shared memory, matrix instructions.

No GPU is needed: Triton compiles for a named target and its bundled ``ptxas`` reports.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from sincut.kernels import bias_act, blur
from sincut.kernels.crops import BLOCK_COLUMNS, BLOCK_ROWS, gather
from sincut.kernels.patch_nce import (
    CONFIGURATIONS,
    MAX_SPLITS,
    MAX_WIDTH,
    PREPARE_ROWS,
    Configuration,
    attend,
    finish_key,
    finish_query,
    prepare,
)
from sincut.kernels.philox import BLOCK, ROUNDS, generate

# Shared memory a block may ask for, in bytes (CUDA programming guide, compute capabilities).
SHARED_LIMIT = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
MODES = ("static", "online", "key")

# Which table of configurations each target uses.
TARGETS = {90: 90, 80: 80, 89: 80, 100: 80, 120: 80}

_TYPES = {
    **dict.fromkeys(("count", "size", "width", "splits"), "i32"),
    "planes_ptr": "*u8",
    **dict.fromkeys(("copies_ptr", "places_ptr"), "*i64"),
    "scales_ptr": "*fp64",
    **dict.fromkeys(("height", "width", "out_height", "out_width", "padding"), "i32"),
    **dict.fromkeys(("pixels", "noise_pixels", "units", "rounds"), "i32"),
    "counter_ptr": "*i32",
    "first_row_ptr": "*i64",
    **dict.fromkeys(("columns", "first_column", "stream", "salt", "low_key", "high_key"), "i32"),
}


# What the kernels of the layers can do besides, and the arguments that are None where they do not.
_PARTS: dict[Any, dict[str, tuple[str, ...]]] = {
    bias_act.add_and_activate: {
        "WITH_NOISE": ("noise_ptr", "strength_ptr"),
        "WITH_RESIDUAL": ("residual_ptr",),
        "WITH_SIGNS": ("signs_ptr",),
    },
    bias_act.mask_and_sum: {
        "WITH_NOISE": ("noise_ptr", "noise_sums_ptr"),
        "WITH_RESIDUAL": ("residual_ptr",),
        "WITH_SUMS": ("parts_ptr", "bias_sum_ptr", "counter_ptr"),
    },
}


def table(targets: Sequence[int] = tuple(TARGETS)) -> list[dict[str, Any]]:
    """Every shipped configuration, in every mode it is launched in, for every target."""
    rows = []
    for target in targets:
        capability = TARGETS[target]
        for chosen in CONFIGURATIONS[capability]:
            rows += [
                of_configuration(chosen, mode, even, target)
                for mode in MODES
                for even in (True, False)
            ]
        rows += [
            of_rows(kernel, count, target)
            for kernel in (prepare, finish_query, finish_key)
            for count in (None, 1)
        ]
        rows += [
            of_rows(kernel, None, target, epsilon=False) for kernel in (finish_query, finish_key)
        ]
        blocks = {"ROWS": BLOCK_ROWS, "COLUMNS": BLOCK_COLUMNS}
        rows.append(compiled("gather crops", gather, blocks, target))
        for name, result in (("random words", "*i64"), ("normal numbers", "*fp32")):
            constants = {"SIZE": BLOCK, "ROUNDS": ROUNDS, "NORMAL": result == "*fp32"}
            types = {"result_ptr": result}
            rows.append(compiled(name, generate, constants, target, types=types))
        rows += of_layers(target)
    return rows


def of_configuration(chosen: Configuration, mode: str, even: bool, target: int) -> dict[str, Any]:
    """*attend* as it is launched for queries (static or online maximum) or for keys.

    ``even``: blocks and rows are whole tiles.
    """
    constants = {
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
        "WIDTH": MAX_WIDTH,
        "PARTS": chosen.parts,
        "ONLINE": mode == "online",
        "FOR_KEY": mode == "key",
        "EVEN": even,
        "INTERPRETED": False,
    }
    name = f"attend {chosen.rows}×{chosen.columns} parts={chosen.parts} {mode}{' even' * even}"
    return compiled(name, attend, constants, target, warps=chosen.warps, stages=chosen.stages)


def of_layers(target: int) -> list[dict[str, Any]]:
    """What goes with the convolutions: the blur, and bias, noise, activation and residual sum, all
    of these or none but bias and activation."""
    rows = []
    for image in ("*bf16", "*fp32"):
        types = dict.fromkeys(("image_ptr", "out_ptr", "slope_ptr"), image)
        types |= dict.fromkeys(("result_ptr", "residual_ptr"), image) | {"signs_ptr": "*u8"}
        for how, stride, up in (("", 1, False), (" stride 2", 2, False), (" transposed", 2, True)):
            constants = {"UNIT": 8, "STRIDE": stride, "UP": up, "BLOCK": blur.BLOCK}
            constants["ROWS"] = 1 if up else blur.ROWS
            name = f"blur{how} {image[1:]}"
            rows.append(compiled(name, blur.filter_rows, constants, target, types=types))
        for kernel, parts in _PARTS.items():
            for bare in (False, True):
                constants = {
                    "UNIT": 8, "SLOPE": bias_act.SLOPE, "ROWS": bias_act.ROWS,
                    "WIDTH": bias_act.WIDTH, "INTERPRETED": False,
                }  # fmt: skip
                constants |= dict.fromkeys(parts, not bare)
                if kernel is bias_act.mask_and_sum:
                    constants["SUMMED"] = bias_act.SUMMED
                if bare:
                    constants |= dict.fromkeys(itertools.chain(*parts.values()))
                name = f"{kernel.fn.__name__} {image[1:]}{' bare' * bare}"
                rows.append(compiled(name, kernel, constants, target, types=types))
    return rows


def of_rows(kernel: Any, count: int | None, target: int, *, epsilon: bool = True) -> dict[str, Any]:
    """The kernels that go over the rows once and multiply no matrices.

    Triton makes an argument that is 1 a constant, so one row is a kernel of its own.
    """
    constants: dict[str, Any] = {"ROWS": PREPARE_ROWS, "WIDTH": MAX_WIDTH}
    constants |= (
        {"PARTS": 2, "INTERPRETED": False}
        if kernel is prepare
        else {"SPLITS": MAX_SPLITS, "LENGTHENED": epsilon}
    )
    name = kernel.fn.__name__
    if not epsilon:
        name = f"{name} without epsilon"
    if count is not None:
        constants["count"] = count
        name = f"{name} count={count}"
    return compiled(name, kernel, constants, target)


def compiled(
    name: str,
    kernel: Any,
    constants: dict[str, Any],
    target: int,
    *,
    warps: int = 4,
    stages: int = 3,
    types: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Compile a kernel for a target (80, 89, 90) and read what ptxas says of it.

    ``types`` are those of arguments whose names do not tell.
    """
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in types or argument in _TYPES:
            signature[argument] = types.get(argument) or _TYPES[argument]
        elif argument.endswith(("_high_ptr", "_low_ptr")):
            signature[argument] = "*bf16"
        else:
            signature[argument] = "*fp32" if argument.endswith("_ptr") else "fp32"
    # What a launch sees of the tensors of a training step: aligned, sizes divisible by 16.
    unknown = {
        kernel.params[index].name
        for index in range(len(kernel.params))
        if kernel.params[index].do_not_specialize
    }
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if (argument.endswith("_ptr") or argument in _TYPES)
        and argument not in constants
        and argument not in unknown
    }
    result = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", target, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    architecture = f"sm_{target}{'a' if target >= 90 else ''}"
    ptx = result.asm["ptx"]
    said = _ptxas(ptx, architecture)
    return {
        "kernel": name,
        "target": architecture,
        "registers": int(re.findall(r"Used (\d+) registers", said)[0]),
        "spill_bytes": sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", said))),
        "shared_bytes": result.metadata.shared,
        "shared_limit": SHARED_LIMIT[target],
        "multiplies_matrices": kernel is attend,
        "tensor_core_instructions": len(
            re.findall(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)", ptx)
        ),
        **_waits(result.asm["cubin"], kernel, target),
    }


def _waits(cubin: bytes, kernel: Any, target: int) -> dict[str, int]:
    """How many products Hopper's matrix units are given, and how often they are waited for.

    A compiler that cannot keep them apart waits for each before it gives the next.
    """
    if target != 90 or kernel is not attend:
        return {}
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(tool), "-c", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "products": len(re.findall(r"\bHGMMA\b", said)),
        "waits": len(re.findall(r"\bWARPGROUP\.DEPBAR\b", said)),
    }


def _ptxas(ptx: str, architecture: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [
            get_ptxas(int(architecture[3:].rstrip("a"))).path, "-v", f"--gpu-name={architecture}",
            str(source), "-o", str(Path(folder) / "kernel.cubin"),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr
