"""What a run is trained on, and what is shown and measured of it: a pair, or two folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sincut.config.training import TrainConfig
from sincut.data.training_data import TrainingData
from sincut.images.reading.source import Pixels
from sincut.models.brushwork import Brushwork
from sincut.models.generator import Generator
from sincut.runs.folder import RunRecord
from sincut.training.state import State

Progress = Callable[[str, int, int], None]


class Subject(Protocol):
    """What a run asks about its images. Generators are those of :meth:`final`."""

    @property
    def data(self) -> TrainingData:
        """What the training is fed with."""
        ...

    @property
    def records(self) -> Mapping[str, dict[str, Any]]:
        """What a run keeps of ``content`` and ``style``."""
        ...

    def keep(self, folder: Path) -> None:
        """Write into a run's folder what shows where the images are trained on."""
        ...

    def final(self, state: State) -> Generator:
        """The generator as it is written and shown. ``state`` is not changed."""
        ...

    def brushwork(self, config: TrainConfig) -> Brushwork | None:
        """What the model lays on what its network makes, where it is to."""
        ...

    def preview(self, generator: Generator, config: TrainConfig) -> Pixels:
        """What a preview shows, (H, W, 3) uint8 sRGB."""
        ...

    def prepare_figures(self) -> None:
        """Work out what :meth:`figures` compares with.

        Raises:
            SincutError: the images cannot be measured.
        """
        ...

    def figures(self, generator: Generator) -> dict[str, float]:
        """Figures of quality by name."""
        ...

    def write_report(
        self, record: RunRecord, target: Path, generator: Generator, step: int, progress: Progress
    ) -> None:
        """The report of a run that ends, as a file."""
        ...

    def report_bytes(self) -> int:
        """About how many bytes of the host's memory a report takes beside what a run holds."""
        ...

    def report_seconds(self, preview_seconds: float, config: TrainConfig) -> float:
        """About how long a report takes, where a preview takes so long."""
        ...
