"""Labels cover neither points nor each other."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from prunelib.reporting.label_placement import place


@given(st.lists(st.tuples(st.floats(50, 350), st.floats(50, 300)), max_size=12))
def test_labels_cover_no_point_and_no_label(points):
    frame = Bbox.from_extents(40, 40, 390, 320)
    boxes = [box for box in place(points, [(60, 13)] * len(points), frame) if box]
    assert not any(one.count_overlaps([other]) for one, other in combinations(boxes, 2))
    for box in boxes:
        assert (box.min >= frame.min).all()
        assert (box.max <= frame.max).all()
        assert not any(box.fully_contains(x, y) for x, y in points)


def test_a_lone_label_stands_to_the_right_of_its_point():
    (box,) = place([(100, 100)], [(50, 12)], Bbox.from_extents(0, 0, 400, 300))
    assert box.extents.tolist() == [108, 94, 158, 106]
