"""What is shown of a refinement while it runs."""

import pytest

from prunelib.pruning.losses import Losses


class Bar:
    def advance(self, amount, status):
        self.shown = amount, status


@pytest.mark.parametrize(
    ("losses", "change"),
    [([(500.0, 565.0), (77.5, 70.25)], "+10.0%"), ([(1000.0, 372.0)], "-62.8%"), ([(3.0, 3.0)], "0.0%"), ([], "0.0%")],
)
def test_the_change_of_the_error_has_its_sign(losses, change):
    shown = Losses(bar := Bar())
    for before, after in [*losses, (0.0, 0.0)]:
        shown.add(8, before, after)
    assert bar.shown[0] == 8
    assert bar.shown[1].endswith(f"({change})")
