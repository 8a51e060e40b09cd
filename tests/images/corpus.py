"""A corpus of image files of odd kinds with known pixels, made by independent writers.

Formats, sample types, layouts, colours, orientations, sizes and metadata are crossed at random, but
by a fixed seed: there are too many for all of them. Each case says what a translation of strength 0
has to give: pixels, what is kept beside them, and what is said to be lost.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from tests.images.test_pillow import GREY, SRGB, WIDE, png

Array = np.ndarray
SIZES = ((1, 1), (1, 13), (13, 1), (7, 9), (16, 32), (17, 33), (5, 259), (259, 3))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>b</a></x:xmpmeta>'
TURN: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
BITS64 = "its values of 64 bits are read as 32 bits"
BEYOND = "its channels beyond colour and alpha are not kept"
PALETTE = "its palette is converted to RGB"
CMYK = "CMYK is converted to sRGB"


@dataclass(frozen=True)
class Case:
    """A file, and what its translation of strength 0 is.

    ``write`` makes the file; ``pixels`` (H, W, 3 or 4) are those of the output, in its depth, with
    ``tolerance`` where the file cannot say them exactly. ``kept`` is what stands in the output, by
    name, ``notices`` what is said. ``needs`` names modules that writing or reading takes.
    """

    name: str
    ending: str
    write: Callable[[Path], Any]
    pixels: Array
    notices: tuple[str, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    output: str = ".tif"
    tolerance: int = 0


def every_case() -> list[Case]:
    """All of them, each under a name of its own."""
    tiffs = [*by_tifffile(), *by_tifffile_codecs(), *by_tifffile_pages()]
    return [*tiffs, *by_pillow(), *by_hand(), *by_vips(), *by_gdal()]


def noise(name: str, size: tuple[int, ...], dtype: str, low: float = 0, high: float = 1) -> Array:
    """Random samples between shares of white; floats of [0, 1]."""
    rng = np.random.default_rng(sum(name.encode()))
    if np.dtype(dtype).kind == "f":
        return (low + (high - low) * rng.random(size)).astype(dtype)
    top = np.iinfo(dtype).max
    return rng.integers(int(low * top), int(high * top) + 1, size).astype(dtype)


def seen(colour: Array, alpha: Array | None = None, orientation: int = 1) -> Array:
    """(H, W[, 1 or 3]) samples as upright RGB or RGBA in the output's depth."""
    colour = colour.reshape(*colour.shape[:2], -1)
    rgb = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
    if alpha is not None:
        rgb = np.dstack((rgb, alpha))
    return TURN[orientation](rgb.astype(np.float32 if rgb.dtype.kind == "f" else rgb.dtype))


# ------------------------------------------------------------------------------------ tifffile


def by_tifffile(count: int = 150) -> Iterator[Case]:
    """TIFF of every sample type, layout, byte order and size that it writes without codecs."""
    choose = random.Random(1)
    for number in range(count):
        dtype = choose.choice(("uint8", "uint8", "uint16", "float16", "float32", "float64"))
        colour = choose.choice(("grey", "white", "rgb", "rgb", "rgba", "assoc", "greya", "beyond"))
        layout = choose.choice(("strip", "strips", "tiles", "planes", "planes in tiles"))
        packing = choose.choice(("none", "deflate", "predicted", "packbits", "lzma"))
        order, big = choose.choice("<>"), choose.random() < 0.3
        orientation = choose.choice((1, 1, 2, 3, 4, 5, 6, 7, 8))
        yield _tifffile_case(
            f"tifffile-{number}-{dtype}-{colour}-{layout}-{packing}-{order}-{orientation}",
            choose.choice(SIZES), dtype, colour, layout, packing, orientation,
            {"byteorder": order, "bigtiff": big},
            choose.sample(("icc", "make", "xmp", "dpi"), choose.randrange(4)),
        )  # fmt: skip


def _tifffile_case(
    name: str,
    size: tuple[int, int],
    dtype: str,
    colour: str,
    layout: str,
    packing: str,
    orientation: int,
    options: dict[str, Any],
    said: list[str],
) -> Case:
    channels = {"grey": 1, "white": 1, "rgb": 3, "rgba": 4, "assoc": 4, "greya": 2, "beyond": 5}
    array = noise(name, (*size, channels[colour]), dtype)
    top = 1 if array.dtype.kind == "f" else np.iinfo(dtype).max
    if colour == "assoc":  # of others colours cannot be told exactly
        array[..., 3] = np.where(array[..., 3] > top / 2, top, 0)
    bands = 3 if channels[colour] > 2 else 1
    alpha = array[..., -1] if colour in ("rgba", "assoc", "greya") else None
    rgb = top - array[..., :1] if colour == "white" else array[..., :bands]
    kinds = {"rgba": [2], "assoc": [1], "greya": [2], "beyond": [0, 0]}
    photometric = "miniswhite" if colour == "white" else "rgb" if bands == 3 else "minisblack"
    options |= {"photometric": photometric, "metadata": None, "software": False}
    options |= {"extrasamples": kinds[colour]} if colour in kinds else {}
    options |= {"tile": (16, 32)} if "tiles" in layout else {}
    options |= {"rowsperstrip": 3} if layout in ("strips", "planes") else {}
    stored = array
    if channels[colour] == 1:
        stored = array[..., 0]
    elif layout.startswith("planes"):
        stored, options["planarconfig"] = np.moveaxis(array, 2, 0), "separate"
    else:
        options["planarconfig"] = "contig"
    codecs: dict[str, dict[str, Any]] = {
        "none": {},
        "deflate": {"compression": "deflate"},
        "predicted": {"compression": "deflate", "predictor": True},
        "packbits": {"compression": "packbits"},
        "lzma": {"compression": "lzma"},
    }
    options |= codecs[packing]
    floats = array.dtype.kind == "f"
    needs = ("imagecodecs",) if packing == "packbits" or (packing == "predicted") else ()
    tags, kept = _tags_of(said, orientation, options)
    notices = []
    foreign = options["byteorder"] == ">" and options["bigtiff"]
    if colour == "beyond":
        notices.append(BEYOND)
    if foreign and "make" in said:
        notices.append("its EXIF is not kept: it is a BigTIFF in big-endian order")
        del kept["make"]
    if dtype == "float64":
        notices.append(BITS64)
    if bands == 1 and "icc" in said:
        notices.append("its ICC profile cannot be used and is not kept; sRGB is assumed")
        del kept["icc"]
    if colour == "white" and floats:
        rgb = np.float32(1) - array[..., :1].astype(np.float32)

    def write(path: Path) -> None:
        tifffile.imwrite(path, stored, extratags=tags, **options)

    expected = seen(rgb, alpha, orientation)
    return Case(name, ".tif", write, expected, tuple(notices), kept, needs)


def _tags_of(
    said: list[str], orientation: int, options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Tags for tifffile, and what of them stands in the output."""
    tags: list[Any] = [(274, "H", 1, orientation, True)] if orientation > 1 else []
    kept: dict[str, Any] = {}
    if "icc" in said:
        options["iccprofile"] = kept["icc"] = SRGB
    if "make" in said:
        tags.append((271, "s", 0, "Maker", True))
        kept["make"] = "Maker"
    if "xmp" in said:
        tags.append((700, "B", len(XMP), XMP, True))
        kept["xmp"] = XMP
    if "dpi" in said:
        options |= {"resolution": (300, 150), "resolutionunit": 2}
        kept["dpi"] = (150, 300) if orientation > 4 else (300, 150)
    return tags, kept


def by_tifffile_codecs() -> Iterator[Case]:
    """TIFF of compressions that take imagecodecs."""
    lossless: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "lzw": (("uint8", "uint16", "float32"), {}),
        "zstd": (("uint8", "uint16", "float32"), {}),
        "webp": (("uint8",), {"level": -1, "lossless": True}),
        "jpeg2000": (("uint8", "uint16"), {"level": 0, "reversible": True}),
        "jpegxl": (("uint8", "uint16"), {"lossless": True}),
        "jpegxr": (("uint8", "uint16"), {"level": 1.0}),
        "png": (("uint8", "uint16"), {}),
    }
    for packing, (dtypes, arguments) in lossless.items():
        for dtype in dtypes:
            for tile in (None, (16, 32)):
                name = f"codec-{packing}-{dtype}-{'tiles' if tile else 'strips'}"
                array = noise(name, (17, 33, 3), dtype)
                how = {"compression": packing, "compressionargs": arguments, "photometric": "rgb"}
                if packing in ("lzw", "zstd"):
                    how["predictor"] = True
                more = {"tile": tile} if tile else {"rowsperstrip": 17}

                def write(path: Path, array: Array = array, how: Any = how | more) -> None:
                    tifffile.imwrite(path, array, metadata=None, **how)

                yield Case(name, ".tif", write, seen(array), needs=("imagecodecs",))


def by_tifffile_pages() -> Iterator[Case]:
    """Several pages, a small copy before or behind the image, one bit, and deep outputs as PNG."""
    small, first = noise("small", (3, 5, 3), "uint8"), noise("first", (17, 33, 3), "uint8")
    second = noise("second", (17, 33, 3), "uint8")
    more = ("it has 2 images; the first is used",)
    for name, pages, notices in (
        ("two", ((first, 0), (second, 0)), more),
        ("copy-behind", ((first, 0), (small, 1)), ()),
        ("copy-before", ((small, 1), (first, 0)), ()),
        ("copy-before-two", ((small, 1), (first, 0), (second, 0)), more),
    ):
        for order in "<>":
            for big in (False, True):

                def write(
                    path: Path, pages: Any = pages, order: Any = order, big: bool = big
                ) -> None:
                    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
                        for array, kind in pages:
                            how = {"subfiletype": kind, "metadata": None, "software": False}
                            file.write(array, photometric="rgb", **how)

                name_of = f"pages-{name}-{'big' if big else 'classic'}-{order}"
                yield Case(name_of, ".tif", write, seen(first), notices)
    for order in "<>":
        for kind in ("minisblack", "miniswhite"):
            name = f"bits-{kind}-{order}"
            bits = noise(name, (17, 33), "uint8") > 99

            def write(path: Path, bits: Array = bits, kind: str = kind, order: Any = order) -> None:
                tifffile.imwrite(path, bits, photometric=kind, byteorder=order, metadata=None)

            shown = bits == (kind == "minisblack")
            yield Case(name, ".tif", write, seen(shown * np.uint8(255)))
    for dtype, notices in (
        ("uint16", ()),
        ("float32", ("floats become 16 bits per channel: PNG holds no more",)),
    ):
        array = noise(f"deep-{dtype}", (17, 33, 3), dtype)
        expected = array
        if dtype == "float32":
            expected = np.rint(array * np.float32(65535)).astype(np.uint16)

        def write(path: Path, array: Array = array) -> None:
            tifffile.imwrite(path, array, photometric="rgb", metadata=None)

        yield Case(
            f"deep-{dtype}-as-png", ".tif", write, expected, notices, needs=("pyvips",),
            output=".png",
        )  # fmt: skip


# -------------------------------------------------------------------------------------- Pillow


def by_pillow() -> Iterator[Case]:
    """Every format and mode that Pillow writes."""
    yield from _pillow_modes()
    yield from _pillow_orientations()
    yield from _pillow_metadata()
    yield from _pillow_lossy()
    yield from _pillow_frames()
    yield from _pillow_grey_profiles()


def _of_mode(name: str, mode: str, size: tuple[int, int]) -> tuple[Image.Image, Array, list[str]]:
    """A picture of the mode, what is seen of it, and what is said."""
    if mode == "1":
        bits = noise(name, size, "uint8") > 127
        return Image.fromarray(bits), seen(bits * np.uint8(255)), []
    if mode in ("P", "Pt"):
        index, table = noise(name, size, "uint8"), noise(name + "table", (256, 3), "uint8")
        image = Image.fromarray(index, "P")
        image.putpalette(table.tobytes())
        if mode == "P":
            return image, seen(table[index]), [PALETTE]
        shares = noise(name + "alpha", (256,), "uint8")
        image.info["transparency"] = shares.tobytes()
        return image, seen(table[index], shares[index]), [PALETTE]
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    array = noise(name, (*size, channels), "uint8")
    image = Image.fromarray(array.squeeze(-1) if channels == 1 else array, mode)
    if mode == "CMYK":
        light = 255 - array[..., 3:].astype(float)
        return image, seen(np.rint((255 - array[..., :3]) * light / 255).astype(np.uint8)), [CMYK]
    if mode in ("LA", "RGBA"):
        return image, seen(array[..., :-1], array[..., -1]), []
    return image, seen(array), []


_MODES: dict[str, tuple[tuple[str, ...], tuple[dict[str, Any], ...]]] = {
    ".png": (("1", "L", "LA", "P", "Pt", "RGB", "RGBA"), ({}, {"compress_level": 0})),
    ".bmp": (("1", "L", "P", "RGB"), ({},)),
    ".gif": (("P",), ({"optimize": False},)),
    ".ppm": (("RGB",), ({},)),
    ".pgm": (("L",), ({},)),
    ".webp": (("RGB", "RGBA"), ({"lossless": True, "exact": True},)),
    ".tif": (
        ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
        tuple(
            {"compression": each}
            for each in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")
        ),
    ),
}


def _pillow_modes() -> Iterator[Case]:
    for ending, (modes, ways) in _MODES.items():
        for mode in modes:
            for way in ways:
                how = way.get("compression", way.get("compress_level", ""))
                for size in ((1, 1), (7, 13), (17, 33))[(ending == ".tif") :]:
                    name = f"pillow-{ending[1:]}-{mode}-{how}-{size[0]}x{size[1]}"
                    image, expected, notices = _of_mode(name, mode, size)
                    yield Case(
                        name, ending, _saver(image, **way), expected, tuple(notices),
                        tolerance=int(mode == "CMYK"),
                    )  # fmt: skip
    for way in ("group3", "group4", "tiff_ccitt"):
        for size in ((1, 1), (5, 259), (17, 33)):
            name = f"pillow-tif-1-{way}-{size[0]}x{size[1]}"
            image, expected, _ = _of_mode(name, "1", size)
            yield Case(name, ".tif", _saver(image, compression=way), expected)


def _saver(image: Image.Image, **options: Any) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


def _exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[271], tags[274] = "Maker", orientation
    return tags.tobytes()


def _pillow_orientations() -> Iterator[Case]:
    for orientation in range(1, 9):
        for ending, options in ((".png", {}), (".webp", {"lossless": True, "exact": True})):
            for output in (".tif", ending):
                name = f"pillow-turned-{ending[1:]}-{output[1:]}-{orientation}"
                array = noise(name, (7, 13, 3), "uint8")
                write = _saver(Image.fromarray(array), exif=_exif(orientation), **options)
                yield Case(
                    name, ending, write, seen(array, None, orientation),
                    kept={"make": "Maker"}, output=output,
                )  # fmt: skip


def _pillow_metadata() -> Iterator[Case]:
    """What stands beside the pixels of PNG, to each format of outputs without loss."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "Jos\xe9")
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    lost = {".tif": ("its texts (Author) are not kept: TIFF cannot hold them",), ".png": ()}
    lost[".webp"] = (
        "its texts (Author) are not kept: WEBP cannot hold them",
        "its resolution is not kept: WEBP can hold it in EXIF only",
    )
    for output, notices in lost.items():
        for mode in ("RGB", "RGBA", "P"):
            for profile in (SRGB, WIDE):
                name = f"pillow-said-{mode}-{output[1:]}-{'srgb' if profile == SRGB else 'wide'}"
                image, expected, told = _of_mode(name, mode, (7, 13))
                if profile == WIDE:  # colours that sRGB has as well
                    expected = expected // 16 + 112
                    image = Image.fromarray(expected, "RGBA" if mode == "RGBA" else "RGB")
                    told = []
                write = _saver(image, pnginfo=texts, icc_profile=profile, dpi=(300, 150))
                kept = {"icc": profile, "xmp": XMP}
                kept |= {} if output == ".webp" else {"dpi": (300, 150)}
                kept |= {"Author": "Jos\xe9"} if output == ".png" else {}
                yield Case(
                    name, ".png", write, expected, (*told, *notices), kept, output=output
                )  # fmt: skip


def _pillow_lossy() -> Iterator[Case]:
    """JPEG, alone and in TIFF: flat colours, which come back but for rounding."""
    for mode, colour in (("L", (77,)), ("RGB", (200, 90, 40)), ("CMYK", (30, 90, 150, 20))):
        for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}):
            for ending in (".jpg", ".tif"):
                if ending == ".tif" and (options or mode == "CMYK"):
                    continue
                way = {"compression": "jpeg"} if ending == ".tif" else options
                name = f"pillow-jpeg-{ending[1:]}-{mode}-{'-'.join(options)}"
                image = Image.new(mode, (33, 17), colour if len(colour) > 1 else colour[0])
                flat = np.full((17, 33, len(colour)), colour, float)
                if mode == "CMYK":
                    flat = np.rint((255 - flat[..., :3]) * (255 - flat[..., 3:]) / 255)
                dpi = {"dpi": (300, 150)} if ending == ".jpg" else {}
                yield Case(
                    name, ending, _saver(image, quality=95, **dpi, **way),
                    seen(flat.astype(np.uint8)), (CMYK,) if mode == "CMYK" else (),
                    {"dpi": (300, 150)} if dpi else {}, tolerance=3,
                )  # fmt: skip


def _pillow_frames() -> Iterator[Case]:
    """Films, of which the first image is used."""
    for ending, options in (
        (".gif", {}),
        (".png", {}),
        (".webp", {"lossless": True, "exact": True}),
        (".tif", {}),
    ):
        mode = "P" if ending == ".gif" else "RGB"
        image, expected, told = _of_mode(f"film{ending}", mode, (17, 33))
        other = _of_mode(f"second{ending}", mode, (17, 33))[0]
        write = _saver(image, save_all=True, append_images=[other, image], **options)
        said = ("it has 3 images; the first is used", *told)
        yield Case(f"pillow-film-{ending[1:]}", ending, write, expected, said)


def _pillow_grey_profiles() -> Iterator[Case]:
    """Black and white are the same in any grey profile, which RGB cannot keep."""
    told = ("greyscale becomes sRGB; its grey profile is not kept",)
    for ending in (".png", ".tif"):
        for mode in ("1", "L"):
            bits, expected, _ = _of_mode(f"grey{ending}", "1", (17, 33))
            write = _saver(bits.convert(mode), icc_profile=GREY)
            yield Case(f"pillow-grey-profile-{ending[1:]}-{mode}", ending, write, expected, told)


# ------------------------------------------------------------------------------------- by hand


def by_hand() -> Iterator[Case]:
    """PNG of fewer bits, PNM of other whites, and texts of numbers."""
    for depth in (1, 2, 4, 8):
        for width in (1, 3, 9, 17):
            for kind in (0, 3):
                name = f"png-{'palette' if kind else 'grey'}-{depth}-{width}"
                values = noise(name, (5, width), "uint8") >> (8 - depth)
                rows = _packed(values, depth)
                table = noise(name + "table", (1 << depth, 3), "uint8")
                more = {"PLTE": table.tobytes()} if kind else {}
                grey = values * np.uint8(255 // ((1 << depth) - 1))
                yield Case(
                    name, ".png",
                    lambda path, a=(width, 5, depth, kind, rows), m=more: png(path, *a, **m),
                    seen(table[values] if kind else grey), (PALETTE,) if kind else (),
                )  # fmt: skip
    yield from _png_with_transparent_colours()
    for head, bands in ((b"P5", 1), (b"P6", 3)):
        array = noise(f"pnm{bands}", (7, 13, bands), "uint16")
        data = head + b" 13 7 65535\n" + array.astype(">u2").tobytes()
        yield Case(
            f"pnm-16-{bands}", ".ppm", lambda path, data=data: path.write_bytes(data), seen(array)
        )
    for head, bands in ((b"P2", 1), (b"P3", 3)):
        array = noise(f"text{bands}", (7, 13, bands), "uint8")
        data = head + b" 13 7 255\n" + b" ".join(b"%d" % value for value in array.ravel())
        yield Case(
            f"pnm-text-{bands}", ".ppm", lambda path, data=data: path.write_bytes(data), seen(array)
        )


def _png_with_transparent_colours() -> Iterator[Case]:
    """One grey or colour that is transparent; 16 bits with and without."""
    for kind, bands in ((0, 1), (2, 3), (4, 2), (6, 4)):
        for depth in (1, 2, 4, 8, 16):
            if depth < 8 and kind:
                continue
            for clear in (False, True)[: 1 + (kind < 4)]:
                if depth < 16 and not clear:
                    continue
                name = f"png-{kind}-{depth}-{'clear' if clear else 'plain'}"
                values = noise(name, (5, 9, bands), "uint16") >> (16 - depth)
                values[2, 3] = values[0, 0]
                rows = (
                    [row.astype(">u2").tobytes() for row in values]
                    if depth == 16
                    else _packed(values.astype(np.uint8), depth)
                )
                more = {"tRNS": values[0, 0].astype(">u2").tobytes()} if clear else {}
                dtype, top = ("uint16", 65535) if depth == 16 else ("uint8", 255)
                shown = (values.astype(int) * (top // ((1 << depth) - 1))).astype(dtype)
                alpha = shown[..., -1] if kind > 3 else None
                if clear:
                    alpha = ((values != values[0, 0]).any(axis=2) * top).astype(dtype)
                colour = shown[..., :-1] if kind > 3 else shown
                yield Case(
                    name, ".png",
                    lambda path, a=(9, 5, depth, kind, rows), m=more: png(path, *a, **m),
                    seen(colour, alpha), needs=("pyvips",) if depth == 16 else (),
                )  # fmt: skip


def _packed(values: Array, depth: int) -> list[bytes]:
    """Rows of samples of fewer bits than a byte."""
    values = values.reshape(len(values), -1)
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :]
    return [row.tobytes() for row in np.packbits(bits.reshape(len(values), -1), axis=1)]


# -------------------------------------------------------------------------------------- libvips


def by_vips() -> Iterator[Case]:
    """TIFF pyramids and few bits, PNG of 16 bits and interlaced, WebP and PNM."""
    for dtype in ("uint8", "uint16", "float32"):
        for bands in (1, 3, 4):
            for compression in ("none", "lzw", "deflate", "packbits"):
                for options in ({}, {"tile": True, "pyramid": True, "subifd": bands == 3}):
                    shape = "pyramid" if options else "strips"
                    name = f"vips-tif-{dtype}-{bands}-{compression}-{shape}"
                    array = noise(name, (259 if options else 17, 33, bands), dtype)
                    yield _vips_case(name, ".tif", array, compression=compression, **options)
    for dtype in ("uint8", "uint16"):
        for bands in (1, 2, 3, 4):
            for interlace in (False, True):
                name = f"vips-png-{dtype}-{bands}-{'interlaced' if interlace else 'plain'}"
                array = noise(name, (17, 33, bands), dtype)
                yield _vips_case(name, ".png", array, interlace=interlace)
    for depth in (1, 2, 4):
        name = f"vips-tif-bits-{depth}"
        # An even width: of 4 bits it writes the last of an odd one into the wrong half of its byte.
        values = noise(name, (17, 34, 1), "uint8") >> (8 - depth)
        array = values * np.uint8(255 // ((1 << depth) - 1))
        yield _vips_case(name, ".tif", array, bitdepth=depth)
    for bands in (3, 4):
        array = noise(f"vips-webp-{bands}", (17, 33, bands), "uint8")
        yield _vips_case(f"vips-webp-{bands}", ".webp", array, lossless=True, exact=True)


def _vips_case(name: str, ending: str, array: Array, **options: Any) -> Case:
    def write(path: Path) -> None:
        import pyvips

        image = pyvips.Image.new_from_array(array)
        deep, grey = array.dtype == np.uint16, array.shape[2] < 3
        kind = {(0, 0): "srgb", (0, 1): "b-w", (1, 0): "rgb16", (1, 1): "grey16"}
        if array.dtype != np.float32:
            image = image.copy(interpretation=kind[int(deep), int(grey)])
        elif not grey:
            image = image.copy(interpretation="scrgb")
        image.write_to_file(str(path), **options)

    alpha = array[..., -1] if array.shape[2] in (2, 4) else None
    colour = array[..., : array.shape[2] - (alpha is not None)]
    return Case(name, ending, write, seen(colour, alpha), needs=("pyvips", "imagecodecs"))


# ----------------------------------------------------------------------------------------- GDAL


def by_gdal(count: int = 60) -> Iterator[Case]:
    """GeoTIFF as GDAL writes it: interleaved or in planes, tiled, sparse, with masks."""
    choose = random.Random(2)
    for number in range(count):
        dtype = choose.choice(("uint8", "uint16", "float32"))
        bands = choose.choice((1, 3, 4))
        how: dict[str, Any] = {"interleave": choose.choice(("band", "pixel"))}
        how["compress"] = choose.choice(("none", "deflate", "lzw", "zstd", "packbits"))
        if how["compress"] in ("deflate", "lzw", "zstd"):
            how["predictor"] = choose.choice((1, 3 if dtype == "float32" else 2))
        if choose.random() < 0.5:
            how |= {"tiled": True, "blockxsize": 16, "blockysize": 32}
        how["bigtiff"] = choose.choice(("yes", "no"))
        how["endianness"] = choose.choice(("little", "little", "big"))
        if how["endianness"] == "big":
            how["bigtiff"] = "no"
        mask = bands < 4 and choose.random() < 0.4
        name = f"gdal-{number}-{dtype}-{bands}-{how['compress']}{'-mask' * mask}"
        yield _gdal_case(name, noise(name, (37, 41, bands), dtype), how, mask)


def _gdal_case(name: str, array: Array, how: dict[str, Any], mask: bool) -> Case:
    valid = noise(name + "mask", array.shape[:2], "uint8") > 99
    top = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max

    def write(path: Path) -> None:
        import rasterio
        from rasterio.enums import ColorInterp
        from rasterio.transform import from_origin

        rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        height, width, bands = array.shape
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path, "w", driver="GTiff", height=height, width=width, count=bands,
                dtype=array.dtype, crs="EPSG:32633", transform=from_origin(5e5, 4.6e6, 10, 10),
                photometric="minisblack" if bands == 1 else "rgb", **how,
            ) as file,
        ):  # fmt: skip
            if bands > 1:
                file.colorinterp = rgb[:bands]
            file.write(np.moveaxis(array, 2, 0))
            if mask:
                file.write_mask(valid)

    alpha = array[..., 3] if array.shape[2] == 4 else None
    if mask:
        alpha = (valid * np.float64(top)).astype(array.dtype)
    notices = ("its transparency mask becomes an alpha channel",) if mask else ()
    return Case(
        name, ".tif", write, seen(array[..., :3], alpha), notices,
        {"place": (10.0, 0.0, 5e5, 0.0, -10.0, 4.6e6)}, ("rasterio", "imagecodecs"),
    )  # fmt: skip


def kept_in(path: Path) -> dict[str, Any]:
    """What stands in an output, by the names of ``Case.kept``."""
    if path.suffix != ".tif":
        with Image.open(path) as image:
            image.load()
            held = {"icc": image.info.get("icc_profile"), "make": image.getexif().get(271)}
            held |= {"xmp": image.info.get("xmp"), "Author": image.info.get("Author")}
            held["dpi"] = tuple(round(float(each)) for each in image.info.get("dpi", ()))
        return held
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        held = {name: tags.valueof(tag) for name, tag in _TAGS.items()}
        if tags.valueof(296) == 2:
            held["dpi"] = tuple(round(up / down) for up, down in map(tags.valueof, (282, 283)))
        if held["scale"] and held["tie"]:
            across, down, tie = *held["scale"][:2], held["tie"]
            held["place"] = (across, 0.0, tie[3], 0.0, -down, tie[4])
    return held


_TAGS = {"icc": 34675, "make": 271, "xmp": 700, "scale": 33550, "tie": 33922}


def pixels_in(path: Path) -> Array:
    """An output's pixels, by another reader."""
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    if path.read_bytes()[24] == 16 and path.suffix == ".png":  # which Pillow opens as 8 bits
        import pyvips

        return np.asarray(pyvips.Image.new_from_file(str(path), revalidate=True).numpy())
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image)
