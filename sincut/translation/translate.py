"""Translate image files of any size: which files, one after the other, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from sincut.compute.cuda_graph import own_stream
from sincut.compute.devices import chosen_device
from sincut.compute.public import public
from sincut.config.translating import TranslateConfig
from sincut.errors import Interrupted, SincutError
from sincut.files import make_folder
from sincut.images.identity import is_zarr
from sincut.images.in_memory import ImageFiles, ImageLike
from sincut.images.writing.ome_zarr import begun_with
from sincut.images.writing.part_file import begun
from sincut.signals import stoppable
from sincut.translation.batches import (
    FileDone,
    FileTask,
    begun_before,
    by_workers,
    failure_text,
)
from sincut.translation.inputs import found_inputs, planned_outputs
from sincut.translation.one_image import LoadedModel, OneImage, Translated, loaded_model
from sincut.translation.plan import Plan
from sincut.translation.shards import ShardedImage, Share
from sincut.translation.sharing import SharedImage
from sincut.translation.tasks import by_cluster


@dataclass(frozen=True)
class Progress:
    """One finished tile: ``done`` of ``total`` tiles of image ``index`` (from 1) of ``count``; or,
    where processes take a file each, a finished file, ``done`` of ``total`` files."""

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
        found = found_inputs(images.files("input", inputs), output)
        many = len(found) > 1
        pairs = planned(found, output)
        if many:
            pairs = _of_share(pairs, found, config)
        if not pairs:
            return []
        described = loaded_model(Path(model), device)
        if pairs[0][1] != output and not config.dry_run:
            make_folder(output)
        batch = _Batch(described, config, len(pairs), many, listeners)
        with own_stream(device.type), stoppable():
            left = batch.taken(pairs)
            for task in left:
                # An output may appear while others are made.
                again = planned if task.index > 1 else None
                batch.add(task.index, task.source, task.target, again)
        if batch.failures:
            raise SincutError(_all_told(batch.failures, len(pairs)))
    return [result for _, result in sorted(batch.results.items())]


class _Listeners(NamedTuple):
    on_plan: Callable[[Plan], None] | None
    on_tile: Callable[[Progress], None] | None
    on_image: Callable[[Translated], None] | None
    on_failure: Callable[[Path, str], None] | None
    on_share: Callable[[Share], None] | None


def _of_share(
    pairs: Sequence[tuple[Path, Path]], found: Sequence[Path], config: TranslateConfig
) -> list[tuple[Path, Path]]:
    """Those of several inputs that this process translates, all of it or its share."""
    index, count = config.share
    mine = set(found[index::count])
    return [(source, target) for source, target in pairs if is_zarr(target) or source in mine]


class _Batch:
    """Images one after the other, or a file to each process; one that fails does not stop the
    others. ``many``: several inputs were given."""

    def __init__(
        self,
        model: LoadedModel,
        config: TranslateConfig,
        count: int,
        many: bool,
        listeners: _Listeners,
    ) -> None:
        self.model, self.config, self.count, self.listeners = model, config, count, listeners
        self.many = many
        self.results: dict[int, Translated] = {}
        self.failures: list[str] = []

    def taken(self, pairs: Sequence[tuple[Path, Path]]) -> list[FileTask]:
        """What is left after processes have taken the files that they can, where there are some."""
        tasks = [FileTask(index, *pair) for index, pair in enumerate(pairs, start=1)]
        config = self.config
        if not self.many or config.dry_run or not (config.workers > 1 or config.cluster):
            return tasks
        files = [task for task in tasks if not is_zarr(task.target)]
        refused = begun_before(config, files)
        todo = [task for task in files if task not in [each.task for each in refused]]
        ended = 0
        way = by_cluster if config.cluster else by_workers
        try:
            with closing(way(self.model, config, todo)) as done_by_others:
                for done in chain(refused, done_by_others):
                    ended += 1
                    self._take(done, ended, len(files))
        except KeyboardInterrupt:
            self._interrupted(
                Interrupted(
                    f"{ended} of {len(files)} images are done; the same command with --resume "
                    "goes on"
                )
            )
        return [task for task in tasks if is_zarr(task.target)]

    def _take(self, done: FileDone, ended: int, total: int) -> None:
        """Tell of a file that another process has translated."""
        index, source = done.task.index, done.task.source
        if done.plan is not None and self.listeners.on_plan is not None:
            self.listeners.on_plan(done.plan)
        if done.failure:
            self._failed(source, done.failure, last=ended == self.count)
        elif done.result is not None:
            self._made(index, done.result)
        if self.listeners.on_tile is not None:
            self.listeners.on_tile(Progress(source, ended, total, ended, total))

    def _made(self, index: int, result: Translated) -> None:
        self.results[index] = result
        if self.listeners.on_image is not None:
            self.listeners.on_image(result)

    def _failed(self, source: Path, why: str, *, last: bool) -> None:
        self.failures.append(why)
        if self.listeners.on_failure is not None and not last:
            self.listeners.on_failure(source, why)

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
                config = self._of_file() if self.many else self.config
                result = OneImage(self.model, source, target, config).run(on_plan, on_tile)
        except KeyboardInterrupt as error:
            self._interrupted(error)
        except (SincutError, MemoryError, OSError) as error:
            self._failed(source, failure_text(source, error), last=index == self.count)
        else:
            if result is not None:
                self._made(index, result)

    def _of_file(self) -> TranslateConfig:
        """That of a file which one process translates though there are several."""
        config = self.config.replaced(workers=1, shard="", cluster="")
        # Its share goes on with what it left, as that of an image does.
        return config.replaced(resume=True) if self.config.share[1] > 1 else config

    def _interrupted(self, error: KeyboardInterrupt) -> NoReturn:
        """Raise, with what failed before."""
        if not self.failures:
            raise error
        told = [*map(str, error.args), _all_told(self.failures, self.count)]
        raise Interrupted("; ".join(told)) from None


def _all_told(failures: Sequence[str], count: int) -> str:
    told = "; ".join(failures)
    return told if count == 1 else f"{len(failures)} of {count} images failed: {told}"
