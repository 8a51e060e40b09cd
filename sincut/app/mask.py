"""``python -m sincut.app.mask PAINTED IMAGE MASK``: a painted mask, as large as an image. No torch.

Prints a JSON object: ``width`` and ``height``, or ``error``. White is translated, black stays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from sincut.errors import SincutError
from sincut.images.metadata import DAMAGE
from sincut.images.reading.open import image_size

_MOST = 400_000_000  # pixels: it is enlarged in memory


def enlarged(painted: Path, image: Path, place: Path) -> dict[str, int]:
    """Write the mask; what was painted is grey or has an alpha channel, which counts alone.

    Raises:
        SincutError: it is no picture, or the image is too large for a painted mask.
    """
    width, height = image_size(image, max_pixels=20_000_000_000)
    if width * height > _MOST:
        raise SincutError(
            f"{image.name} has {width}×{height} pixels, and a painted mask at most {_MOST}; give "
            "sincut translate --mask an image of that size"
        )
    try:
        with Image.open(painted, formats=["PNG"]) as opened:
            if max(opened.size) > 8192:
                raise SincutError("a painted mask has at most 8192 pixels a side; reload the page")
            grey = opened.getchannel("A") if "A" in opened.getbands() else opened.convert("L")
    except DAMAGE:
        raise SincutError("the painted mask is no PNG; reload the page") from None
    grey.resize((width, height), Image.Resampling.BICUBIC).save(place, "PNG")
    return {"width": width, "height": height}


def main() -> None:
    """Print what was written, as JSON."""
    found: dict[str, object] = {}
    try:
        found |= enlarged(*(Path(word) for word in sys.argv[1:4]))
    except SincutError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
