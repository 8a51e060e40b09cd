"""What can be set: one frozen dataclass per job, with default, meaning and source of every field.

Sources: *paper* (Park et al., ECCV 2020), *published* (the authors' code), *ours*. The command line
reads defaults and help from here, a preset is a named set of replaced fields, and the resolved
configuration is written beside the model. No torch here: ``sincut --help`` must answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from sincut.errors import SincutError
from sincut.units import byte_count


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its meaning and its allowed values (bounds are inclusive)."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


METHODS = ("sincut", "cut", "fastcut")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


class Config:
    """What the frozen dataclasses below share: validation, text forms, replacement."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _checked(type(self), field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def flag(cls, name: str, value: Any) -> str:
        """What to type to set a field on the command line."""
        return f"--{name.replace('_', '-')} {_text(value)}"

    def replaced(self, **changes: Any) -> Self:
        """A copy with other values; unknown names and bad values raise :class:`SincutError`."""
        for name in changes:
            field_of(type(self), name)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :meth:`from_dict` reads them back."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        for name in values:
            field_of(cls, name)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How to train on one pair. The defaults are the preset ``paper``."""

    preset: str = option("paper", "name of the preset the other values started from")
    method: str = option("sincut", "what the losses are set to", choices=METHODS)
    seed: int = option(0, "seed of every random draw", low=0, high=2**63 - 1)
    device: str = option("auto", "where to compute; auto: CUDA where present", choices=DEVICES)
    precision: str = option(
        "auto",
        "precision of the networks' convolutions; auto: bf16 where it is faster (on CUDA from "
        "compute capability 8.0; on CPUs with AMX or AVX512-BF16 if a short measurement says so), "
        "else fp32",
        choices=PRECISIONS,
    )
    record_steps: bool = option(
        True, "on CUDA, record a step as a graph and replay it; false issues every kernel by itself"
    )

    # Length and optimisation
    steps: int = option(100_000, "SinCUT steps (published: 16 epochs of 100,000 crops)", low=1)
    warm_steps: int = option(
        0,
        "steps of L1 towards a colour transfer of the content before the first (ours)",
        low=0,
        high=2**31 - 1,
    )
    learning_rate: float = option(0.002, "Adam's, for all networks (published)", low=1e-7, high=1)
    beta1: float = option(0.0, "Adam's (published)", low=0, high=0.999)
    beta2: float = option(0.99, "Adam's (published)", low=0, high=0.99999)
    schedule: str = option(
        "staircase",
        "schedule of the learning rate; staircase: 16 epochs, the last 8 falling by 1/9 each "
        "(published); linear: constant for half of the steps, then to 0; constant",
        choices=("staircase", "linear", "constant"),
    )
    ema_half_life: float = option(
        1000.0,
        "steps after which a weight's share in the written average is half; 0: off (ours)",
        low=0,
    )

    # Crops
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
    )
    zoom_per: str = option(
        "step",
        "draw a zoom once per step (paper) or per crop (published)",
        choices=("step", "crop"),
    )
    placement: str = option(
        "anywhere",
        "where crops lie; grid: cells side by side from a random offset (published)",
        choices=("anywhere", "grid"),
    )
    mirror: float = option(0.5, "probability that a crop is mirrored (published)", low=0, high=1)
    candidates: int = option(
        1,
        "style crops looked at for every content crop, at random among up to 2048 known ones; D "
        "gets one beside that most like it in colour and layout, so that G need not turn one "
        "kind of thing into another (ours; 1: any crop of the style)",
        low=1,
        high=2048,
    )

    # Losses
    lambda_gan: float = option(1.0, "weight of the adversarial term of G (published)", low=0)
    lambda_r1: float = option(1.0, "weight of the R1 penalty of D (published)", low=0)
    r1_every: int = option(
        1, "steps between R1 penalties, whose weight is multiplied by this (published: 1)", low=1
    )
    whiten: bool = option(
        False,
        "D's input is whitened by the style's statistics, so that fine texture and colour count as "
        "much as coarse light and dark (ours)",
    )
    lambda_texture: float = option(
        0.0,
        "weight of a second adversarial term, of a discriminator that sees only the energies of "
        "textures, cell by cell of 16 pixels (ours)",
        low=0,
    )
    lambda_texture_r1: float = option(
        0.1, "weight of the R1 penalty of the texture discriminator (ours)", low=0
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
    projection_width: int = option(256, "of the projection heads (paper)", low=1, high=8192)

    # Networks
    channels: int = option(
        40, "of G at full resolution (published: 40 at 128, 80 at 64)", low=1, high=1024
    )
    blocks: int = option(6, "residual blocks of G, an even number (published)", low=2, high=64)
    downsamplings: int = option(1, "of G (published)", low=1, high=5)
    correction: bool = option(
        False,
        "G's output is a correction, made at full resolution, to an affine map of the input's "
        "colours that starts as the transfer from content to style (ours)",
    )
    discriminator_channels: int = option(
        32, "of D at full resolution (published)", low=1, high=1024
    )
    discriminator_max_channels: int = option(
        384, "of D at any resolution (published)", low=1, high=4096
    )

    # What is written on the way
    log_every: int = option(10, "steps between records of the log", low=1)
    preview_every: int = option(1000, "steps between previews; 0: only the first and last", low=0)
    preview_width: int = option(1024, "longest side of a preview in pixels", low=16, high=16384)
    evaluate_every: int = option(
        0,
        "steps between figures of quality in the log, from the end of the warm start; 0: none",
        low=0,
    )
    checkpoint_every: int = option(1000, "steps between saved states", low=1)

    @property
    def penalised(self) -> bool:
        """Whether there are steps with an R1 penalty."""
        of_texture = self.lambda_texture > 0 and self.lambda_texture_r1 > 0
        return self.lambda_r1 > 0 or of_texture

    @classmethod
    def flag(cls, name: str, value: Any) -> str:
        """As :meth:`Config.flag`; most fields have no option of their own but ``--set``."""
        if name in ("preset", "method", "seed", "device", "precision", "steps", "evaluate_every"):
            return super().flag(name, value)
        return f"--set {name}={_text(value)}"

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
        if self.crop % self.tile or self.crop % 2**self.downsamplings:
            raise SincutError(
                f"crop must be a multiple of tile ({self.tile}) and of 2^downsamplings "
                f"({2**self.downsamplings}), got {self.crop}; try --set crop={2 * self.tile}"
            )
        if self.blocks % 2:
            raise SincutError(
                f"blocks must be even, got {self.blocks}; try --set blocks={self.blocks + 1}"
            )
        deepest = self.downsamplings + self.blocks // 2 + 1
        if not self.layers or sorted(set(self.layers)) != list(self.layers):
            raise SincutError(
                "layers must be different encoder layers in rising order, got "
                f"{_text(self.layers) or 'none'}; try --set layers=0,2,4"
            )
        if self.layers[0] < 0 or self.layers[-1] > deepest:
            raise SincutError(
                f"layers must be between 0 and {deepest} (the encoder's last), got "
                f"{_text(self.layers)}; try --set layers=0,2,4"
            )
        negatives = self.patches * (self.batch if self.negatives == "minibatch" else 1) - 1
        if negatives < 1 and (self.lambda_x or self.lambda_y):
            raise SincutError(
                f"PatchNCE needs negatives, got patches={self.patches} with "
                f"negatives={self.negatives} and batch={self.batch}; try --set patches=256"
            )
        weights = ("gan", "texture", "x", "y", "identity")
        if not any(getattr(self, f"lambda_{name}") for name in weights):
            raise SincutError(
                f"at least one of {', '.join(f'lambda_{name}' for name in weights)} must be above "
                "0, got 0 for all; try --set lambda_x=4"
            )


@dataclass(frozen=True, kw_only=True)
class TranslateConfig(Config):
    """How to translate images with a trained model."""

    tile: str = option("auto", "side of a tile in pixels (16 or more), auto, or whole")
    border: str = option(
        "reflect",
        "what the network sees beyond the image: its mirror, or zeros as in the published code, "
        "which leave a visible frame",
        choices=("reflect", "zero"),
    )
    seed: int = option(
        0, "seed of the noise, which is a function of it and a pixel's place", low=0, high=2**63 - 1
    )
    device: str = option("auto", "where to compute; auto: CUDA where present", choices=DEVICES)
    precision: str = option(
        "auto", "precision of the convolutions; auto: fp32, the exact one", choices=PRECISIONS
    )

    # The look
    working_width: int = option(
        0,
        "translate at this width in pixels, at most the image's own, and carry the change back to "
        "full size; 0: at the image's own",
        low=0,
        high=1_000_000,
    )
    scale: float = option(
        1.0, "as working_width, as a factor of the image's own size", low=0.0001, high=1
    )
    strength: float = option(
        1.0, "share of the translation in the output; the rest is content", low=0, high=1
    )
    mask: str = option(
        "", "image of the input's size: white is translated, black stays content, grey is mixed"
    )

    # Files
    depth: str = option(
        "auto",
        "bits per channel of the output; auto: the input's, or what the format can hold",
        choices=("auto", "8", "16", "float"),
    )
    compression: str = option("deflate", "of TIFF files", choices=("deflate", "none"))
    pyramid: bool = option(False, "add smaller copies of the image to a TIFF, for viewers")
    strip_metadata: bool = option(False, "write no EXIF, DPI or geo tags (EXIF may hold a place)")
    force: bool = option(False, "overwrite existing outputs")
    resume: bool = option(False, "go on with interrupted outputs; finished ones stay as they are")
    skip_existing: bool = option(False, "leave out inputs whose output is there")

    # Limits
    max_pixels: int = option(
        20_000_000_000, "refuse inputs with more pixels than this, before decoding", low=1
    )
    max_memory: str = option(
        "auto", "host memory to stay below, such as 1GB; auto: half of what is free"
    )
    dry_run: bool = option(False, "only say what would be done, and what it would take")
    verify: int = option(
        0, "translate this many tiles again with twice the halo and report the difference", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tile_pixels(1)
        self.memory_bytes(1)
        if self.working_width and self.scale != 1:
            raise SincutError(
                "working_width and scale say the same in two ways, got both; try only "
                f"--working-width {self.working_width}"
            )
        if self.verify and (self.working_width or self.scale != 1):
            raise SincutError(
                "verify compares tiles of the network at the image's own size, got "
                f"{self.flag('verify', self.verify)} with another size; try it without"
            )

    def tile_pixels(self, automatic: int, whole: int = 0) -> int:
        """The side of a tile: the number given, ``automatic`` for auto, ``whole`` for whole."""
        if self.tile in ("auto", "whole"):
            return automatic if self.tile == "auto" else whole
        if not (self.tile.isascii() and self.tile.isdigit()) or int(self.tile) < 16:
            raise SincutError(
                "tile must be a number of pixels from 16, auto or whole, "
                f"got {self.tile}; try --tile 512"
            )
        return int(self.tile)

    def memory_bytes(self, automatic: int) -> int:
        """Host memory to stay below, in bytes; ``automatic`` for auto."""
        if self.max_memory == "auto":
            return automatic
        try:
            count = byte_count(self.max_memory)
        except ValueError:
            count = 0
        if count < 1:
            raise SincutError(
                f"max_memory must be an amount such as 1GB or auto, got {self.max_memory}; "
                "try --max-memory 1GB"
            )
        return count


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Config):
    """How to inspect an image."""

    width: int = option(
        2048,
        "longest side of the pictures in pixels; smaller images keep their size",
        low=64,
        high=16_384,
    )
    seed: int = option(
        0,
        "seed of the places that are sampled for principal components and accuracy",
        low=0,
        high=2**63 - 1,
    )


# What short runs have in common; docs/experiments.md has the figures.
_SHORT: dict[str, Any] = {
    "schedule": "linear",
    "crop": 64,
    "patches": 64,
    # Textures are learned at the size they will have: images up to 1280 pixels wide as they are.
    "zoom_min": 1280.0,
    "zoom_max": 1536.0,
    # The style's colours and the content's detail need not be learned from nothing …
    "correction": True,
    # … nor be kept by an identity term. PatchNCE sees the input's colours in layer 0 and pulls
    # towards them: with the published weight of 4 the content's own would stay.
    "lambda_x": 2.5,
    "lambda_y": 0.0,
    "lambda_identity": 0.0,
    # D sees fine texture as well as the rest, judges like against like, and has a helper that
    # learns fast. Whitened tiles are larger numbers than tiles, so R1 weighs more. What a tile
    # cannot hold, D cannot ask for: with small ones the content's layout is safer.
    "tile": 32,
    "whiten": True,
    "lambda_r1": 20.0,
    "candidates": 32,
    "lambda_texture": 1.5,
}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("the paper's setting: 16 crops of 128 pixels, 100,000 steps", {}),
    "published": (
        "the authors' code's defaults: 64-pixel crops from a grid, one patch per crop",
        {
            "crop": 64,
            "channels": 80,
            "zoom": "factor",
            "zoom_min": 1 / 3,
            "zoom_max": 1.0,
            "zoom_axes": "independent",
            "zoom_per": "crop",
            "placement": "grid",
            "patches": 1,
            "ema_half_life": 0.0,
            "precision": "fp32",
        },
    ),
    "draft": (
        "a small network, a short schedule, a warm start: minutes on 2 CPU cores",
        {
            **_SHORT,
            "steps": 1000,
            "warm_steps": 100,
            "ema_half_life": 100.0,
            "batch": 8,
            "channels": 16,
            "discriminator_channels": 16,
            "discriminator_max_channels": 128,
            "r1_every": 8,
            "preview_every": 200,
            "preview_width": 512,
            "checkpoint_every": 200,
        },
    ),
    "fast": (
        "draft's settings with a larger network and more steps, for a GPU",
        {
            **_SHORT,
            "steps": 20_000,
            "warm_steps": 1000,
            "ema_half_life": 300.0,
            "channels": 32,
            "patches": 128,
            "r1_every": 16,
        },
    ),
}

# What a method changes on one pair; everything else stays SinCUT's.
_METHOD_CHANGES: dict[str, dict[str, Any]] = {
    "sincut": {},
    "cut": {"lambda_x": 1.0, "lambda_y": 1.0, "lambda_identity": 0.0},
    "fastcut": {
        "lambda_x": 10.0,
        "lambda_y": 0.0,
        "lambda_identity": 0.0,
        "flip_equivariance": True,
    },
}


def train_config(preset: str, method: str = "sincut", **changes: Any) -> TrainConfig:
    """The preset's values, over them the method's, over them ``changes``."""
    if preset not in PRESETS:
        raise _unknown_preset(preset)
    for name in changes:
        field_of(TrainConfig, name)
    of_method = _METHOD_CHANGES.get(method, {})  # an unknown one is refused by the dataclass
    values = {**PRESETS[preset][1], **of_method, **changes}
    return TrainConfig(**{**values, "preset": preset, "method": method})


def _unknown_preset(name: str) -> SincutError:
    allowed = ", ".join(PRESETS)
    return SincutError(f"preset must be one of {allowed}, got {name}; try --preset draft")


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, str]:
    """``("name=value", …)`` as a dictionary; the values are read by the field they go to."""
    changes = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SincutError(
                f"--set must be name=value, got {assignment}; try --set temperature=0.07"
            )
        if name in ("preset", "method"):
            raise SincutError(f"{name} is not set with --set; try --{name} {value}")
        field_of(TrainConfig, name)
        changes[name] = value
    return changes


def field_of(config: type[Config], name: str) -> dataclasses.Field[Any]:
    """The field of that name, or a :class:`SincutError` that lists all names."""
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    if name not in fields:
        raise SincutError(
            f"there is no field {name} in the configuration; allowed: {', '.join(sorted(fields))}"
        )
    return fields[name]


def _checked(config: type[Config], field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in the field's type and range; text is parsed, as it comes from ``--set``."""
    name, low, high = field.name, field.metadata["low"], field.metadata["high"]
    hint = f"try {config.flag(name, field.default)}"
    try:
        value = _PARSERS[type(field.default)](value)
    except (KeyError, TypeError, ValueError, OverflowError):
        kind = _KINDS[type(field.default)]
        raise SincutError(f"{name} must be {kind}, got {value}; {hint}") from None
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise SincutError(f"{name} must be one of {', '.join(choices)}, got {value}; {hint}")
    if type(value) in (int, float):
        below, above = low is not None and value < low, high is not None and value > high
        if below or above or not abs(value) < 1e300:
            allowed = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise SincutError(f"{name} must be {allowed}, got {value}; {hint}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    value = value.lower() if isinstance(value, str) else value  # Python's own spelling is fine
    return {True: True, False: False, "true": True, "false": False}[value]


def _whole_numbers(value: Any) -> tuple[int, ...]:
    return tuple(_whole(item) for item in (value.split(",") if isinstance(value, str) else value))


_PARSERS: dict[type, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: _truth,
    str: str,
    tuple: _whole_numbers,
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "whole numbers separated by commas",
}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
