"""The main figures as tables in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunelib.reporting.report import Report
from prunelib.reporting.tables import Entry, main_tables


def print_tables(report: Report, console: Console) -> None:
    """Print one table per model, each group with its pattern on the first row; the best values of a group are bold."""
    for known in main_tables(report):
        title = Text(known.model)  # a plain text would be read for markup
        shown = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=0, pad_edge=False)
        for heading in ("Pattern", *known.headings[:2]):
            shown.add_column(Text(heading), no_wrap=True)
        for heading in known.headings[2:]:
            shown.add_column(Text(heading), justify="right", min_width=max(map(len, heading.split(" "))))
        for group in known.groups:
            for index, row in enumerate(group.rows):
                shown.add_row(Text("" if index else group.title), *map(_shown, row), end_section=row is group.rows[-1])
        console.print(shown)


def _shown(entry: Entry) -> Text:
    return Text(entry.text, style="bold" if entry.best else "")
