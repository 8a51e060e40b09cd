"""Translate image files of any size: which files, one after the other, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sincut.compute.cuda_graph import own_stream
from sincut.compute.devices import chosen_device, limit_threads
from sincut.compute.memory import keep_freed_memory
from sincut.config.translating import TranslateConfig
from sincut.errors import Interrupted, SincutError
from sincut.files import file_digest, make_folder
from sincut.images.writing.part_file import begun
from sincut.models.model_file import load_model, model_file
from sincut.signals import stoppable
from sincut.translation.inputs import found_inputs, planned_outputs
from sincut.translation.one_image import Model, OneImage, Translated, learned_width
from sincut.translation.plan import Plan


@dataclass(frozen=True)
class Progress:
    """One finished tile: ``done`` of ``total`` tiles of image ``index`` (from 1) of ``count``."""

    path: Path
    index: int
    count: int
    done: int
    total: int


def translate(
    model: Path | str,
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_tile: Callable[[Progress], None] | None = None,
    on_image: Callable[[Translated], None] | None = None,
    on_skip: Callable[[Path], None] | None = None,
    on_failure: Callable[[Path, str], None] | None = None,
    **options: Any,
) -> list[Translated]:
    """Translate image files at their full size, in bounded memory.

    Args:
        model: a run folder or model file.
        inputs: image files, folders of them, or patterns.
        output: a file for one input (its ending names the format), or a folder, where each output
            takes its input's name (with ``.png`` added where its format cannot be written).
        on_plan, on_tile, on_image, on_skip: called before an image, after every tile, after every
            image, and with every output that is there already and left as it is.
        on_failure: called with an input that could not be translated and why, when others follow.
        options: fields of :class:`sincut.config.translating.TranslateConfig`.

    Returns:
        One entry per input that was translated, in order; none with ``dry_run``.

    Raises:
        SincutError: for what is wrong with options, model or paths before any work; for inputs
            that failed after the others were done.
        Interrupted: on Ctrl-C or SIGTERM; finished bands are kept for ``resume``.
    """
    config = TranslateConfig().replaced(**options)
    device = torch.device(chosen_device(config.device))
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    output = Path(output)

    def skip(target: Path) -> bool:
        # With --force an output may be an older one; only what was begun tells.
        finished = config.resume and not config.force and begun(target) is None
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

    pairs = planned(found_inputs(given, output), output)
    if not pairs:
        return []
    trained = load_model(Path(model))
    if pairs[0][1] != output and not config.dry_run:
        make_folder(output)
    limit_threads()
    if device.type == "cpu":
        keep_freed_memory()
    generator = trained.generator
    generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = file_digest(model_file(Path(model)))
    described = Model(generator, digest, learned_width(trained.header))

    results: list[Translated] = []
    failures: list[str] = []
    with own_stream(device.type), stoppable():
        for index, (source, target) in enumerate(pairs, start=1):

            def report(done: int, total: int, source: Path = source, index: int = index) -> None:
                if on_tile is not None:
                    on_tile(Progress(source, index, len(pairs), done, total))

            try:
                if index > 1 and not planned([source], target):  # it came while others were made
                    continue
                one = OneImage(described, source, target, config)
                result = one.run(on_plan or (lambda plan: None), report)
            except KeyboardInterrupt as error:
                if not failures:
                    raise
                told = [*map(str, error.args), _all_told(failures, len(pairs))]
                raise Interrupted("; ".join(told)) from None
            except (SincutError, MemoryError, OSError) as error:
                failures.append(_told(source, error))
                if on_failure is not None and index < len(pairs):
                    on_failure(source, failures[-1])
                continue
            if result is None:
                continue
            results.append(result)
            if on_image is not None:
                on_image(result)
    if failures:
        raise SincutError(_all_told(failures, len(pairs)))
    return results


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
