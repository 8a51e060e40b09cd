"""Bytes and seconds as people write them."""

from __future__ import annotations

import pytest

from sincut.units import byte_count, byte_text, duration


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1GB", 10**9),
        ("1.5 gb", 1_500_000_000),
        ("512MiB", 512 * 2**20),
        ("2K", 2000),
        ("3TB", 3 * 10**12),
        ("12345", 12345),
        ("7 B", 7),
    ],
)
def test_amounts_are_read(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1XB", "1 GB more", "iB", "1e9", "1,5GB"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        byte_count(text)


def test_amounts_are_told() -> None:
    assert [byte_text(n) for n in (0, 3e5, 674e6, 949e6, 999_999_999, 2.34e9)] == [
        "0.0 MB", "0.3 MB", "674 MB", "949 MB", "1.0 GB", "2.3 GB",
    ]  # fmt: skip


def test_times_are_told() -> None:
    assert [duration(s) for s in (0.4, 59, 95, 3700, 90000)] == [
        "0 s", "59 s", "1 min 35 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
