"""Measure finished translations of one pair: figures, identity, and a plot of what they trade."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
