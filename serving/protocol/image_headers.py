"""Image files are checked for the size that they declare, before a model unpacks them.

A PNG of a few kilobytes can declare a billion pixels. TensorFlow's decoders allocate what the header says,
so the header is read here first: PNG, JPEG, GIF, BMP and WebP. JPEG XL, the other format that they take, is
refused: its size is not to be had without a decoder.
"""

from __future__ import annotations

import struct

import numpy as np

from serving.protocol.errors import invalid

# 32 megapixels: every camera's picture is smaller, and decoding takes under 100 MB a channel.
MAX_PIXELS = 32 * 2**20

PNG, JPEG, BMP, GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", (b"GIF87a", b"GIF89a")
JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
# JPEG's markers without a length: TEM, RST0-RST7, SOI.
STANDALONE = {0x01, *range(0xD0, 0xD9)}
# JPEG's start-of-frame markers; C4, C8 and CC mean something else.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_sizes(values: np.ndarray) -> None:
    """Refuse image files of absurd size among strings of any meaning.

    Args:
        values: object [...] of bytes.

    Raises:
        ServingError: INVALID_ARGUMENT with the declared size.
    """
    for value in values.flat:
        if value.startswith(JPEG_XL):
            raise invalid("JPEG XL images are not accepted")
        size = declared_size(value)
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            raise invalid(f"image of {size[0]} x {size[1]} pixels: over the limit of {MAX_PIXELS} pixels")


def declared_size(content: bytes) -> tuple[int, int] | None:
    """Width and height that an image file declares, in pixels; None when it is no image or says no size."""
    try:
        if content.startswith(PNG):
            width, height = struct.unpack_from(">II", content, 16)
        elif content.startswith(JPEG):
            return _jpeg_size(content)
        elif content.startswith(GIF):
            width, height = struct.unpack_from("<HH", content, 6)
        elif content.startswith(BMP):
            width, height = struct.unpack_from("<ii", content, 18)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp_size(content)
        else:
            return None
    except struct.error:
        return None
    return abs(width), abs(height)


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """From the frame header, which follows any number of other segments."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF or marker in STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """From the first chunk: lossy, lossless, or extended."""
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low = struct.unpack_from("<HBHB", content, 24)
        return (low[0] | low[1] << 16) + 1, (low[2] | low[3] << 16) + 1
    return None
