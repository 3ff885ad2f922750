"""From a picture of a digit to what MNIST would have made of it, in the graph: light on black, centred.

MNIST's digits were scaled into a box of 20 x 20 pixels, their aspect ratio kept, and put into a field of
28 x 28 so that their centre of mass is its centre (http://yann.lecun.com/exdb/mnist). Of the 10,000 test
digits, 9,997 fill their box, and the centre of mass of all rounds to pixel (14, 14).
"""

from __future__ import annotations

import math

import tensorflow as tf

BOX_SHARE = 20 / 28  # of the field's side
THINNEST, STROKE = 0.9, 2.0  # pixels of the field: no test digit's stroke is thinner; most are wider
_FAINT = 8  # of 255 grey levels: a picture with less contrast is blank
_NOISE_PERCENT = 95  # quantile of the ink on the frame, where the ground is
_NOISE_MARGIN = 2.5  # noise is at most so many times that: 4 standard deviations where it is Gaussian
_MAX_NOISE = 0.4  # of the peak, should the digit itself lie on the frame
_TRACE = 0.08  # of the peak: rows of fainter ink are not the digit's, but what JPEG leaves around it
_TRIM = 0.002  # share of a noisy picture's ink that is cut off at each side of the digit


def centred(grey: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Find the digit, make it light on black, scale it and centre it.

    Args:
        grey: [h, w] grey levels 0 … 255 of any size, the digit darker or lighter than its ground.
        height: of the field, in pixels.
        width: of the field, in pixels.

    Returns:
        uint8 [height, width], the digit's brightest pixel at 255.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, where there is nothing to be seen.
    """
    ink, noisy = _ink(tf.cast(grey, tf.float32))
    trim = tf.where(noisy, _TRIM, 0.0)
    top, bottom = _extent(ink, trim)
    left, right = _extent(tf.transpose(ink), trim)
    digit = ink[top:bottom, left:right]
    longest = tf.cast(tf.reduce_max(tf.shape(digit)), tf.float64)
    scale = min(height, width) * BOX_SHARE / longest
    digit = _thickened(digit, scale)
    small = tf.transpose(_resampled(tf.transpose(_resampled(digit, scale)), scale))
    return _in_the_field(tf.round(small * (255 / tf.reduce_max(small))), height, width)


def _ink(grey: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How much a pixel differs from the ground, 0 … 1, and whether noise was taken off it."""
    signed = grey - _quantile(_frame(grey), 50)
    lighter = tf.reduce_sum(tf.maximum(signed, 0)) >= tf.reduce_sum(tf.maximum(-signed, 0))
    ink = tf.maximum(tf.where(lighter, signed, -signed), 0)
    peak = tf.reduce_max(ink)
    check = tf.debugging.Assert(peak >= _FAINT, ["blank: no digit to be seen"])
    with tf.control_dependencies([check] if check is not None else []):
        quantile = _quantile(_frame(ink), _NOISE_PERCENT)
    noise = tf.minimum(_NOISE_MARGIN * quantile, _MAX_NOISE * peak)
    return tf.maximum(ink - noise, 0) / (peak - noise), noise > 0


def _frame(values: tf.Tensor) -> tf.Tensor:
    """The outermost pixels, each once where there are at least two rows and columns."""
    return tf.concat([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]], 0)


def _quantile(values: tf.Tensor, percent: int) -> tf.Tensor:
    """Of those at both sides the lower one."""
    return tf.sort(values)[(tf.size(values) - 1) * percent // 100]


def _extent(lines: tf.Tensor, trim: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the rows of ink lie, without the faintest ones and that share of the ink at each end."""
    mass = tf.reduce_sum(lines, 1) / tf.reduce_sum(lines)
    before = tf.cumsum(mass, exclusive=True)
    inked = (tf.reduce_max(lines, 1) > _TRACE) & (before + mass > trim) & (before < 1 - trim)
    places = tf.where(inked)[:, 0]
    return places[0], places[-1] + 1


def _thickened(digit: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Widen strokes that would all but vanish when the picture shrinks, such as a pen's on a photo."""
    mask = tf.cast(tf.pad(digit > 0.5, [[1, 1], [1, 1]]), tf.int8)
    across, down = tf.not_equal(mask[1:], mask[:-1]), tf.not_equal(mask[:, 1:], mask[:, :-1])
    edges = tf.math.count_nonzero(across) + tf.math.count_nonzero(down)
    area = tf.cast(tf.math.count_nonzero(mask), tf.float64)
    # Area by half the outline, which a grid makes 4 / pi longer.
    stroke = 2 * area / (tf.cast(tf.maximum(edges, 1), tf.float64) * (math.pi / 4))

    def wider() -> tf.Tensor:
        radius = tf.cast(tf.math.ceil((STROKE / scale - stroke) / 2), tf.int32)
        return tf.transpose(_spread(tf.transpose(_spread(digit, radius)), radius))

    return tf.cond((stroke * scale >= THINNEST) | tf.equal(edges, 0), lambda: digit, wider)


def _spread(values: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """The maximum over 2 * radius + 1 rows; as many rows as before."""
    whole = 2 * radius + 1

    def wider(spread: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = tf.minimum(window, whole - window)
        return tf.maximum(spread[:-step], spread[step:]), window + step

    padded = tf.pad(values, [[radius, radius], [0, 0]])
    return tf.while_loop(
        lambda _, window: window < whole,
        wider,
        (padded, tf.constant(1)),
        shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([])),
    )[0]


def _resampled(values: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Scale the rows by `scale`; each new row is the mean of what it covers."""
    rows = tf.cast(tf.shape(values)[0], tf.float64)
    size = tf.maximum(tf.round(rows * scale), 1)
    step = rows / size
    begins = tf.range(size)[:, None] * step
    source = tf.range(rows)[None, :]
    covered = tf.maximum(tf.minimum(begins + step, source + 1) - tf.maximum(begins, source), 0)
    return tf.matmul(tf.cast(covered / step, tf.float32), values)


def _in_the_field(digit: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Put the digit into the field, its centre of mass at the field's centre to the nearest pixel."""
    top = _offset(tf.reduce_sum(digit, 1), height)
    left = _offset(tf.reduce_sum(digit, 0), width)
    wide = tf.pad(tf.cast(digit, tf.uint8), [[height, height], [width, width]])
    return tf.slice(wide, [height - top, width - left], [height, width])


def _offset(profile: tf.Tensor, size: int) -> tf.Tensor:
    places = tf.range(tf.cast(tf.size(profile), tf.float32))
    centre = tf.reduce_sum(profile * places) / tf.reduce_sum(profile)
    return tf.cast(tf.floor(size / 2 - centre + 0.5), tf.int32)
