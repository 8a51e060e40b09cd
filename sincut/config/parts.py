"""The parts of a training's configuration: fields that belong together, for whoever needs them.

All trainings have steps, chance, an optimiser, an objective and a log; those on a pair have crops
of two images, those on folders images that are resized first, and each has networks of its own.
Sources: *paper* (Park et al., ECCV 2020), *published* (the authors' code), *ours*. Functions take
the part that they need; a whole configuration is all of its parts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sincut.config.fields import (
    DEVICES,
    PRECISIONS,
    Config,
    amount_of,
    as_text,
    field_of,
    option,
)
from sincut.config.values import (
    BANDS_HELP,
    FULL,
    LEVEL_HELP,
    RANGE_HELP,
    REGION_HELP,
    bands_of,
    check_region,
    range_of,
)
from sincut.errors import SincutError


def another(part: type[Config], name: str, default: Any, help: str = "") -> Any:
    """A part's field with another default, and another meaning where ``help`` is given."""
    metadata = field_of(part, name).metadata
    return dataclasses.field(
        default=default, metadata={**metadata, **({"help": help} if help else {})}
    )


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Config):
    """How the images' values are taken."""

    range: str = option(FULL, RANGE_HELP.format(of="of the content"))
    bands: str = option("", BANDS_HELP.format(of="of the content"))
    style_range: str = option(FULL, "the same of the style")
    style_bands: str = option("", "the same of the style")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("range", "style_range"):
            range_of(self, name)
        for name in ("bands", "style_bands"):
            bands_of(self, name)


AS_THEY_ARE = ImageSettings()


@dataclass(frozen=True, kw_only=True)
class PartSettings(Config):
    """Which part of each image of a pair is read."""

    level: int = option(0, LEVEL_HELP.format(of="of a content"), low=0)
    region: tuple[int, ...] = option((), REGION_HELP.format(of="of the content"))
    style_level: int = option(0, "the same of the style", low=0)
    style_region: tuple[int, ...] = option((), "the same of the style")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("region", "style_region"):
            check_region(self, name)


@dataclass(frozen=True, kw_only=True)
class PairImageSettings(PartSettings, ImageSettings):
    """How each image of a pair is read."""


PAIR_AS_IT_IS = PairImageSettings()


@dataclass(frozen=True, kw_only=True)
class RunSettings(Config):
    """Chance, device, precision."""

    seed: int = option(0, "seed of every random draw", low=0, high=2**63 - 1)
    device: str = option("auto", "where to compute; auto: CUDA where present", choices=DEVICES)
    precision: str = option(
        "auto",
        "precision of the networks' convolutions; auto: bf16 where it is faster (on CUDA from "
        "compute capability 8.0; on CPUs with AMX or AVX512-BF16 if a short measurement says so, "
        "which is remembered for the machine), else fp32",
        choices=PRECISIONS,
    )
    record_steps: bool = option(
        True,
        "on CUDA, record a step as a graph and replay it; false issues every kernel by itself",
        advanced=True,
    )


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings(Config):
    """Length and optimisation."""

    steps: int = option(100_000, "steps (published: 16 epochs of 100,000 crops)", low=1)
    warm_steps: int = option(
        0,
        "steps of L1 towards a colour transfer of the content before the first (ours)",
        low=0,
        high=2**31 - 1,
    )
    learning_rate: float = option(0.002, "Adam's, for all networks (published)", low=1e-7, high=1)
    beta1: float = option(0.0, "Adam's (published)", low=0, high=0.999, advanced=True)
    beta2: float = option(0.99, "Adam's (published)", low=0, high=0.99999, advanced=True)
    schedule: str = option(
        "staircase",
        "schedule of the learning rate; staircase: 16 epochs, the last 8 falling by 1/9 each "
        "(published for a pair); epochs: constant for a folder's epochs, then falling from one to "
        "the next (published for folders); linear: constant for half of the steps, then to 0; "
        "constant",
        choices=("staircase", "epochs", "linear", "constant"),
    )
    ema_half_life: float = option(
        1000.0,
        "steps after which a weight's share in the written average is half; 0: off (ours)",
        low=0,
    )


@dataclass(frozen=True, kw_only=True)
class CropSettings(Config):
    """Crops of one image, and the tiles that D sees of them."""

    batch: int = option(16, "crops per step from each image (paper)", low=1, high=4096)
    crop: int = option(128, "side of a crop in pixels (paper 128, published 64)", low=16, high=2048)
    tile: int = option(64, "side of the tiles the discriminator sees (paper)", low=8, high=1024)
    zoom: str = option(
        "width",
        "what zoom_min and zoom_max mean; width: of the whole image in pixels (paper); "
        "factor: of its own size (published)",
        choices=("width", "factor"),
    )
    zoom_min: float = option(384.0, "smallest zoom (paper 384 pixels, published 1/3)", low=0.001)
    zoom_max: float = option(1024.0, "largest zoom (paper 1024 pixels, published 1)", low=0.001)
    zoom_axes: str = option(
        "equal",
        "equal: both axes alike (paper); independent: a factor each (published)",
        choices=("equal", "independent"),
        advanced=True,
    )
    zoom_per: str = option(
        "step",
        "draw a zoom once per step (paper) or per crop (published)",
        choices=("step", "crop"),
        advanced=True,
    )
    placement: str = option(
        "anywhere",
        "where crops lie; grid: cells side by side from a random offset (published)",
        choices=("anywhere", "grid"),
        advanced=True,
    )
    mirror: float = option(0.5, "probability that a crop is mirrored (published)", low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zoom_min > self.zoom_max:
            raise SincutError(
                f"zoom_min must not be above zoom_max, got {self.zoom_min:g} and "
                f"{self.zoom_max:g}; try --set zoom_min={self.zoom_max:g}"
            )
        if self.zoom == "factor" and self.zoom_max > 1:
            raise SincutError(
                f"zoom_max must be at most 1 where zoom=factor, got {self.zoom_max:g}; "
                "try --set zoom_min=0.333 --set zoom_max=1"
            )
        if self.tile & (self.tile - 1):
            raise SincutError(
                f"tile must be a power of two from 8 to 1024, got {self.tile}; try --set tile=64"
            )


@dataclass(frozen=True, kw_only=True)
class PlaceSettings(Config):
    """Where in each image of a pair its crops lie."""

    mask: str = option(
        "none",
        "where the centres of the content's crops lie; auto: on tissue, told from the glass of a "
        "slide by its colours (ours); none: anywhere",
        choices=("none", "auto"),
    )
    style_mask: str = option("none", "the same of the style", choices=("none", "auto"))
    regions: int = option(
        0,
        "train on so many squares of the content in the place of all of it, drawn at random apart "
        "from each other, each zoomed like an image of its own (ours); 0: on all of it",
        low=0,
        high=4096,
    )
    style_regions: int = option(0, "the same of the style", low=0, high=4096)
    region_side: int = option(512, "of these squares, in pixels", low=16, high=8192)


@dataclass(frozen=True, kw_only=True)
class PlacedCrops(PlaceSettings, CropSettings):
    """Crops of a pair."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Config):
    """The terms of the objective, their weights, and PatchNCE."""

    gan: str = option(
        "non-saturating",
        "adversarial loss; non-saturating: softplus (published for a pair); least-squares: squared "
        "distance to 1 and 0 (published for folders)",
        choices=("non-saturating", "least-squares"),
        advanced=True,
    )
    lambda_gan: float = option(1.0, "weight of the adversarial term of G (published)", low=0)
    lambda_r1: float = option(1.0, "weight of the R1 penalty of D (published)", low=0)
    r1_every: int = option(
        1, "steps between R1 penalties, whose weight is multiplied by this (published: 1)", low=1
    )
    lambda_x: float = option(4.0, "weight of PatchNCE(x, G(x)) (published)", low=0)
    lambda_y: float = option(4.0, "weight of PatchNCE(y, G(y)); above 0 both are halved", low=0)
    lambda_identity: float = option(1.0, "weight of |G(y) − y| (published)", low=0)
    flip_equivariance: bool = option(
        False, "mirror G's input with probability ½ per step (FastCUT)"
    )

    # PatchNCE
    layers: tuple[int, ...] = option((0, 2, 4), "encoder layers, comma separated (published)")
    patches: int = option(256, "positions per crop and layer (CUT 256, published 1)", low=1)
    temperature: float = option(0.07, "τ of the similarities (paper)", low=0.001, high=100)
    negatives: str = option(
        "minibatch",
        "where they come from: the whole minibatch (published) or the same crop (CUT)",
        choices=("minibatch", "crop"),
    )
    epsilon: float = option(
        0.0,
        "added to the lengths that projected features are divided by (published for folders: 1e-7, "
        "which matters while they are short)",
        low=0,
        high=1,
        advanced=True,
    )
    projection_width: int = option(
        256, "of the projection heads (paper)", low=1, high=8192, advanced=True
    )

    @property
    def penalised(self) -> bool:
        """Whether there are steps with an R1 penalty."""
        return self.lambda_r1 > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or sorted(set(self.layers)) != list(self.layers):
            raise SincutError(
                "layers must be different encoder layers in rising order, got "
                f"{as_text(self.layers) or 'none'}; try --set layers=0,2,4"
            )
        weights = [name for name in self.weights() if hasattr(self, name)]
        if not any(getattr(self, name) for name in weights):
            raise SincutError(
                f"at least one of {', '.join(weights)} must be above 0, got 0 for all; "
                "try --set lambda_x=4"
            )

    @staticmethod
    def weights() -> tuple[str, ...]:
        """The fields that are weights of G's terms."""
        return (
            *("lambda_gan", "lambda_x", "lambda_y", "lambda_identity"),
            *("lambda_painting", "lambda_strokes"),
        )


LOOK = 0.5  # that of a painting where nothing else is asked for


@dataclass(frozen=True, kw_only=True)
class PaintingSettings(Config):
    """What G learns from the content as it is painted with patches of the style (ours)."""

    look: float = option(
        LOOK,
        "of the painting that G learns from: 0 the content in the style's colours, 1 fullest "
        "strokes; where lambda_painting and lambda_strokes are 0 there is none (ours)",
        low=0,
        high=1,
    )
    lambda_painting: float = option(0.0, "weight of |G(x) − painting| (ours)", low=0)
    lambda_strokes: float = option(
        0.0,
        "weight of the sliced distance between the patches of G(x) and of the painting, crop by "
        "crop, at three scales (ours)",
        low=0,
    )

    brushwork: bool = option(
        False,
        "the model keeps the style (at the content's width), and sincut translate lays patches of "
        "it on what G makes (ours)",
    )
    stroke: float = option(
        1.0,
        "size of the painting's and the brushwork's strokes, in units of the style's own at the "
        "content's width (ours)",
        low=0.25,
        high=4,
    )

    @property
    def paints(self) -> bool:
        """Whether there is a painting to learn from."""
        return self.lambda_painting > 0 or self.lambda_strokes > 0


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Config):
    """Widths and depths of G and D on a pair: StyleGAN2's residual blocks."""

    channels: int = option(
        40, "of G at full resolution (published: 40 at 128, 80 at 64)", low=1, high=1024
    )
    blocks: int = option(
        6, "residual blocks of G, an even number (published)", low=2, high=64, advanced=True
    )
    downsamplings: int = option(1, "of G (published)", low=1, high=5, advanced=True)
    noise: bool = option(
        True,
        "G gets noise, whose weights start at 0 (published); false: they stay there",
        advanced=True,
    )
    correction: bool = option(
        False,
        "G's output is a correction, made at full resolution, to an affine map of the input's "
        "colours that starts as the transfer from content to style (ours)",
    )
    discriminator_channels: int = option(
        32, "of D at full resolution (published)", low=1, high=1024
    )
    discriminator_max_channels: int = option(
        384, "of D at any resolution (published)", low=1, high=4096, advanced=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks % 2:
            raise SincutError(
                f"blocks must be even, got {self.blocks}; try --set blocks={self.blocks + 1}"
            )


@dataclass(frozen=True, kw_only=True)
class FolderSettings(Config):
    """What a step is given of images in folders, and how long that goes on."""

    batch: int = option(1, "images per step from each folder (published)", low=1, high=4096)
    preprocess: str = option(
        "resize_and_crop",
        "how an image is made ready for a crop; resize_and_crop: resized to a square of load "
        "pixels (published, aspect lost); scale_width_and_crop: to a width of load, its height at "
        "least a crop's (published); scale_shortside_and_crop: its shorter side enlarged to load, "
        "left where it is larger (published); crop: left as it is (published); shortside: its "
        "shorter side resized to load, aspect kept (ours)",
        choices=(
            "resize_and_crop",
            "scale_width_and_crop",
            "scale_shortside_and_crop",
            "crop",
            "shortside",
        ),
    )
    load: int = option(286, "pixels that an image is resized to (published)", low=16, high=16384)
    falling_load: int = option(
        256,
        "the same in the falling epochs (published: a crop's, so that there is nothing to choose)",
        low=16,
        high=16384,
    )
    crop: int = option(256, "side of a crop in pixels (published)", low=16, high=4096)
    mirror: float = option(0.5, "probability that an image is mirrored (published)", low=0, high=1)
    epochs: int = option(
        200,
        "passes over the larger folder at the full learning rate (published: 200, FastCUT 150); "
        "where --steps or --minutes give the length, epochs and falling_epochs are its shares",
        low=1,
        high=1_000_000,
    )
    falling_epochs: int = option(
        200,
        "passes over the larger folder in which the rate falls (published: 200, FastCUT 50)",
        low=0,
        high=1_000_000,
    )
    image_memory: str = option(
        "auto",
        "memory for decoded images, such as 2GB; what does not fit is decoded again for every "
        "step; auto: a quarter of what is free",
        advanced=True,
    )
    workers: int = option(
        -1,
        "processes that decode images which do not fit; -1: one fewer than the processor's cores, "
        "up to 8; the result does not depend on it",
        low=-1,
        high=256,
        advanced=True,
    )

    keep: str = option(
        "last",
        "which model is kept: the last, or the best by KID-lite of the held-out images, which "
        "takes --evaluate-every and the extra judge",
        choices=("last", "best"),
    )

    def image_bytes(self) -> int | None:
        """``image_memory`` in bytes; ``None`` for auto."""
        return amount_of(self, "image_memory", "2GB", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.image_bytes()
        for name in ("load", "falling_load"):
            if self.preprocess != "crop" and getattr(self, name) < self.crop:
                raise SincutError(
                    f"{name} must be at least crop ({self.crop}), got {getattr(self, name)}; "
                    f"try --set {name}={self.crop}"
                )
        if self.crop % 4:
            raise SincutError(
                f"crop must be a multiple of 4, got {self.crop}; try --set "
                f"crop={max(self.crop // 4 * 4, 16)}"
            )


@dataclass(frozen=True, kw_only=True)
class ResnetSettings(Config):
    """Widths and depths of G and D on folders: a ResNet and a PatchGAN."""

    channels: int = option(64, "of G at full resolution (published)", low=1, high=1024)
    blocks: int = option(9, "residual blocks of G (published: 9, or 6)", low=1, high=64)
    discriminator_channels: int = option(
        64, "of D at full resolution (published)", low=1, high=1024
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings(Config):
    """What is written on the way."""

    log_every: int = option(10, "steps between records of the log", low=1, advanced=True)
    preview_every: int = option(1000, "steps between previews; 0: only the first and last", low=0)
    preview_width: int = option(1024, "longest side of a preview in pixels", low=16, high=16384)
    evaluate_every: int = option(
        0,
        "steps between figures of quality in the log, from the end of the warm start; 0: none",
        low=0,
    )
    checkpoint_every: int = option(1000, "steps between saved states", low=1, advanced=True)


def learned_share(width: int, config: PlacedCrops) -> float:
    """The largest zoom of a content of that width, as a factor of its own size; where squares of it
    are trained on, that of a square."""
    return zoom_range(config.region_side if config.regions else width, config)[1]


def zoom_range(width: int, config: CropSettings) -> tuple[float, float]:
    """Smallest and largest zoom as factors of the image's own size."""
    unit = width if config.zoom == "width" else 1
    return min(config.zoom_min / unit, 1.0), min(config.zoom_max / unit, 1.0)
