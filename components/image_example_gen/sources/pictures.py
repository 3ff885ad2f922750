"""Picture files: what their headers say, and whether they can be decoded at all."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 1 << 25  # as the server has it: decoding takes under 100 MB a channel
_JPEG = ("JPEG", "MPO")  # Pillow's name for a JPEG file with more pictures after the first
_GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})
_ORIENTATION = 0x0112  # EXIF
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap height and width


class PictureError(ValueError):
    """A file is no picture that can be used: one line."""


@dataclass(frozen=True)
class Header:
    """What a picture is.

    Attributes:
        height, width: pixels, upright.
        channels: 1 or 3.
    """

    height: int
    width: int
    channels: int


def check(content: bytes) -> Header:
    """Decode a picture file to the end and say what it is.

    Raises:
        PictureError: where it is no picture, is broken, too large, or of a kind that TensorFlow lacks.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            height, width = image.height, image.width
            if width * height > MAX_PIXELS:
                raise PictureError(f"{width} x {height} pixels: more than {MAX_PIXELS:,}")
            if image.format == "WEBP" and getattr(image, "is_animated", False):
                raise PictureError("an animated WEBP: save its first frame")
            if image.format == "BMP" and image.mode not in ("L", "RGB", "RGBA"):
                raise PictureError(f"a BMP of mode {image.mode}: save it as PNG")
            channels = 1 if image.mode in _GREY else 3
            # All of a JPEG file is read all the same, and an eighth of its pixels made from it.
            image.draft(None, (1, 1))
            image.load()
            if image.format in _JPEG and image.getexif().get(_ORIENTATION) in _TURNED:
                height, width = width, height
    except UnidentifiedImageError:
        raise PictureError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"broken: {error}") from None
    return Header(height, width, channels)
