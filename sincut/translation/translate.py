"""Translate image files of any size: which files, one after the other, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from sincut.compute.cuda_graph import own_stream
from sincut.compute.devices import chosen_device
from sincut.compute.public import public
from sincut.config.translating import TranslateConfig
from sincut.errors import Interrupted, SincutError
from sincut.files import make_folder
from sincut.images.in_memory import ImageFiles, ImageLike
from sincut.images.reading.ome_zarr import is_zarr
from sincut.images.writing.ome_zarr import begun_with
from sincut.images.writing.part_file import begun
from sincut.signals import stoppable
from sincut.translation.inputs import found_inputs, planned_outputs
from sincut.translation.one_image import LoadedModel, OneImage, Translated, loaded_model
from sincut.translation.plan import Plan
from sincut.translation.shards import ShardedImage, Share
from sincut.translation.sharing import SharedImage


@dataclass(frozen=True)
class Progress:
    """One finished tile: ``done`` of ``total`` tiles of image ``index`` (from 1) of ``count``."""

    path: Path
    index: int
    count: int
    done: int
    total: int


@public
def translate(
    model: Path | str,
    inputs: Sequence[ImageLike] | ImageLike,
    output: Path | str,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_tile: Callable[[Progress], None] | None = None,
    on_image: Callable[[Translated], None] | None = None,
    on_skip: Callable[[Path], None] | None = None,
    on_failure: Callable[[Path, str], None] | None = None,
    on_share: Callable[[Share], None] | None = None,
    **options: Any,
) -> list[Translated]:
    """Translate images at their full size, in bounded memory.

    Args:
        model: a run folder or model file.
        inputs: image files, folders of them, or patterns; or PIL images, or uint8 or uint16 arrays
            (H, W, 3), (H, W, 4) or (H, W). Callbacks and results have a file of one in memory
            that is gone afterwards, ``input.png``, or ``input-1.png`` where there are several;
            ``resume`` does not know it again.
        output: a file for one input (its ending names the format), or a folder, where each output
            takes its input's name (with ``.png`` added where its format cannot be written).
        on_plan, on_tile, on_image, on_skip: called before an image, after every tile, after every
            image, and with every output that is there already and left as it is.
        on_failure: called with an input that could not be translated and why, when others follow.
        on_share: called when this process's share of an image is done and others' are not.
        options: fields of :class:`sincut.config.translating.TranslateConfig`.

    Returns:
        One entry per input that was translated, in order; none with ``dry_run``, nor of an image of
        which other processes have more to do.

    Raises:
        SincutError: for what is wrong with options, model or paths before any work; for inputs
            that failed after the others were done.
        Interrupted: on Ctrl-C or SIGTERM; finished bands are kept for ``resume``.
    """
    config = TranslateConfig().replaced(**options)
    device = torch.device(chosen_device(config.device))
    output = Path(output)
    listeners = _Listeners(on_plan, on_tile, on_image, on_failure, on_share)

    def skip(target: Path) -> bool:
        # With --force an output may be an older one; only what was begun tells.
        going_on = config.resume or config.share[1] > 1
        before = begun_with(target) if is_zarr(target) else begun(target)
        finished = going_on and not config.force and before is None
        if (config.skip_existing or finished) and on_skip is not None:
            on_skip(target)
        return config.skip_existing or finished

    def planned(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
        return planned_outputs(
            inputs,
            output,
            force=config.force or config.dry_run,
            skip=skip,
            protected=[Path(config.mask)] if config.mask else [],
        )

    with ImageFiles() as images:
        pairs = planned(found_inputs(images.files("input", inputs), output), output)
        if not pairs:
            return []
        described = loaded_model(Path(model), device)
        if pairs[0][1] != output and not config.dry_run:
            make_folder(output)
        batch = _Batch(described, config, len(pairs), listeners)
        with own_stream(device.type), stoppable():
            for index, (source, target) in enumerate(pairs, start=1):
                # An output may appear while others are made.
                again = planned if index > 1 else None
                batch.add(index, source, target, again)
        if batch.failures:
            raise SincutError(_all_told(batch.failures, len(pairs)))
    return batch.results


class _Listeners(NamedTuple):
    on_plan: Callable[[Plan], None] | None
    on_tile: Callable[[Progress], None] | None
    on_image: Callable[[Translated], None] | None
    on_failure: Callable[[Path, str], None] | None
    on_share: Callable[[Share], None] | None


class _Batch:
    """Images one after the other; one that fails does not stop the others."""

    def __init__(
        self, model: LoadedModel, config: TranslateConfig, count: int, listeners: _Listeners
    ) -> None:
        self.model, self.config, self.count, self.listeners = model, config, count, listeners
        self.results: list[Translated] = []
        self.failures: list[str] = []

    def add(
        self,
        index: int,
        source: Path,
        target: Path,
        planned: Callable[[Sequence[Path], Path], list[tuple[Path, Path]]] | None,
    ) -> None:
        """Translate image ``index``, counted from 1, if ``planned`` still wants it."""

        def on_tile(done: int, total: int) -> None:
            if self.listeners.on_tile is not None:
                self.listeners.on_tile(Progress(source, index, self.count, done, total))

        try:
            if planned is not None and not planned([source], target):
                return
            on_plan = self.listeners.on_plan or (lambda plan: None)
            if is_zarr(target):
                kind = (
                    SharedImage if self.config.workers > 1 or self.config.cluster else ShardedImage
                )
                sharded = kind(self.model, source, target, self.config)
                result = sharded.run(on_plan, on_tile, self.listeners.on_share)
            else:
                result = OneImage(self.model, source, target, self.config).run(on_plan, on_tile)
        except KeyboardInterrupt as error:
            self._interrupted(error)
        except (SincutError, MemoryError, OSError) as error:
            self.failures.append(_told(source, error))
            if self.listeners.on_failure is not None and index < self.count:
                self.listeners.on_failure(source, self.failures[-1])
        else:
            if result is not None:
                self.results.append(result)
                if self.listeners.on_image is not None:
                    self.listeners.on_image(result)

    def _interrupted(self, error: KeyboardInterrupt) -> NoReturn:
        """Raise, with what failed before."""
        if not self.failures:
            raise error
        told = [*map(str, error.args), _all_told(self.failures, self.count)]
        raise Interrupted("; ".join(told)) from None


def _all_told(failures: Sequence[str], count: int) -> str:
    told = "; ".join(failures)
    return told if count == 1 else f"{len(failures)} of {count} images failed: {told}"


def _told(source: Path, error: Exception) -> str:
    """What went wrong with one image, in one line: the others go on."""
    if isinstance(error, MemoryError):
        return (
            f"{source} could not be translated: memory ended; try --max-memory or a smaller --tile"
        )
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{source} could not be translated ({reason}); check the place and its permissions"
    return str(error)
