"""What people wrote beside EXIF: kept where the output has a place for it, else said once."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from sincut.images.reading.open import open_source
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Picture
from sincut.images.records import Records, not_kept, png_chunks, record_options
from tests.images.by_pillow import lost_metadata
from tests.images.test_pillow import pixels, png, saved, written

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Artist="Jose"/>'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
UPRIGHT_XMP = XMP.replace(b'Orientation="6"', b'Orientation="1"')
IPTC = b"\x1c\x02\x74\x00\x04Jose" + b"\x1c\x02\x78\x00\x05words"


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def photoshop(iptc: bytes) -> bytes:
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    return b"Photoshop 3.0\0" + block


def jpeg_with(path: Path, *segments: bytes) -> Path:
    data = saved(path, pixels()).read_bytes()
    path.write_bytes(data[:2] + b"".join(segments) + data[2:])
    return path


def with_records(path: Path) -> Path:
    """A file with everything that its format holds."""
    image = Image.fromarray(pixels())
    if path.suffix == ".jpg":
        xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        comments = segment(0xFE, b"important"), segment(0xFE, b"and more")
        return jpeg_with(path, xmp, segment(0xED, photoshop(IPTC)), *comments)
    if path.suffix == ".png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("parameters", "a tree, steps 20")
        info.add_text("Title", "à", zip=True)
        info.add_itxt("workflow", "{}", "fr", "flux")
        image.save(path, pnginfo=info)
    elif path.suffix == ".tif":
        tags = [(700, "B", len(XMP), XMP, True), (33723, "B", len(IPTC), IPTC, True)]
        tifffile.imwrite(path, pixels(), photometric="rgb", extratags=tags, metadata=None)
    else:
        image.save(path, xmp=XMP, lossless=True)
    return path


def records_in(path: Path) -> dict[str, Any]:
    """What other programs find."""
    found: dict[str, Any] = {}
    with Image.open(path) as image:
        image.load()
        found["xmp"] = image.info.get("xmp") or image.getexif().get(700)
        if image.format == "TIFF":
            found["iptc"] = image.tag_v2.get(33723)
        if image.format == "JPEG":
            found["iptc"] = image.info.get("photoshop", {}).get(0x0404)
            found["comments"] = [data for name, data in image.applist if name == "COM"]
        if image.format == "PNG":
            found["texts"] = {k: v for k, v in image.text.items() if not k.startswith("XML")}
    return {name: value for name, value in found.items() if value}


HELD = {
    ".jpg": ("xmp", "iptc", "comments"),
    ".png": ("xmp", "texts"),
    ".tif": ("xmp", "iptc"),
    ".webp": ("xmp",),
}
SPOKEN = {
    "iptc": "IPTC",
    "comments": "comment",
    "texts": "texts (parameters, Title, workflow)",
}


@pytest.mark.parametrize("target", HELD)
@pytest.mark.parametrize("ending", HELD)
def test_records_are_kept_or_said(tmp_path: Path, ending: str, target: str) -> None:
    path, out = with_records(tmp_path / f"in{ending}"), tmp_path / f"out{target}"
    before, picture = records_in(path), decode_picture(path)
    assert set(before) == set(HELD[ending])
    assert picture.notices == ()
    after = records_in(written(out, picture))
    kept = [name for name in HELD[ending] if name in HELD[target]]
    assert after == {name: UPRIGHT_XMP if name == "xmp" else before[name] for name in kept}
    lost = [SPOKEN[name] for name in HELD[ending] if name not in kept]
    kind = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP"}[target]
    told = lost_metadata(out, picture)
    assert told == tuple(not_kept(lost, f": {kind} cannot hold {{}}"))
    assert len(told) <= 1
    assert records_in(written(tmp_path / f"bare{target}", picture, strip_metadata=True)) == {}


@pytest.mark.parametrize("ending", [".tif", ".jpg"])
def test_a_source_by_rows_has_the_same_records(tmp_path: Path, ending: str) -> None:
    path = with_records(tmp_path / f"in{ending}")
    limits = {"max_pixels": 10**6, "max_memory": 10**9, "stream_above": 0}
    with open_source(path, **limits) as source:
        assert source.carried.records == decode_picture(path).records


def test_the_notice_names_all() -> None:
    assert not_kept([]) == []
    assert not_kept(["XMP"], ": WEBP cannot hold {}") == [
        "its XMP is not kept: WEBP cannot hold it"
    ]
    assert not_kept(["EXIF", "XMP", "IPTC"]) == ["its EXIF, XMP and IPTC are not kept"]
    everything = Records(XMP, IPTC, (b"c",), ((b"tEXt", b"a\nb\0c"),))
    lost = record_options("DZI", everything)[2]
    assert lost == ["XMP", "IPTC", "comment", "texts (a\\nb)"]


def test_a_png_s_texts_are_kept_byte_for_byte(tmp_path: Path) -> None:
    texts = {"zTXt": b"k\0\0" + zlib.compress(b"long"), "tEXt": b"b\0\xe9", "iTXt": b"u\0\0\0\0\0x"}
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], **texts)
    out = written(tmp_path / "out.png", decode_picture(path))
    with open(path, "rb") as before, open(out, "rb") as after:
        names = [name.encode() for name in texts]
        assert [e for e in png_chunks(after) if e[0] in names] == [
            e for e in png_chunks(before) if e[0] in names
        ]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("tIME", b"\x07\xe4\1\2\3\4\5", "its time of change is not kept"),
        ("bKGD", bytes(6), "its background colour is not kept"),
        ("oFFs", bytes(9), "its chunk oFFs is not kept"),
        ("pHYs", struct.pack(">IIB", 3, 3, 0), None),
        ("sBIT", b"\5\5\5", None),
    ],
)
def test_a_png_s_other_chunks_are_said(
    tmp_path: Path, name: str, data: bytes, told: str | None
) -> None:
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], **{name: data})
    assert decode_picture(path).notices == ((told,) if told else ())


def test_what_is_left_out_is_said_in_one_line(tmp_path: Path) -> None:
    more = {"tIME": bytes(7), "oFFs": bytes(9), "bKGD": bytes(6)}
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], **more)
    told = "its time of change, chunk oFFs and background colour are not kept"
    assert decode_picture(path).notices == (told,)


@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_that_are_not_square_stay_so(tmp_path: Path, orientation: int) -> None:
    """From every format that says it to every one that can, turned with the image."""
    tags = Image.Exif()
    tags[274] = orientation
    block = tags.tobytes()
    data = bytearray(saved(tmp_path / "a.jpg", pixels(), exif=block).read_bytes())
    place = data.index(b"JFIF\0") + 7
    data[place : place + 5] = b"\0\0\2\0\1"
    (tmp_path / "a.jpg").write_bytes(data)
    data = bytearray(saved(tmp_path / "a.gif", pixels()).read_bytes())
    data[12] = 17
    (tmp_path / "a.gif").write_bytes(data)
    tifffile.imwrite(tmp_path / "a.tif", pixels(), photometric="rgb", resolution=(2, 1),
                     resolutionunit=1, metadata=None,
                     extratags=[(274, "H", 1, orientation, True)])  # fmt: skip
    chunks = {"eXIf": block[6:], "pHYs": struct.pack(">IIB", 4, 2, 0)}
    png(tmp_path / "a.png", 1, 1, 8, 2, [bytes(3)], **chunks)
    for ending in (".jpg", ".gif", ".tif", ".png"):
        picture = decode_picture(tmp_path / f"a{ending}")
        aspect = (1, 2) if orientation == 6 and ending != ".gif" else (2, 1)
        assert picture.records.aspect == aspect
        for target in (".jpg", ".tif", ".png"):
            again = decode_picture(written(tmp_path / f"out{target}", picture))
            assert again.records.aspect == aspect
            assert lost_metadata(tmp_path / f"out{target}", picture) == ()
            bare = written(tmp_path / f"bare{target}", picture, strip_metadata=True)
            assert decode_picture(bare).records.aspect is None
        told = (
            f"its pixel aspect of {aspect[1] / aspect[0]:g} to 1 is not kept: WEBP cannot hold it"
        )
        assert lost_metadata(tmp_path / "out.webp", picture) == (told,)


def test_a_gif_s_comment_reaches_a_jpeg(tmp_path: Path) -> None:
    picture = decode_picture(saved(tmp_path / "in.gif", pixels(), comment=b"important"))
    assert records_in(written(tmp_path / "out.jpg", picture))["comments"] == [b"important"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stream", [True, False])
def test_iptc_in_units_of_32_bits(tmp_path: Path, order: Any, stream: bool) -> None:
    data = IPTC + bytes(-len(IPTC) % 4)
    path, value = tmp_path / "in.tif", struct.unpack(f"{order}{len(data) // 4}I", data)
    tifffile.imwrite(path, pixels(), photometric="rgb", byteorder=order, metadata=None,
                     extratags=[(33723, "I", len(value), value, True)])  # fmt: skip
    assert decode_picture(path).records.iptc == data


def test_words_in_a_tiff_s_other_tags_are_kept(tmp_path: Path) -> None:
    comment = "à".encode("utf-16-le")
    tags = [(285, "s", 0, "page name", True), (40092, "B", len(comment), comment, True)]
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, pixels(), photometric="rgb", extratags=tags, metadata=None)
    picture = decode_picture(path)
    for target in (".tif", ".jpg", ".png", ".webp"):
        with Image.open(written(tmp_path / f"out{target}", picture)) as image:
            image.load()
            assert image.getexif()[285] == "page name"
            assert image.getexif()[40092] == comment


def test_a_tiff_s_further_tags_are_said(tmp_path: Path) -> None:
    path, what_is_none = tmp_path / "in.tif", b"<iScan/>"
    tags = [(34377, "B", 4, b"8BIM", True), (700, "B", 8, what_is_none, True)]
    tags += [(37724, "B", 4, b"8BIM", True)]
    tifffile.imwrite(path, pixels(), photometric="rgb", extratags=tags, metadata=None)
    told = ("its XMP, Photoshop resources and Photoshop layers are not kept",)
    assert decode_picture(path).notices == told


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (b'hdrgm:Version="1.0"', "XMP and gain map are"),
        (b'GDepth:Format="RangeInverse"', "XMP and depth map are"),
        (b'GCamera:MotionPhoto="1"', "XMP and film are"),
    ],
)
def test_xmp_of_other_images_in_the_file_is_left_out(
    tmp_path: Path, words: bytes, lost: str
) -> None:
    xmp = XMP.replace(b"tiff:Artist", words + b" tiff:Artist")
    head = b"http://ns.adobe.com/xap/1.0/\0"
    picture = decode_picture(jpeg_with(tmp_path / "in.jpg", segment(0xE1, head + xmp)))
    assert picture.notices == (f"its {lost} not kept",)
    assert picture.records.xmp is None


def test_xmp_that_goes_on_elsewhere_is_kept_without_the_rest(tmp_path: Path) -> None:
    extended = b' xmpNote:HasExtendedXMP="0123456789ABCDEF"'
    xmp = XMP.replace(b" tiff:Artist", extended + b" tiff:Artist")
    first = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    more = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(50))
    picture = decode_picture(jpeg_with(tmp_path / "in.jpg", first, more))
    assert picture.notices == ("its extended XMP is not kept",)
    assert picture.records.xmp == UPRIGHT_XMP


def test_what_is_too_long_for_a_jpeg_is_said(tmp_path: Path) -> None:
    long = XMP.replace(b"Jose", b"J" * 70_000)
    records = Records(long, IPTC + bytes(70_000), (b"c",))
    picture = Picture(np.zeros((4, 4, 3), np.uint8), records=records)
    told = ("its XMP and IPTC are not kept: JPEG cannot hold them",)
    assert lost_metadata(tmp_path / "out.jpg", picture) == told
    assert set(records_in(written(tmp_path / "out.jpg", picture))) == {"comments"}


def test_a_text_named_as_something_else_is_a_text(tmp_path: Path) -> None:
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], tEXt=b"xmp\0words")
    picture = decode_picture(path)
    assert picture.notices == ()
    assert "xmp" in records_in(written(tmp_path / "out.png", picture))["texts"]
    for name in ("transparency", "dpi", "icc_profile", "gamma", "exif", "aspect"):
        path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], iTXt=name.encode() + b"\0" * 5)
        picture = decode_picture(path)
        assert (picture.notices, picture.alpha, picture.profile, picture.dpi) == (
            (),
            None,
            None,
            None,
        )
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
