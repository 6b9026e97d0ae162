"""The last value of every curve, written at its end, so that curves of several charts can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

Ends = tuple[Sequence[float], Sequence[float], str]
"""x, y and colour of a curve."""

_SIZE = 8.0
"""Points: of the text; lines of it are no closer than `_APART`."""
_APART = 9.5
_MOST = 12
"""More curves have no room for their values beside each other."""


def ending(values: Sequence[float]) -> str:
    """Return a curve's last value that is a number, to three figures."""
    for value in reversed(values):
        if math.isfinite(value):
            return f"{value / 1000:.3g}k" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return ""


def room_of(curves: Sequence[Sequence[float]]) -> float:
    """Return the inches that the last values of curves take on the right; 0: none are written there."""
    texts = [ending(values) for values in curves]
    if not any(texts) or len(texts) > _MOST:
        return 0.0
    return 0.08 + 0.075 * max(len(text) for text in texts)


def label_endings(axes: Axes, curves: Sequence[Ends]) -> None:
    """Write the last value of each curve beside its end, in its colour, none over another."""
    ends = []
    for x, y, colour in curves:
        points = [(at, value) for at, value in zip(x, y, strict=True) if math.isfinite(value)]
        if points:
            ends.append((*points[-1], colour, ending(y)))
    pixels = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in ends]
    low, high = axes.bbox.y0, axes.bbox.y1
    to_points = 72.0 / axes.figure.dpi
    heights = spread([min(max(pixel, low), high) * to_points for pixel in pixels], _APART, high * to_points)
    for (_, _, colour, text), height in zip(ends, heights, strict=True):
        axes.annotate(
            text,
            (1.0, (height / to_points - low) / (high - low)),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontsize=_SIZE,
            verticalalignment="center",
            annotation_clip=False,
        )


def spread(heights: Sequence[float], apart: float, top: float) -> list[float]:
    """Return heights in the same order, none closer than `apart` and none over `top`; few are moved far.

    Those that are too close become a block around their mean; blocks that then touch are joined.
    """
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    blocks: list[tuple[float, list[int]]] = []  # middle and members, from below
    for at in order:
        blocks.append((heights[at], [at]))
        while len(blocks) > 1 and _gap(blocks[-2], blocks[-1], apart) < apart - 1e-9:
            (lower, below), (upper, above) = blocks[-2:]
            size = len(below) + len(above)
            blocks[-2:] = [((lower * len(below) + upper * len(above)) / size, below + above)]
    found = [0.0] * len(heights)
    for middle, members in blocks:
        for place, at in enumerate(members):
            found[at] = middle + (place - (len(members) - 1) / 2) * apart
    ceiling = top
    for at in reversed(order):
        found[at] = min(found[at], ceiling)
        ceiling = found[at] - apart
    return found


def _gap(below: tuple[float, list[int]], above: tuple[float, list[int]], apart: float) -> float:
    """Distance of the highest of one block and the lowest of the next."""
    return above[0] - (len(above[1]) - 1) / 2 * apart - below[0] - (len(below[1]) - 1) / 2 * apart
