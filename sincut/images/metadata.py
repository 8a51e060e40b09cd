"""What an image file says beside its pixels: EXIF, resolution, GeoTIFF tags. No torch.

Read into forms that every output format can take, and written again. Pillow reads all of it and
writes most; its compressing TIFF encoder cannot write EXIF and GPS directories, so those are
hung behind the file here.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.errors import one_line
from sincut.images.records import NO_RECORDS, XMP, Records, not_kept, record_options, tiff_records

LONGEST_JPEG_EXIF = 65_533  # bytes: it is one segment
_HIGHEST_DPI, _HIGHEST_JPEG_DPI = 10_000_000, 65_535  # a PNG counts dots in a metre in 31 bits

# What is not carried, by the tag that a TIFF has it in.
_DROPPED_TAGS = {34377: "Photoshop resources", 37724: "Photoshop layers"}
# Of a TIFF's first directory its text and the EXIF and GPS directories describe the picture; the
# rest says how its bytes are stored, and a JPEG's EXIF may have such tags as well.
TEXT_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
WINDOWS_TAGS = (40091, 40092, 40093, 40094, 40095)  # title, comment, author, keywords, subject
SUBDIRECTORIES = (34665, 34853)
_DESCRIPTION = 270
# Descriptions that a program reads pages, sizes or channels from: tifffile, ImageJ, OME, and the
# makers of slide scanners and microscopes.
_PROGRAM = re.compile(
    r"""^\s*\{.*"(shape|axes|width|height|channels)"\s*: | ^shape=\( | ^ImageJ= | ^Aperio\b.*\d+x\d+
    | <(\w+:)?OME\b | openmicroscopy\.org | ^\s*(<\?xml[^>]*>\s*)?<(MetaData|DataObject|scn|iScan
    | EncodeInfo|PerkinElmer-QPI-ImageDescription)\b | ^SI\. | ^state\. | ^level=\d""",
    re.DOTALL | re.VERBOSE,
)
# tifffile's usual one says nothing that the directory does not.
_SHAPE_ALONE = re.compile(r'\s*\{"shape":\s*\[[\d,\s]+\]\}$')
BITS, ORIENTATION, EXTRA_SAMPLES, _INTEROP = 258, 274, 338, 40965
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
NO_UNIT, INCH, CENTIMETRE = 1, 2, 3
MICROMETRES_PER_INCH = 25_400.0
_BYTE, _ASCII, _SHORT, _LONG = 1, 2, 3, 4

# What Pillow raises on damage, found on files with some bytes changed at random.
DAMAGE: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, LookupError)
DAMAGE += (ArithmeticError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class KeptMetadata:
    """What a translation carries from the input's file to the output's, beside the pixels.

    ``profile`` holds the bytes of the file's RGB profile; ``exif`` is a block as JPEG has it, its
    orientation reset; ``dpi`` counts across and down; ``geo`` holds the GeoTIFF tags; ``records``
    XMP, IPTC, comments and texts.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    geo: Directory | None = None
    records: Records = NO_RECORDS


@contextlib.contextmanager
def damage_told() -> Iterator[list[str]]:
    """Pillow's warnings as notices, filled in at the end: it warns of damaged parts it skips."""
    notices: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notices
    texts = [one_line(each.message) for each in caught if issubclass(each.category, UserWarning)]
    notices += [f"it is damaged in part: {text}" for text in dict.fromkeys(texts)]


def resolution(opened: Image.Image, tags: Image.Exif) -> tuple[float, float] | None:
    """Dots per inch across and down, where the file says so."""
    # Pillow makes some up for a TIFF or a JPEG's EXIF that says nothing.
    said = opened.format in ("PNG", "BMP") or opened.info.get("jfif_unit") in (1, 2)
    if "dpi" not in opened.info or not (said or X_RESOLUTION in tags):
        return None
    try:
        across, down = (float(value) for value in opened.info["dpi"])
    except DAMAGE:
        return None
    return possible_dpi(across, down)


def possible_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Both, or nothing where they are no resolution."""
    return (across, down) if all(1 <= each <= _HIGHEST_DPI for each in (across, down)) else None


def upright_exif(info: dict[Any, Any]) -> bytes | None:
    """The file's own EXIF block, its orientation reset and its thumbnail, no longer true, cut."""
    block = info.get("exif")
    if block is None and "Raw profile type exif" in info:  # what PNG had before its eXIf chunk
        block = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    body = bytearray(block or b"")
    while body.startswith(b"Exif\0\0"):
        del body[:6]
    if not body:
        return None
    if not body.startswith((b"II*\0", b"MM\0*")):
        raise ValueError("no TIFF header")
    order = "<" if body[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, start)
    end = start + 2 + 12 * count
    for entry in range(start + 2, end, 12):
        if struct.unpack_from(f"{order}H", body, entry) == (ORIENTATION,):
            struct.pack_into(f"{order}HIHH", body, entry + 2, _SHORT, 1, 1, 0)
    body[end : end + 4] = bytes(4)  # the thumbnail's directory would be next
    return b"Exif\0\0" + bytes(body)


def tiff_exif(file: IO[bytes], offset: int | None = None) -> bytes | None:
    """What a TIFF file says about its picture, as an EXIF block; ``offset`` is that of the page's
    directory, if it is not the first."""
    root, directories = _directories(file, offset)
    if not root:
        return None
    end = 8 + len(root.tobytes(8))
    bodies = b""
    for tag, directory in directories.items():
        root[tag] = end + len(bodies)
        bodies += directory.tobytes(end + len(bodies))
    return b"Exif\0\0II*\0\x08\0\0\0" + root.tobytes(8) + bodies


def _directories(
    file: IO[bytes], offset: int | None = None
) -> tuple[Directory, dict[int, Directory]]:
    """The EXIF and GPS directories of a TIFF file or of a block's body, and before them its text
    tags with places for the offsets of the two."""
    file.seek(0)
    header = file.read(8)
    header += file.read(8) if header[2:3] == b"+" else b""  # BigTIFF
    first = Directory(header)
    file.seek(first.next if offset is None else offset)
    first.load(file)
    texts = [tag for tag in TEXT_TAGS if first.tagtype.get(tag) == _ASCII]
    texts += [tag for tag in WINDOWS_TAGS if first.tagtype.get(tag) == _BYTE]
    root = copied_tags(
        first, (tag for tag in texts if tag != _DESCRIPTION or not _for_a_program(first))
    )
    directories = {}
    for tag in SUBDIRECTORIES:
        if tag in first:
            directory = Directory(header, group=tag)
            file.seek(first[tag])
            directory.load(file)
            if kept := copied_tags(
                directory, set(directory) - {_INTEROP}
            ):  # which is a mere offset
                directories[tag] = kept
                root.tagtype[tag] = _LONG
                root[tag] = 0
    return root, directories


def orientation_of(directory: Directory) -> int:
    """A page's orientation, or what its XMP says, as Pillow has it."""
    if ORIENTATION in directory:
        return int(directory[ORIENTATION])
    xmp = directory.get(XMP, b"")
    found = re.search(rb'tiff:Orientation(="|>)([0-9])', xmp) if isinstance(xmp, bytes) else None
    return int(found[2]) if found else 1


def tiff_losses(directory: Directory, more: list[str]) -> list[str]:
    """Notices of what a TIFF says that no output gets; ``more`` are other names of such."""
    names = more + tiff_records(directory)[1]
    names += [name for tag, name in _DROPPED_TAGS.items() if tag in directory]
    lost = not_kept(names)
    if _for_a_program(directory) and not _SHAPE_ALONE.match(description_of(directory)):
        lost.append(
            "its ImageDescription is not kept: it tells a program about pages, sizes or channels"
        )
    return lost


def _for_a_program(directory: Directory) -> bool:
    """Whether the description is not for people, so that the output would be read by it."""
    return bool(_PROGRAM.search(description_of(directory)))


def description_of(directory: Directory) -> str:
    """A TIFF's ImageDescription, or nothing."""
    return text_of(directory.get(_DESCRIPTION, ""))


def pages_within(directory: Directory, page_values: int) -> int:
    """How many images of ``page_values`` values lie behind the first without directories of their
    own, the first counted: ImageJ's stacks above 4 GB, and tifffile's."""
    text = description_of(directory)
    if images := re.search(r"^images=(\d{1,9})\s", text, re.MULTILINE):
        return int(images[1])
    if shape := re.search(r'^\s*\{.*"shape"\s*:\s*\[([\d,\s]+)\]', text, re.DOTALL):
        sides = [int(side) for side in shape[1].split(",") if side.strip()]
        return max(1, math.prod(sides) // max(1, page_values))
    return 1


def copied_tags(source: Directory, tags: Iterable[int]) -> Directory:
    """Those of the tags that there are, little-endian, with their types and text's own bytes."""
    copy = Directory()
    for tag in tags:
        if tag in source:
            value = source[tag]
            copy.tagtype[tag] = source.tagtype[tag]
            copy[tag] = value.encode("latin-1") if isinstance(value, str) else value
    return copy


def text_of(value: object) -> str:
    """A tag's text, which Pillow gives as bytes or not."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")


def save_options(
    kind: str, carried: KeptMetadata
) -> tuple[dict[str, Any], dict[int, Directory], list[str]]:
    """Options of ``Image.save``, directories to append to a TIFF, and notices of what is lost."""
    exif, dpi, geo = carried.exif, carried.dpi, carried.geo
    options, record_tags, names = record_options(kind, carried.records)
    if geo and kind != "TIFF":
        names.insert(0, "GeoTIFF tags")
    lost = not_kept(names, f": {kind} cannot hold {{}}")
    if kind == "JPEG" and len(exif or b"") > LONGEST_JPEG_EXIF:
        lost.append(f"its EXIF is not kept: JPEG can hold {LONGEST_JPEG_EXIF} bytes of it")
        exif = None
    if exif:
        options["exif"] = exif
    directories: dict[int, Directory] = {}
    with damage_told() as damage:
        if dpi and kind == "JPEG" and max(dpi) > _HIGHEST_JPEG_DPI:
            lost.append(
                f"its resolution of {max(dpi):.0f} dots per inch is not kept: JPEG can hold "
                f"{_HIGHEST_JPEG_DPI}"
            )
        elif dpi and kind != "WEBP":
            options["dpi"] = dpi
        elif dpi:
            tags = Image.Exif()
            tags.load(exif or b"")
            if X_RESOLUTION not in tags:
                lost.append("its resolution is not kept: WEBP can hold it in EXIF only")
        if kind == "TIFF":
            root = Directory()
            try:
                if exif:
                    root, directories = _directories(io.BytesIO(options.pop("exif")[6:]))
            except DAMAGE:
                lost.append("its EXIF is damaged and not kept")
            for more in (geo, record_tags):
                if more:
                    root.tagtype |= more.tagtype
                    root.update(more)
            options["tiffinfo"] = root
    return options, directories, lost + damage
