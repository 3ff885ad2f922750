"""Many small pictures in one PNG, which a page shows piece by piece."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Sprite:
    """Collects images of one size; `cell` numbers go into the page, `data_uri` once into its style."""

    def __init__(self, columns: int = 16) -> None:
        self.columns = columns
        self._images: list[NDArray[np.uint8]] = []

    @property
    def rows(self) -> int:
        """Rows of the grid, at least one."""
        return max(1, math.ceil(len(self._images) / self.columns))

    def add(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Put in uint8 [H, W]; returns its column and row."""
        self._images.append(image)
        row, column = divmod(len(self._images) - 1, self.columns)
        return column, row

    def data_uri(self) -> str:
        """A PNG whose alpha channel is the ink, so that a page draws it as a mask in its own colour."""
        height, width = self._images[0].shape if self._images else (1, 1)
        sheet = np.zeros((self.rows * height, self.columns * width), np.uint8)
        for number, image in enumerate(self._images):
            row, column = divmod(number, self.columns)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
        ink = Image.fromarray(sheet)
        picture = Image.merge("LA", (Image.new("L", ink.size), ink))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
