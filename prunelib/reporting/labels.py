"""Labels beside points, where they cover neither a point nor another label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prunelib.reporting.svg import FONT, width_of

_POINT = 5  # half the width of a point, in pixels
_NEAR = (8, 14, 22)


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Return whether two rectangles overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def within(self, frame: "Box") -> bool:
        """Return whether a rectangle lies inside another."""
        across = frame.left <= self.left and self.right <= frame.right
        return across and frame.top <= self.top and self.bottom <= frame.bottom


def place(points: Sequence[tuple[float, float]], labels: Sequence[str], frame: Box) -> list[Box | None]:
    """Return the place of each label, the first labels first; None where there is none beside its point.

    Parameters
    ----------
    points
        Places (x, y) of the points.
    labels
        Their texts.
    frame
        All labels lie inside.
    """
    taken = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    placed: list[Box | None] = []
    for point, label in zip(points, labels, strict=True):
        free = (box for box in _candidates(*point, width_of(label)) if box.within(frame) and not _any(box, taken))
        found = next(free, None)
        taken += [found] if found else []
        placed.append(found)
    return placed


def _any(box: Box, taken: Sequence[Box]) -> bool:
    return any(box.meets(other) for other in taken)


def _candidates(x: float, y: float, width: float) -> Iterator[Box]:
    """Yield places from near to far: right, left, above and below of a point, then at its corners."""
    half, height = width / 2, FONT
    for near in _NEAR:
        sides = [
            (x + near, y),
            (x - near - width, y),
            (x - half, y - near - height / 4),
            (x - half, y + near + height / 4),
        ]
        corners = [(left, y + up) for up in (-near, near) for left in (x + _POINT, x - _POINT - width)]
        for left, middle in (*sides, *corners):
            yield Box(left, middle - height / 2, left + width, middle + height / 2)
