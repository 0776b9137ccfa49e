"""Lines of text as pictures: the same pixels in every run, in several fonts, sizes and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.accuracy_cases.case import package_folder

PILLOW = "Pillow"
"""The font that Pillow has of its own."""

# Of the font's name, the package that carries it and its file there.
FILES = {
    "Roboto": ("font_roboto", "Roboto-Regular.ttf"),
    "Roboto Bold Italic": ("font_roboto", "Roboto-BoldItalic.ttf"),
    "Source Sans Pro": ("font_source_sans_pro", "SourceSansPro-Regular.ttf"),
    "Source Serif Pro": ("font_source_serif_pro", "SourceSerifPro-Regular.ttf"),
    "Caladea": ("font_caladea", "Caladea-Regular.ttf"),
    "Caladea Bold": ("font_caladea", "Caladea-Bold.ttf"),
}
FONTS = (PILLOW, *FILES)
SIZES = (14, 19, 26, 38)
"""Pixels; a line becomes 48 pixels high whatever it was, so the small ones are blurred."""

INKS = ((20, 20, 20), (90, 90, 96), (24, 40, 110), (120, 30, 30))
PAPERS = ((255, 255, 255), (246, 240, 226), (228, 234, 240))
GRAIN = 10.0
"""Standard deviation of the noise, of 255: about that of a scan."""

TEXTS = (
    "The quick brown fox", "Invoice No. 20417", "Meet me at noon", "Platform 9, Track 4",
    "Handle with care", "Total: 38.50 EUR", "Open from 8 to 18", "North Harbour Road",
    "Made in Portugal", "Tel. 0351-774902", "Keep refrigerated", "Best before 2027-03",
    "Gate B12 boarding", "Serial XK-4471-PQ", "Water level rising", "Please ring twice",
    "Room 305, 3rd floor", "Save 25% today", "Winter timetable", "Order #88213",
    "Push to open", "Version 0.27.1", "Maple Syrup 250 ml", "Lost and Found",
    "Queue starts here", "Batch 1093/B", "Zebra Crossing", "Temperature 21.5 C",
    "Quiet please", "JUNE 14, 1968", "Chapter Seven", "Net weight 1.2 kg",
    "Return by Friday", "PIN code: 6640", "Museum of Glass", "Exit on the left",
    "Flight LH 1872", "Black pepper", "Lower your voice", "Bus 42 to Airport",
    "Grand Hotel Vista", "Due: 3 January", "Fragile contents", "Score 7 to 5",
    "WET PAINT", "Half price books", "Account 5520 7316", "Jazz every Monday",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """What is written, and its picture: rows, columns, and red, green and blue in 8 bits."""

    text: str
    pixels: Any


def font(name: str, size: int) -> Any:
    """One of ``FONTS``. Raises ``MissingDependency``, which names what to install."""
    from PIL import ImageFont

    if name == PILLOW:
        return ImageFont.load_default(size)
    package, file = FILES[name]
    folder = package_folder(package, package.replace("_", "-"))
    return ImageFont.truetype(str(folder / "files" / file), size)


def draw(text: str, name: str, size: int, seed: int) -> Line:
    """``text`` in a font; ``seed`` says in which colours, with which margins and which noise."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    used = font(name, size)
    left, top, right, bottom = used.getbbox(text)
    above, beside = size * rng.uniform(0.1, 0.25), size * rng.uniform(0.1, 0.5)
    size_of_it = round(right - left + 2 * beside), round(bottom - top + 2 * above)
    image = Image.new("RGB", size_of_it, PAPERS[rng.integers(len(PAPERS))])
    ink = INKS[rng.integers(len(INKS))]
    ImageDraw.Draw(image).text((beside - left, above - top), text, fill=ink, font=used)
    return Line(text, grained(np.asarray(image), rng))


def grained(pixels: Any, rng: Any) -> Any:
    """``pixels`` with noise."""
    import numpy as np

    noisy = pixels + rng.normal(0.0, GRAIN, pixels.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def three_parts(
    count: int, fonts: Sequence[str] = FONTS, sizes: Sequence[int] = SIZES
) -> tuple[list[Line], list[Line], list[Line]]:
    """Three times ``count`` lines; no text is in two parts, and each in several fonts and sizes."""
    made: list[list[Line]] = []
    for part in range(3):
        texts = TEXTS[part::3]
        made.append(
            [
                # 7 fonts and 4 sizes have no common factor: all pairs of them come.
                draw(
                    texts[i % len(texts)],
                    fonts[i % len(fonts)],
                    sizes[i % len(sizes)],
                    3 * i + part,
                )
                for i in range(count)
            ]
        )
    return made[0], made[1], made[2]


def as_input(pixels: Any, height: int, width: int) -> Any:
    """As PP-OCR's models of lines take it: 1x3xheightxwidth, blue first, from -1 to 1.

    Its shape is kept where that fits, what is left to the right is 0.
    """
    import numpy as np
    from PIL import Image

    across = min(width, int(np.ceil(height * pixels.shape[1] / pixels.shape[0])))
    resized = Image.fromarray(pixels).resize((across, height), Image.Resampling.BILINEAR)
    made = np.zeros((1, 3, height, width), np.float32)
    made[0, :, :, :across] = scaled(np.asarray(resized))
    return made


def scaled(pixels: Any) -> Any:
    """Pixels as planes of blue, green and red, from -1 to 1."""
    import numpy as np

    return (pixels[:, :, ::-1].astype(np.float32) / 255.0 - 0.5).transpose(2, 0, 1) / 0.5
