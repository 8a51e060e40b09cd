"""The paths that only run on CUDA, as a dry run: what breaks a rule of a GPU is found without one.

Models are exported on a CPU, whatever there is, so export is none of them.

Triton interprets kernels in the other tests, so these run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sincut.compute.cuda_graph import EAGER_CALLS
from sincut.config.presets import PRESETS, folder_config, train_config
from sincut.config.training import FOLDER_METHODS, METHODS, PairConfig
from sincut.data.pair import Pair
from sincut.demo import render_content, render_style
from tests.compute.dry_cuda import Broken, DryCuda, Graph, Stream, why_not

pytest.importorskip("triton")

INSIDE = os.environ.get("SINCUT_DRY_CUDA") == "1"
inside = pytest.mark.skipif(not INSIDE, reason="runs in a process of its own, by the last test")


def settings(preset: str, method: str = "sincut", **changes: Any) -> PairConfig:
    """Small networks, with every kind of step that the preset has, early."""
    from sincut.compute.precision import resolved

    usual = train_config(preset, method)
    small: dict[str, Any] = {
        "device": "cuda", "steps": 14, "batch": 2, "channels": 8, "blocks": 2, "layers": (0, 2),
        "crop": 64, "tile": 32, "discriminator_channels": 8, "discriminator_max_channels": 16,
        "patches": min(usual.patches, 16), "projection_width": 32,
        "warm_steps": min(usual.warm_steps, 5), "r1_every": min(usual.r1_every, 3),
    }  # fmt: skip
    return resolved(train_config(preset, method, **{**small, **changes}))


def pair() -> Pair:
    return Pair(render_content(160, 120), render_style(150, 130))


@inside
@pytest.mark.sampled(3)  # every preset
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_kind_of_step_is_recorded_and_replayed(preset: str, method: str) -> None:
    from sincut.training.loop import train
    from sincut.training.step import kind_of

    with DryCuda(compiled=(preset, method) == ("fast", "sincut")) as cuda:
        config = settings(preset, method)
        train(pair(), config, lambda record: bool(record.values()) and None)
    kinds = Counter(kind_of(step, config) for step in range(-config.warm_steps, config.steps))
    often = {kind: count for kind, count in kinds.items() if count > EAGER_CALLS}
    assert len(cuda.graphs) == len(often)
    replays = [graph.replays for graph in cuda.graphs]
    assert sorted(replays) == sorted(count - EAGER_CALLS for count in often.values())
    assert {"attend", "mask_and_sum", "filter_rows"} <= set(cuda.launches)


@inside
@pytest.mark.long
@pytest.mark.parametrize(
    ("preset", "launches", "gigabytes"), [("paper", 820, 17.0), ("fast", 700, 6.0)]
)
def test_what_a_step_of_full_size_starts(preset: str, launches: int, gigabytes: float) -> None:
    """Operators and kernels of a recorded step, and the bytes that they touch, mean over R1's
    period."""
    from sincut.compute.precision import resolved
    from sincut.training.loop import train

    graphs = []
    period = train_config(preset).r1_every
    for every in (1, 1000):  # with R1, and without
        changes: dict[str, Any] = {"device": "cuda", "precision": "bf16", "warm_steps": 0}
        changes |= {"steps": EAGER_CALLS + 2, "r1_every": every}
        with DryCuda(compiled=False) as cuda:
            config = resolved(train_config(preset, **changes))
            train(Pair(render_content(320, 240), render_style(300, 260)), config, lambda _: None)
        graphs.append(cuda.graphs[-1])
    counts = [sum(graph.launches.values()) for graph in graphs]
    sizes = [graph.bytes / 1e9 for graph in graphs]
    means = [(first + (period - 1) * second) / period for first, second in (counts, sizes)]
    print(f"{preset}: {counts} launches, {sizes} GB with R1 and without; mean {means}")
    assert means[0] <= launches
    assert means[1] <= gigabytes


@inside
@pytest.mark.parametrize("memory", ["1GB", "1"], ids=["kept", "decoded for every step"])
@pytest.mark.parametrize("method", FOLDER_METHODS)
def test_steps_on_folders(method: str, memory: str, tmp_path: Path) -> None:
    from sincut.compute.precision import resolved
    from sincut.data.folders import Folders
    from sincut.data.image_folder import read_folder
    from sincut.training.loop import train
    from sincut.training.step import kind_of
    from tests.data.test_folders import written

    data = Folders(read_folder(written(tmp_path / "a")), read_folder(written(tmp_path / "b")))
    config = folder_config(
        "cut", method, device="cuda", steps=14, batch=2, channels=4, blocks=5, load=36,
        falling_load=32, crop=32, discriminator_channels=4, patches=16, projection_width=32,
        image_memory=memory, workers=0,
    )  # fmt: skip
    with DryCuda(compiled=False) as cuda:
        config = resolved(config)
        train(data, config, lambda record: bool(record.values()) and None)
    kinds = Counter(kind_of(step, config) for step in range(config.steps))
    often = [count for count in kinds.values() if count > EAGER_CALLS]
    assert sorted(graph.replays for graph in cuda.graphs) == sorted(n - EAGER_CALLS for n in often)
    assert cuda.launches["attend"] > 0


@inside
@pytest.mark.parametrize("tile", ["whole", "64"])
def test_translation_with_a_network_that_normalises(tile: str, tmp_path: Path) -> None:
    import sincut
    from sincut.models.model_file import save_model
    from sincut.models.resnet import ResnetGenerator

    save_model(tmp_path / "model.safetensors", ResnetGenerator(4, 2), None, {"step": 1})
    Image.fromarray(pair().content).resize((300, 260)).save(tmp_path / "in.png")
    with DryCuda(compiled=False):
        done = sincut.translate(
            tmp_path / "model.safetensors", tmp_path / "in.png", tmp_path / "out.png",
            device="cuda", tile=tile,
        )  # fmt: skip
    assert len(done) == 1


@inside
def test_steps_without_recording() -> None:
    from sincut.training.loop import train

    with DryCuda(compiled=False) as cuda:
        train(pair(), settings("paper", record_steps=False, steps=6), lambda record: None)
    assert not cuda.graphs


@inside
@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("options", [{"tile": "64"}, {"tile": "auto"}, {"working_width": 80}])
def test_translation(options: dict[str, Any], correction: bool, tmp_path: Path) -> None:
    import sincut
    from sincut.models.architectures import generator_of
    from sincut.models.model_file import save_model

    config = train_config("paper", channels=4, blocks=2, layers=(0, 2), correction=correction)
    header = {"step": 1, "config": config.to_dict()}
    save_model(tmp_path / "model.safetensors", generator_of(config), None, header)
    Image.fromarray(pair().content).resize((300, 260)).save(tmp_path / "in.png")
    with DryCuda(compiled=False) as cuda:
        done = sincut.translate(
            tmp_path / "model.safetensors", tmp_path / "in.png", tmp_path / "out.png",
            device="cuda", **options,
        )  # fmt: skip
    assert len(done) == 1
    assert cuda.launches["add_and_activate"] > 0


@inside
def test_brushwork(tmp_path: Path) -> None:
    import sincut
    from sincut.models.architectures import generator_of
    from sincut.models.model_file import save_model

    config = train_config("fast", channels=4, blocks=2, layers=(0, 2), device="cuda")
    both = Pair(render_content(320, 240), render_style(300, 260))
    with DryCuda(compiled=False):
        brushwork = both.brushwork(config)
    header = {"step": 1, "config": config.to_dict()}
    save_model(tmp_path / "model.safetensors", generator_of(config), None, header, brushwork)
    Image.fromarray(both.content).save(tmp_path / "in.png")
    with DryCuda(compiled=False) as cuda:
        sincut.translate(
            tmp_path / "model.safetensors", tmp_path / "in.png", tmp_path / "out.png",
            device="cuda", tile="128",
        )  # fmt: skip
    assert cuda.launches["topk"] > 0  # the nearest keys


@inside
def test_inspection(tmp_path: Path) -> None:
    import sincut
    from sincut.models.architectures import generator_of
    from sincut.models.model_file import save_model
    from sincut.models.projector import PatchProjector

    config = train_config("draft", channels=4, blocks=2, layers=(0, 2), projection_width=16)
    generator = generator_of(config)
    heads = PatchProjector([generator.layer_channels[layer] for layer in config.layers], 16)
    header = {"step": 1, "config": config.to_dict()}
    save_model(tmp_path / "model.safetensors", generator, heads, header)
    Image.fromarray(pair().content).save(tmp_path / "in.png")
    with DryCuda(compiled=False) as cuda:
        sincut.inspect(
            tmp_path / "model.safetensors", tmp_path / "in.png", [(80, 60)], tmp_path / "out",
            device="cuda", tile="64",
        )  # fmt: skip
    assert cuda.launches["filter_rows"] > 0


@inside
def test_broken_rules_are_found() -> None:
    def recorded(work: Any) -> Graph:
        graph = Graph()
        with torch.cuda.stream(Stream()), torch.cuda.graph(graph):
            work()
        return graph

    with DryCuda(compiled=False):
        x = torch.ones(4, 4, device="cuda")
        for work in (
            lambda: x.sum().item(),
            lambda: x.cpu(),
            lambda: x + torch.tensor(1.0),
            lambda: x + torch.tensor([1.0], device="cuda"),
            lambda: x.nonzero(),
            torch.cuda.synchronize,
        ):
            with pytest.raises(Broken):
                recorded(work)
        with pytest.raises(Broken, match="default stream"), torch.cuda.graph(Graph()):
            pass
        with pytest.raises(Broken, match="of the host and of the GPU"):
            torch.add(x, torch.ones(4, 4))
        kept = [torch.zeros(3, device="cuda")]
        graph = recorded(lambda: kept[0] + 1)
        graph.replay()
        kept.clear()
        with pytest.raises(Broken, match="memory is gone"):
            graph.replay()


@pytest.mark.skipif(INSIDE, reason="this is that process")
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be a dry run")
@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_all_of_it_in_a_process_where_triton_compiles(which: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"SINCUT_DRY_CUDA": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-m", which, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
