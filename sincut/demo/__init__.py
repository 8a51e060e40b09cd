"""The example pair of ``sincut demo``: a photograph-like landscape and a painted one.

Both pictures are computed, so the project ships no image files. All randomness is seeded: the
same size gives the same picture.
"""

from sincut.demo.landscape import render_content
from sincut.demo.painting import render_style

__all__ = ["render_content", "render_style"]
