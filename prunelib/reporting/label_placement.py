"""Labels beside points, where they cover neither a point nor another label."""

from collections.abc import Iterator, Sequence

from matplotlib.transforms import Bbox

_POINT = 5  # half the width of a point, in pixels
_NEAR = (8, 14, 22)


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Bbox
) -> list[Bbox | None]:
    """Return the place of each label, the first labels first; None where there is none beside its point.

    Parameters
    ----------
    points
        Places (x, y) of the points, in pixels.
    sizes
        Width and height of the labels, in pixels.
    frame
        All labels lie inside.
    """
    taken = [Bbox.from_extents(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    placed: list[Bbox | None] = []
    for point, size in zip(points, sizes, strict=True):
        free = (box for box in _candidates(*point, *size) if _within(box, frame) and not box.count_overlaps(taken))
        found = next(free, None)
        taken += [found] if found else []
        placed.append(found)
    return placed


def _within(box: Bbox, frame: Bbox) -> bool:
    return frame.contains(*box.min) and frame.contains(*box.max)


def _candidates(x: float, y: float, width: float, height: float) -> Iterator[Bbox]:
    """Yield places from near to far: right, left, above and below of a point, then at its corners."""
    for near in _NEAR:
        sides = [
            (x + near, y),
            (x - near - width, y),
            (x - width / 2, y + near + height / 4),
            (x - width / 2, y - near - height / 4),
        ]
        corners = [(left, y + up) for up in (near, -near) for left in (x + _POINT, x - _POINT - width)]
        for left, middle in (*sides, *corners):
            yield Bbox.from_bounds(left, middle - height / 2, width, height)
