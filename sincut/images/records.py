"""What people wrote into an image file in records of their own, beside EXIF. No torch.

XMP, IPTC, comments and PNG's texts: read from the formats, written into those with a place for
them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.errors import printable

XMP, _IPTC_TAG = 700, 33723
_ACROSS, _DOWN, _UNIT, _NO_UNIT = 282, 283, 296, 1
_IPTC_BLOCK = 0x0404  # among Photoshop's blocks in a JPEG
_BYTE, _UNDEFINED = 1, 7
_LONGEST_SEGMENT = 65_533  # bytes of a JPEG's
_APP1, _APP13, _COM = 0xE1, 0xED, 0xFE
_XMP_HEAD, _PHOTOSHOP_HEAD = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_ORIENTATION = re.compile(rb'(tiff:Orientation(?:\s*=\s*["\']|>))[0-9]')
_EXTENDED = re.compile(rb'\s*xmpNote:HasExtendedXMP\s*=\s*["\'][0-9A-Fa-f]*["\']')
_IS_XMP = re.compile(rb"<(\w+:)?xmpmeta\b|<(\w+:)?RDF\b|<\?xpacket")
# XMP that tells a program of other images or of a film behind the image.
_OTHERS = re.compile(rb"hdrgm:|Container:Directory|GDepth:|GImage:|MotionPhoto|MicroVideo")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PLURALS = ("tags", "texts", "resources", "layers", "statistics", "bands", "polynomials")
# Chunks of PNG that are used or kept elsewhere, or say how the pixels are stored.
_KNOWN_CHUNKS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"),
    *(b"eXIf", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"hIST", b"sBIT", *_TEXTS),
)
_NAMES_OF_OTHERS = (
    *("xmp", "exif", "icc_profile", "dpi", "aspect", "transparency", "gamma", "srgb"),
    *("chromaticity", "interlace", "progressive", "photoshop", "comment"),
)
_SPOKEN_CHUNKS = {b"tIME": "time of change", b"bKGD": "background colour"}
# Of an EXIF block or a profile in text, which older programs wrote: it is read as such.
_PROFILES_AS_TEXT = re.compile(rb"(Raw profile type (exif|APP1|icc|icm)|XML:com\.adobe\.xmp)\0")

Chunks = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Records:
    """What is kept beside EXIF: XMP and IPTC as a TIFF has them, comments, PNG's chunks of text,
    each its name and its bytes; of pixels that are not square how many lie on one length across
    and down, where no resolution says it."""

    xmp: bytes | None = None
    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()
    aspect: tuple[int, int] | None = None


NO_RECORDS = Records()


def not_kept(names: Sequence[str], why: str = "") -> list[str]:
    """The one notice of what is left out, or none. ``why`` has a place for "it" or "them"."""
    if not names:
        return []
    listed = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    many = len(names) > 1 or names[0].split(" (")[0].endswith(_PLURALS)
    told = f"its {listed} {'are' if many else 'is'} not kept"
    return [told + why.format("them" if many else "it")]


def png_chunks(file: IO[bytes]) -> Chunks:
    """A PNG's chunks by name and bytes, without those of its pixels. Stops where it ends."""
    chunks, position = [], file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"fdAT"):
            file.seek(length + 4, 1)
        else:
            chunks.append((name, file.read(length)))
            file.seek(4, 1)
    file.seek(position)  # where Pillow goes on
    return chunks


def without_impostors(image: Image.Image) -> None:
    """Take from what Pillow says of a PNG the texts whose names are those of other things."""
    for name in _NAMES_OF_OTHERS:
        if isinstance(image.info.get(name), str):
            del image.info[name]


def records_of(image: Image.Image, file: IO[bytes], chunks: Chunks) -> tuple[Records, list[str]]:
    """The records of a file that is no TIFF, and the names of what no output has a place for.

    Args:
        image: decoded, where it is a PNG.
        file: it, from which it was opened.
        chunks: a PNG's.
    """
    info, lost = image.info, []
    xmp = info.get("xmp")
    segments = getattr(image, "applist", [])
    if any(data.startswith(_XMP_MORE) for _, data in segments):
        lost.append("extended XMP")
    blocks = info.get("photoshop", {}) if image.format in ("JPEG", "MPO") else {}
    comments = tuple(data for name, data in segments if name == "COM")
    if image.format == "GIF" and isinstance(info.get("comment"), bytes):
        comments = (info["comment"],)
    texts = [each for each in chunks if each[0] in _TEXTS and not _PROFILES_AS_TEXT.match(each[1])]
    unknown = dict.fromkeys(name for name, _ in chunks if name not in _KNOWN_CHUNKS)
    lost += [_SPOKEN_CHUNKS.get(name, f"chunk {name.decode('latin-1')}") for name in unknown]
    lost += _other_images(image, xmp or b"")
    kept, more = kept_xmp(xmp)
    iptc = blocks.get(_IPTC_BLOCK)
    return Records(kept, iptc, comments, tuple(texts), _aspect_said(image, file)), more + lost


def _aspect_said(image: Image.Image, file: IO[bytes]) -> tuple[int, int] | None:
    if image.format == "PNG" and "aspect" in image.info:
        return aspect_of(*image.info["aspect"])
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") == 0:
        return aspect_of(*image.info["jfif_density"])
    if image.format == "GIF":  # 15 less than 64 times what a pixel's width is of its height
        file.seek(12)
        return aspect_of(64, factor + 15) if (factor := (file.read(1) or b"\0")[0]) else None
    return None


def tiff_records(directory: Directory) -> tuple[Records, list[str]]:
    """The records of a TIFF, and the names of those that cannot be used."""
    xmp, lost = kept_xmp(directory.get(XMP))
    # As it stands there: some count it in units of 32 bits, which Pillow does not expect.
    aspect = None
    if directory.get(_UNIT) == _NO_UNIT:
        aspect = aspect_of(*(directory.get(tag, 1) for tag in (_ACROSS, _DOWN)))
    iptc = bytes(directory._tagdata.get(_IPTC_TAG, b""))
    if iptc[:1] != b"\x1c" and len(iptc) % 4 == 0:  # turned with the file's order
        iptc = b"".join(iptc[at : at + 4][::-1] for at in range(0, len(iptc), 4))
    if iptc and iptc[:1] != b"\x1c":
        lost.append("IPTC")
        iptc = b""
    return Records(xmp, iptc or None, aspect=aspect), lost


def aspect_of(across: Any, down: Any) -> tuple[int, int] | None:
    """Two densities in small whole numbers, or None where they are equal or make no sense."""
    try:
        ratio = Fraction(float(across) / float(down)).limit_denominator(1000)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return None if ratio == 1 or not 0.001 < ratio < 1000 else (ratio.numerator, ratio.denominator)


def kept_xmp(xmp: object) -> tuple[bytes | None, list[str]]:
    """XMP of an image that is upright and alone, or that it is lost."""
    if not xmp:
        return None, []
    # Others write what is none under its number. In UTF-16 its orientation would not be found.
    if not isinstance(xmp, bytes) or not _IS_XMP.search(xmp) or _OTHERS.search(xmp):
        return None, ["XMP"]
    return _EXTENDED.sub(b"", _ORIENTATION.sub(rb"\g<1>1", xmp)), []


def _other_images(image: Image.Image, xmp: bytes) -> list[str]:
    """Gain maps, depth maps and films behind a JPEG; a camera's previews are none."""
    lost = []
    entries = getattr(image, "mpinfo", {}).get(0xB002, [])[1:]
    kinds = [each["Attribute"]["MPType"] for each in entries]
    if b"hdrgm:" in xmp:
        lost.append("gain map")
    elif b"GDepth:" in xmp:
        lost.append("depth map")
    elif "Undefined" in kinds:
        lost.append("further image (such as a gain map or a depth map)")
    if b"MotionPhoto" in xmp or b"MicroVideo" in xmp:
        lost.append("film")
    return lost


def record_options(kind: str, records: Records) -> tuple[dict[str, Any], Directory, list[str]]:
    """Options of ``Image.save``, tags of a TIFF, and the names of what the format cannot hold."""
    options: dict[str, Any] = {}
    tags, lost = Directory(), []
    xmp, iptc = records.xmp, records.iptc
    held = {"xmp": kind in ("TIFF", "WEBP", "JPEG", "PNG"), "iptc": kind in ("TIFF", "JPEG")}
    if kind == "TIFF":
        for tag, form, data in ((XMP, _BYTE, xmp), (_IPTC_TAG, _UNDEFINED, iptc)):
            if data:
                tags.tagtype[tag] = form
                tags[tag] = data
    elif kind == "WEBP" and xmp:
        options["xmp"] = xmp
    elif kind == "PNG" and (records.texts or xmp):
        options["pnginfo"] = info = PngInfo()
        for name, data in records.texts:
            info.add(name, data)
        if xmp:
            info.add(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)
    elif kind == "JPEG":
        if segments := b"".join(_segments(records)):
            options["extra"] = segments
        held["xmp"] = not xmp or len(_XMP_HEAD + xmp) <= _LONGEST_SEGMENT
        held["iptc"] = not iptc or len(_photoshop(iptc)) <= _LONGEST_SEGMENT
    if xmp and not held["xmp"]:
        lost.append("XMP")
    if iptc and not held["iptc"]:
        lost.append("IPTC")
    if records.aspect and kind not in ("TIFF", "JPEG", "PNG"):
        across, down = records.aspect
        lost.append(f"pixel aspect of {down / across:.4g} to 1")
    if records.comments and kind != "JPEG":
        lost.append("comment")
    if records.texts and kind != "PNG":
        names = [printable(data.split(b"\0")[0].decode("latin-1")) for _, data in records.texts]
        lost.append(f"texts ({', '.join(dict.fromkeys(names))})")
    return options, tags, lost


def _segments(records: Records) -> Iterator[bytes]:
    """A JPEG's segments of XMP, IPTC and comments, as far as they fit into one."""
    wanted = [(_COM, comment) for comment in records.comments]
    if records.iptc:
        wanted.insert(0, (_APP13, _photoshop(records.iptc)))
    if records.xmp:
        wanted.insert(0, (_APP1, _XMP_HEAD + records.xmp))
    for marker, data in wanted:
        if len(data) <= _LONGEST_SEGMENT:
            yield struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _photoshop(iptc: bytes) -> bytes:
    """IPTC as the one block of Photoshop's."""
    head = struct.pack(">4sHHI", b"8BIM", _IPTC_BLOCK, 0, len(iptc))
    return _PHOTOSHOP_HEAD + head + iptc + bytes(len(iptc) % 2)
