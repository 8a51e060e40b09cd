"""How to translate images, and how to inspect a model."""

from __future__ import annotations

from dataclasses import dataclass

from sincut.config.fields import DEVICES, PRECISIONS, Config, amount_of, option
from sincut.config.values import (
    AUTO,
    BANDS_HELP,
    COPY,
    DROP,
    FULL,
    LEARNED,
    LEVEL_HELP,
    RANGE_HELP,
    REGION_HELP,
    bands_of,
    check_region,
    range_of,
)
from sincut.errors import SincutError


@dataclass(frozen=True, kw_only=True)
class TranslateConfig(Config):
    """How to translate images with a trained model."""

    tile: str = option("auto", "side of a tile in pixels (16 or more), auto, or whole")
    border: str = option(
        "reflect",
        "what the network sees beyond the image: its mirror, or zeros as in the published code, "
        "which leave a visible frame",
        choices=("reflect", "zero"),
        advanced=True,
    )
    seed: int = option(
        0, "seed of the noise, which is a function of it and a pixel's place", low=0, high=2**63 - 1
    )
    device: str = option("auto", "where to compute; auto: CUDA where present", choices=DEVICES)
    precision: str = option(
        "auto",
        "precision of the convolutions; auto: fp32, the exact one",
        choices=PRECISIONS,
        advanced=True,
    )

    range: str = option(
        LEARNED,
        RANGE_HELP.format(of="of the input")
        + "; learned: what the model's content had, where the values are of the same type",
    )
    bands: str = option("", BANDS_HELP.format(of="of the input"))

    # The look
    working_width: int = option(
        0,
        "translate at this width in pixels, at most the image's own, and carry the change back to "
        "full size; 0: at the image's own",
        low=0,
        high=1_000_000,
    )
    strength: float = option(
        1.0, "share of the translation in the output; the rest is content", low=0, high=1
    )
    brushwork: float = option(
        1.0,
        "share of the style's own patches that a model lays on what its network makes, where it "
        "has them; the rest is the network's alone",
        low=0,
        high=1,
    )
    mask: str = option(
        "", "image of the input's size: white is translated, black stays content, grey is mixed"
    )

    other_bands: str = option(
        DROP,
        "bands of the input that are not translated: dropped, or copied behind the others into a "
        "TIFF",
        choices=(DROP, COPY),
    )

    # Which part of the input
    level: int = option(0, LEVEL_HELP.format(of="of an input"), low=0)
    region: tuple[int, ...] = option((), REGION_HELP.format(of="of the input"))

    # Several processes
    workers: int = option(
        1,
        "processes on this machine that share an image written as OME-Zarr, or take one each of "
        "many files",
        low=1,
        high=1024,
    )
    shard: str = option(
        "",
        "I/N: be process I (from 0) of N that share an image written as OME-Zarr, or many files, "
        "on any machines",
    )

    cluster: str = option(
        "",
        "address of a dask scheduler, such as tcp://HOST:8786, whose workers make an image written "
        "as OME-Zarr, or many files; input and output lie where they all read and write",
    )

    # Files
    depth: str = option(
        "auto",
        "bits per channel of the output; auto: the input's, or what the format can hold",
        choices=("auto", "8", "16", "float"),
    )
    compression: str = option(
        "deflate", "of TIFF files", choices=("deflate", "none"), advanced=True
    )
    pyramid: bool = option(
        False,
        "add smaller copies of the image to a TIFF, for viewers: a Cloud Optimized GeoTIFF; takes "
        "twice the disk while it is ended",
    )
    ome_zarr: str = option(
        "0.5",
        "version of an OME-Zarr; 0.4 is for readers that know no shards: sixteen times the files",
        choices=("0.5", "0.4"),
    )
    strip_metadata: bool = option(
        False, "write no EXIF, DPI, geo tags, XMP, IPTC or texts (EXIF may hold a place)"
    )
    force: bool = option(False, "overwrite existing outputs")
    resume: bool = option(False, "go on with interrupted outputs; finished ones stay as they are")
    skip_existing: bool = option(False, "leave out inputs whose output is there")

    # Limits
    max_pixels: int = option(
        20_000_000_000,
        "refuse inputs with more pixels than this, before decoding",
        low=1,
        advanced=True,
    )
    max_memory: str = option(
        "auto", "host memory to stay below, such as 1GB; auto: half of what is free"
    )
    dry_run: bool = option(False, "only say what would be done, and what it would take")
    verify: int = option(
        0,
        "translate this many tiles again by other windows (of twice the halo, or all that finds "
        "the norms of the whole image) and report the difference",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tile_pixels(1)
        self.memory_bytes(1)
        range_of(self, "range", (LEARNED, AUTO, FULL))
        bands_of(self, "bands")
        if self.verify and self.working_width:
            raise SincutError(
                "verify compares tiles of the network at the image's own size, got "
                f"{self.flag('verify', self.verify)} with another size; try it without"
            )

        check_region(self, "region")
        ways = [
            self.flag(name, getattr(self, name))
            for name in ("workers", "shard", "cluster")
            if getattr(self, name) not in (1, "")
        ]
        if len(ways) > 1:
            raise SincutError(f"{' and '.join(ways)} both divide an image; try one of them")
        if self.share[1] > 1 and self.force:
            raise SincutError(
                "shard goes on with what the others have begun, got --force, which starts anew; "
                "try it without, after removing what was begun"
            )

    @property
    def shared(self) -> bool:
        """Whether several processes make an image."""
        return self.workers > 1 or self.share[1] > 1 or bool(self.cluster)

    @property
    def share(self) -> tuple[int, int]:
        """Which part of an image this process works on, from 0, and of how many."""
        if not self.shard:
            return 0, 1
        index, slash, count = self.shard.partition("/")
        numbers = index.isascii() and index.isdigit() and count.isascii() and count.isdigit()
        if not (slash and numbers) or not int(index) < int(count):
            raise SincutError(
                "shard must be I/N, a process's number from 0 and how many there are, got "
                f"{self.shard}; try --shard 0/4"
            )
        return int(index), int(count)

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
        count = amount_of(self, "max_memory", "1GB")
        return automatic if count is None else count


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
