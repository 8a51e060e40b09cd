"""Amounts as people write them: bytes and seconds."""

from __future__ import annotations

import re


def byte_count(text: str) -> int:
    """``1.5GB`` as a number of bytes; KB, MB, GB, TB are powers of 1000, KiB … of 1024.

    Raises:
        ValueError: it is no such text.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(text)
    number, prefix, binary = match.groups()
    power = " KMGT".index((prefix or " ").upper())
    return int(float(number) * (1024 if binary else 1000) ** power)


def byte_text(count: float) -> str:
    """Bytes as megabytes or gigabytes: ``1.2 GB``, ``12 MB``, ``0.3 MB``."""
    if count >= 0.95e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 0.95e6 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """``95`` → ``1 min 35 s``; the two largest units that say something."""
    seconds = round(seconds)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
