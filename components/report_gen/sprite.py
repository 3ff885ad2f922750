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

    @property
    def colour(self) -> bool:
        """Whether the images are photos, which a page shows as they are, and not ink on a ground."""
        return any(image.ndim == 3 for image in self._images)

    def add(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Put in uint8 [H, W] or [H, W, 3]; returns its column and row."""
        self._images.append(image)
        row, column = divmod(len(self._images) - 1, self.columns)
        return column, row

    def data_uri(self) -> str:
        """A PNG of all; of grey images the alpha channel is the ink: a page draws it in its own colour."""
        height, width, *colours = self._images[0].shape if self._images else (1, 1)
        sheet = np.zeros((self.rows * height, self.columns * width, *colours), np.uint8)
        for number, image in enumerate(self._images):
            row, column = divmod(number, self.columns)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
        picture = Image.fromarray(sheet)
        if not colours:
            picture = Image.merge("LA", (Image.new("L", picture.size), picture))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
