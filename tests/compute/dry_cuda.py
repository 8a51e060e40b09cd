"""A dry run of CUDA on a machine without one: everything but the numbers.

Within :class:`DryCuda` a tensor on ``cuda`` has a shape, a type and a memory order, and no data.
PyTorch's own rules for them decide what every operator gives; autograd and autocast run as they do
on a GPU. What is kept here are the rules that would break a run there:

- a step that is recorded must not wait for the GPU, copy to or from the host, take its size from
  its data, use a number that lies on the host, or load a kernel that was not loaded before;
- memory that a recorded graph reads from outside must be there when it is replayed;
- operators and kernels are given tensors of one device, and kernels tensors without gaps;
- Triton's kernels are compiled for a GPU of compute capability 9.0, and must fit into it.

What is read back from the device is made up: 1, True, or 0.25. Numbers, times, the amount of memory
and what cuDNN or the driver say remain unknown.

PyTorch's CPU build cannot differentiate tensors on ``cuda``: it has no guard for that device. A few
lines of C++, compiled once, give it one that does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GUARD = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

struct DryGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return {type(), 0}; }
  c10::Device getDevice() const override { return {type(), 0}; }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct DryHooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
};

static c10::impl::DeviceGuardImplRegistrar guard(c10::DeviceType::CUDA, new DryGuard());
// The hooks that PyTorch asks are made already: they take over the methods of these.
static const bool hooked = [] {
  auto* theirs = const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks());
  *reinterpret_cast<void**>(theirs) = *reinterpret_cast<void**>(new DryHooks());
  return true;
}();
"""

PROPERTIES = SimpleNamespace(
    name="a dry run", major=9, minor=0, multi_processor_count=132, warp_size=32,
    total_memory=80 * 10**9, shared_memory_per_block_optin=232_448,
)  # fmt: skip

# Operators that start nothing on the GPU, beside views.
_FREE = {"detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty"}
_FREE |= {"new_empty_strided", "_unsafe_view", "_reshape_alias", "resize_"}
_SENT = ("_to_copy", "to")  # from one device to another; the second in inference mode
_READ_BACK = {"_local_scalar_dense", "item", "equal", "is_nonzero", "allclose"}
_SIZED_BY_DATA = {"nonzero", "masked_select", "_unique2", "unique_consecutive"}


class Broken(AssertionError):
    """A rule of the GPU was broken."""


def why_not() -> str:
    """Why there can be no dry run here; empty where there can."""
    if torch.backends.cuda.is_built():
        return "PyTorch's CUDA build has the real thing"
    if shutil.which("g++") is None:
        return "needs g++, to give PyTorch's CPU build a guard for cuda"
    return ""


def install_guard() -> None:
    """Compile and load the guard, once for each version of PyTorch."""
    root = Path(torch.__file__).parent
    digest = hashlib.sha256((GUARD + torch.__version__).encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"dry-cuda-{os.getuid()}-{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            (Path(folder) / "guard.cpp").write_text(GUARD)
            made = Path(folder) / "guard.so"
            command = [
                "g++", "-std=c++20", "-O0", "-fPIC", "-shared", f"-I{root}/include",
                f"{folder}/guard.cpp", "-o", str(made), f"-L{root}/lib", "-lc10", "-ltorch_cpu",
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True)
            made.replace(library)
    ctypes.CDLL(str(library))


class Graph:
    """Stands in for ``torch.cuda.CUDAGraph``: what a recording starts and reads from outside."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.bytes = 0
        self.own: set[int] = set()
        self.outside: dict[int, tuple[StorageWeakRef, str]] = {}
        self.replays = 0

    def replay(self) -> None:
        """Check that what the graph reads is still there."""
        gone = [name for storage, name in self.outside.values() if storage.expired()]
        if gone:
            raise Broken(f"a graph is replayed whose memory is gone; first used by {gone[0]}")
        self.replays += 1


class Stream:
    """Stands in for ``torch.cuda.Stream``; order among streams is not checked."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda:0")

    def wait_stream(self, other: Stream) -> None:
        """Nothing to wait for."""


class Event:
    """Stands in for ``torch.cuda.Event``."""

    def record(self, *_: Any) -> None:
        """Nothing happens."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class _Mode(FakeTensorMode):
    avoid_device_init = True  # although torch.cuda.is_available() says that there is one


class DryCuda(TorchDispatchMode):
    """Within it there is one GPU that computes nothing.

    ``launches`` counts operators and kernels by name, ``graphs`` are those that were recorded.

    Args:
        compiled: compile every kernel of Triton that is launched.
    """

    def __init__(self, *, compiled: bool = True) -> None:
        super().__init__()
        self.fake = _Mode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
        self.compiled = compiled
        self.launches: Counter[str] = Counter()
        self.graphs: list[Graph] = []
        self.recording: Graph | None = None
        self.loaded: set[int] = set()  # kernels
        self.memory: dict[int, StorageWeakRef] = {}
        self.stream = self.usual = Stream()
        self._stack = contextlib.ExitStack()

    def forbid(self, what: str) -> None:
        """Raise where a step is being recorded."""
        if self.recording is not None:
            raise Broken(f"{what} while a step is recorded")

    def __enter__(self) -> DryCuda:
        install_guard()
        for each in self._patches():
            self._stack.enter_context(each)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    # --- Operators --------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        ours = [each for each in tensors if isinstance(each, FakeTensor)]
        named = [each for each in (*args, kwargs.get("device")) if isinstance(each, torch.device)]
        to = named[-1].type if named else None
        if not ours and to != "cuda":
            return func(*args, **kwargs)
        if name in _READ_BACK:
            self.forbid(f"{name} waits for the GPU")
            return _made_up(ours[0].dtype)
        if name in _SIZED_BY_DATA:
            raise Broken(f"{name} waits for the GPU, to learn its own size")
        if name in _SENT and ours and to == "cpu":
            self.forbid("a copy to the host")
            dtype = _type_of(args, kwargs, ours[0])
            real = torch.empty_strided(ours[0].shape, ours[0].stride(), dtype=dtype)
            return real.fill_(_made_up(dtype))
        if name == "copy_" and ours and args[0] is not ours[0]:
            self.forbid("a copy to the host")
            return args[0].fill_(_made_up(args[0].dtype))
        return self._on_device(func, name, args, kwargs, tensors, to)

    def _on_device(
        self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], to: str | None
    ) -> Any:
        host = [each for each in tensors if not isinstance(each, FakeTensor)]
        if host and name in (*_SENT, "copy_"):
            self.forbid("a copy from the host")
            if name in _SENT:
                dtype = _type_of(args, kwargs, host[0])
                strides = host[0].stride()
                order = kwargs.get("memory_format") or torch.preserve_format
                if order != torch.preserve_format:
                    strides = torch.empty(
                        host[0].shape, device="meta", memory_format=order
                    ).stride()
                with self.fake:
                    made = torch.empty_strided(host[0].shape, strides, dtype=dtype, device="cuda")
                self._use(name, [made])
                return made
        elif host and name != "lift_fresh":
            if any(each.dim() for each in host):
                raise Broken(f"{name} is given tensors of the host and of the GPU")
            self.forbid(f"{name} with a number of the host, which would be frozen,")
        if name.startswith("_fused_adam"):  # in place, and without rules for fake tensors
            result = None
        else:
            with self.fake:
                result = func(*args, **kwargs)
        made = [each for each in tree_leaves(result) if isinstance(each, FakeTensor)]
        given = [each for each in tensors if isinstance(each, FakeTensor)]
        self._use(name, given)
        self._use(name, made)
        if not func.is_view and name not in _FREE:
            self._count(name, given + made)
        return result

    def _use(self, name: str, tensors: list[Any]) -> None:
        """Memory that is first seen while a step is recorded belongs to the recording."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, known = storage._cdata, self.memory.get(storage._cdata)
            if known is None or known.expired():
                self.memory[key] = StorageWeakRef(storage)
                if self.recording is not None:
                    self.recording.own.add(key)
            graph = self.recording
            if graph is not None and key not in graph.own:
                graph.outside.setdefault(key, (StorageWeakRef(storage), name))

    def _count(self, name: str, tensors: list[Any]) -> None:
        """A launch, and the memory that it reads and writes if it touches each operand once."""
        self.launches[name] += 1
        if self.recording is not None:
            self.recording.launches[name] += 1
            self.recording.bytes += sum(
                min(each.numel() * each.element_size(), each.untyped_storage().nbytes())
                for each in tensors
            )

    # --- Triton -----------------------------------------------------------------------------------

    def launch(self, original: Any, kernel: Any, args: Any, grid: Any, kwargs: Any) -> None:
        """Check a launch, and compile its kernel."""
        name = kernel.__name__
        tensors = [each for each in args if isinstance(each, Tensor)]
        for each in tensors:
            if not isinstance(each, FakeTensor):
                raise Broken(f"{name} is given a tensor of the host")
            if not (each.is_contiguous() or each.is_contiguous(memory_format=torch.channels_last)):
                raise Broken(f"{name} is given a tensor with gaps, {tuple(each.stride())}")
        limits = 2**31 - 1, 65_535, 65_535
        if not all(0 < count <= most for count, most in zip(grid, limits, strict=False)):
            raise Broken(f"{name} cannot be launched as {grid}")
        self._use(name, tensors)
        self._count(name, tensors)
        if self.compiled:
            with _disable_current_modes():
                given = [_Address(each) if isinstance(each, Tensor) else each for each in args]
                found = original(kernel, *given, grid=grid, warmup=False, **kwargs)
            if id(found) not in self.loaded:
                self.forbid(f"{name} is loaded for the first time")
                self.loaded.add(id(found))

    # --- What stands in for torch.cuda ------------------------------------------------------------

    def _patches(self) -> Iterator[Any]:
        def waits(*_: Any) -> None:
            self.forbid("torch.cuda.synchronize or empty_cache")

        for name, stand_in in {
            "is_available": lambda: True,
            "is_initialized": lambda: False,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "device": lambda *_: contextlib.nullcontext(),
            "get_device_name": lambda *_: PROPERTIES.name,
            "get_device_capability": lambda *_: (9, 0),
            "get_device_properties": lambda *_: PROPERTIES,
            "mem_get_info": lambda *_: (70 * 10**9, 80 * 10**9),
            "memory_allocated": lambda *_: 0,
            "max_memory_allocated": lambda *_: 10**9,
            "reset_peak_memory_stats": lambda *_: None,
            "empty_cache": waits,
            "synchronize": waits,
            "current_stream": lambda *_: self.stream,
            "is_current_stream_capturing": lambda: self.recording is not None,
            "stream": self._on_stream,
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Graph,
            "graph_pool_handle": object,
            "graph": self._recorded,
        }.items():
            yield patch.object(torch.cuda, name, stand_in)
        yield patch.object(torch._subclasses.fake_tensor, "init_gpu_context", lambda *_: None)
        yield patch.object(FakeTensor, "__deepcopy__", _deep_copy, create=True)
        yield patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor, create=True)
        yield patch.object(Tensor, "record_stream", lambda *_: None, create=True)
        # PyTorch's CPU build would choose for a GPU without cuDNN.
        yield patch.object(torch._C, "_conv_determine_backend_memory_format", _as_cudnn)
        tensor, empty = torch.tensor, torch.empty
        # Made on the host and sent, and pinned, where no mode sees it.
        yield patch.object(
            torch,
            "tensor",
            lambda data, *, device=None, **k: (
                tensor(data, **k) if device is None else tensor(data, **k).to(device)
            ),
        )
        yield patch.object(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
        yield from self._triton_patches()

    def _triton_patches(self) -> Iterator[Any]:
        import triton
        from triton.backends.compiler import GPUTarget

        function = triton.runtime.jit.JITFunction
        original = function.run

        def run(kernel: Any, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> None:
            self.launch(original, kernel, args, grid, kwargs)

        yield patch.object(function, "run", run)
        limits = {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32}
        driver = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda _: 0,
            get_active_torch_device=lambda: torch.device("cuda:0"),
            launcher_cls=lambda source, metadata: lambda *_: None,
            utils=SimpleNamespace(
                load_binary=lambda *_: (None, None, 0, 0, 1024),
                get_device_properties=lambda _: limits,
            ),
        )
        yield patch.object(triton.runtime.driver, "_active", driver)

    @contextlib.contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextlib.contextmanager
    def _recorded(self, graph: Graph, **_: Any) -> Iterator[None]:
        self.forbid("another recording begins")
        if self.stream is self.usual:
            raise Broken("steps cannot be recorded on the default stream")
        self.recording = graph
        try:
            yield
        finally:
            self.recording = None
        self.graphs.append(graph)


class _Address:
    """A tensor as Triton sees it: a type, and an address that is a multiple of 16."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype = tensor.dtype
        self.offset = tensor.storage_offset() * tensor.element_size()

    def data_ptr(self) -> int:
        """The address."""
        return 2**20 + self.offset

    def ptr_range(self) -> int:
        """Not known."""
        return 0


def _type_of(args: Any, kwargs: Any, tensor: Tensor) -> torch.dtype:
    """The type that a tensor is converted to on its way."""
    named = [each for each in (*args, kwargs.get("dtype")) if isinstance(each, torch.dtype)]
    return named[0] if named else tensor.dtype


def _made_up(dtype: torch.dtype) -> Any:
    if dtype == torch.bool:
        return True
    return 0.25 if dtype.is_floating_point else 1


def _as_cudnn(image: Tensor, weight: Tensor, *_: Any) -> torch.memory_format:
    """The memory order of a convolution's output: channels last where image or weight is."""
    last = torch.channels_last
    given = image, weight
    found = any(each.dim() == 4 and each.is_contiguous(memory_format=last) for each in given)
    return last if found else torch.contiguous_format


def _deep_copy(tensor: Tensor, memo: Any) -> Tensor:
    copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(copy, tensor.requires_grad)
    return copy
