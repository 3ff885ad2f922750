"""What trainer.centring does, in NumPy: the program that `mnist query` had before the graph did it.

The oracle of test_centring.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float64]

BOX_SHARE = 20 / 28
THINNEST, STROKE = 0.9, 2.0
_FAINT = 8
_NOISE_QUANTILE = 0.95
_NOISE_MARGIN = 2.5
_MAX_NOISE = 0.4
_TRACE = 0.08
_TRIM = 0.002


class BlankError(ValueError):
    """There is nothing to be seen."""


def normalise(grey: NDArray, height: int, width: int) -> UInt8:
    """Find the digit, make it light on black, scale it and centre it.

    Args:
        grey: [h, w] grey levels 0 … 255 of any size, the digit darker or lighter than its ground.
        height: of the field, in pixels.
        width: of the field, in pixels.

    Returns:
        uint8 [height, width], the digit's brightest pixel at 255.

    Raises:
        BlankError: where there is nothing to be seen.
    """
    ink, noisy = _ink(np.asarray(grey, np.float64))
    trim = _TRIM if noisy else 0.0
    rows, columns = _extent(ink, trim), _extent(ink.T, trim)
    digit = ink[rows, columns]
    scale = min(height, width) * BOX_SHARE / max(digit.shape)
    digit = _thicken(digit, scale)
    small = _resample(_resample(digit, scale).T, scale).T
    return _centred(np.rint(small * (255 / small.max())), height, width)


def _ink(grey: Float) -> tuple[Float, bool]:
    """How much a pixel differs from the ground, 0 … 1, and whether noise was taken off it."""
    frame = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    signed = grey - _lower_median(frame)
    lighter = signed.clip(0).sum() >= (-signed).clip(0).sum()
    ink = (signed if lighter else -signed).clip(0)
    peak = ink.max()
    if peak < _FAINT:
        raise BlankError("blank: no digit to be seen")
    on_frame = np.sort(np.concatenate([ink[0], ink[-1], ink[1:-1, 0], ink[1:-1, -1]]))
    quantile = on_frame[int(_NOISE_QUANTILE * (len(on_frame) - 1))]
    noise = min(_NOISE_MARGIN * quantile, _MAX_NOISE * peak)
    return (ink - noise).clip(0) / (peak - noise), bool(noise)


def _lower_median(values: Float) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def _extent(lines: Float, trim: float) -> slice:
    """Where the rows of ink lie, without the faintest ones and that share of the ink at each end."""
    mass = lines.sum(1) / lines.sum()
    before = np.cumsum(mass) - mass
    inked = (lines.max(1) > _TRACE) & (before + mass > trim) & (before < 1 - trim)
    return slice(int(np.argmax(inked)), len(inked) - int(np.argmax(inked[::-1])))


def _thicken(digit: Float, scale: float) -> Float:
    """Widen strokes that would all but vanish when the picture shrinks, such as a pen's on a photo."""
    mask = np.pad(digit > 0.5, 1)
    edges = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    stroke = (
        2 * mask.sum() / (edges * np.pi / 4)
    )  # area by half the outline, which a grid makes 4 / pi longer
    if stroke * scale >= THINNEST:
        return digit
    radius = int(np.ceil((STROKE / scale - stroke) / 2))
    return _spread(_spread(digit, radius).T, radius).T


def _spread(values: Float, radius: int) -> Float:
    """The maximum over 2 * radius + 1 rows; as many rows as before."""
    spread, window = np.pad(values, ((radius, radius), (0, 0))), 1
    while window < 2 * radius + 1:
        step = min(window, 2 * radius + 1 - window)
        spread = np.maximum(spread[:-step], spread[step:])
        window += step
    return spread


def _resample(values: Float, scale: float) -> Float:
    """Scale the rows by `scale`; each new row is the mean of what it covers."""
    size = max(1, round(len(values) * scale))
    step = len(values) / size
    ends = np.arange(size)[:, None] * step
    source = np.arange(len(values))[None, :]
    covered = (np.minimum(ends + step, source + 1) - np.maximum(ends, source)).clip(0)
    return np.asarray(covered @ values / step)


def _centred(digit: Float, height: int, width: int) -> UInt8:
    """Put the digit into the field, its centre of mass at the field's centre to the nearest pixel."""
    field = np.zeros((height, width), np.uint8)
    top = _offset(digit.sum(1), height)
    left = _offset(digit.sum(0), width)
    rows = slice(max(0, -top), min(digit.shape[0], height - top))
    columns = slice(max(0, -left), min(digit.shape[1], width - left))
    field[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left] = digit[
        rows, columns
    ]
    return field


def _offset(profile: Float, size: int) -> int:
    centre = (profile * np.arange(len(profile))).sum() / profile.sum()
    return int(np.floor(size / 2 - centre + 0.5))
