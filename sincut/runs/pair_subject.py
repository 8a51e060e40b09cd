"""A pair of images as what a run is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sincut.config.parts import PAIR_AS_IT_IS, PairImageSettings
from sincut.config.training import PairConfig, TrainConfig
from sincut.data.pair import Pair
from sincut.evaluation.figures import Comparison
from sincut.images.reading.source import Pixels
from sincut.images.writing.png import write_png
from sincut.models.brushwork import Brushwork
from sincut.models.generator import Generator
from sincut.runs.events import Listener, Noticed
from sincut.runs.final_colours import final_generator, translated, translated_small
from sincut.runs.folder import MASK_FILE, RunImage, RunRecord
from sincut.runs.pair_images import read_pair_image
from sincut.runs.report import expected_bytes, expected_seconds, write_report
from sincut.runs.subject import Progress
from sincut.training.state import State


@dataclass
class PairSubject:
    """A content and a style image; a kind of ``Subject``."""

    data: Pair
    records: Mapping[str, dict[str, Any]]
    masks: Mapping[str, Pixels] = field(default_factory=dict)
    comparison: Comparison | None = None

    @classmethod
    def read(
        cls, content: Path, style: Path, tell: Listener, images: PairImageSettings = PAIR_AS_IT_IS
    ) -> PairSubject:
        """Read both files; notices of them are told."""
        paths = {"content": content, "style": style}
        read = {name: read_pair_image(path, name, images) for name, path in paths.items()}
        for name, image in read.items():
            for notice in image.told:
                tell(Noticed(f"the {name} image", notice))
        records = {
            name: RunImage.of(paths[name], image.picture, image.size).record()
            for name, image in read.items()
        }
        one, other = read.values()
        pair = Pair(one.picture.rgb, other.picture.rgb, one.places, other.places)
        masks = {name: image.mask for name, image in read.items() if image.mask is not None}
        return cls(pair, records, masks)

    def keep(self, folder: Path) -> None:
        """As :meth:`Subject.keep`: where tissue was found."""
        for name, mask in self.masks.items():
            write_png(folder / MASK_FILE.format(name), mask)

    def final(self, state: State) -> Generator:
        """As :meth:`Subject.final`: the average, its colours put right."""
        return final_generator(state, *self.data)

    def brushwork(self, config: TrainConfig) -> Brushwork | None:
        """As :meth:`Subject.brushwork`."""
        assert isinstance(config, PairConfig)
        return self.data.brushwork(config) if config.brushwork else None

    def preview(self, generator: Generator, config: TrainConfig) -> Pixels:
        """As :meth:`Subject.preview`: the content at most ``preview_width`` wide, translated."""
        return translated_small(self.data.content, config.preview_width, generator)

    def prepare_figures(self) -> None:
        """As :meth:`Subject.prepare_figures`."""
        self.comparison = self.comparison or Comparison(*self.data)

    def figures(self, generator: Generator) -> dict[str, float]:
        """As :meth:`Subject.figures`: of the content translated at its own size."""
        self.prepare_figures()
        assert self.comparison is not None
        return dataclasses.asdict(self.comparison.figures(translated(self.data.content, generator)))

    def write_report(
        self, record: RunRecord, target: Path, generator: Generator, step: int, progress: Progress
    ) -> None:
        """As :meth:`Subject.write_report`."""
        write_report(record, target, generator, *self.data, step=step, on_progress=progress)

    def report_bytes(self) -> int:
        """As :meth:`Subject.report_bytes`."""
        return expected_bytes(*self.data)

    def report_seconds(self, preview_seconds: float, config: TrainConfig) -> float:
        """As :meth:`Subject.report_seconds`."""
        content, style = self.data
        return expected_seconds(content, style, preview_seconds, config)
