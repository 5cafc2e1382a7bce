"""The page in a real browser: on a phone and a wide screen, light, dark and printed, with its script and without."""

import shutil

import pytest
from report_records import CASES, drawn

from prunelib.reporting.page import html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `test`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe, of the extra `test`")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")

SCREENS = [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module", params=["updated weights", "several models"])
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(CASES[request.param], list(drawn(request.param).values())), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, whole, request):
    width, scheme = getattr(request, "param", SCREENS[0])
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(whole)
    yield page
    page.close()


@pytest.mark.parametrize("opened", SCREENS, indirect=True)
def test_axe_finds_no_violation(opened):
    found = axe.Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("opened", SCREENS[::2], indirect=True)
def test_nothing_but_tables_is_wider_than_the_screen(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_texts_of_figures_have_11_pixels_on_a_phone(opened):
    sizes = """[...document.querySelectorAll('.panel')].map(
        svg => 13 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""
    assert min(opened.evaluate(sizes)) >= 11


def test_texts_of_figures_are_whole(opened):
    """No text leaves its panel on the left, right or top, with the fonts that are there."""
    outside = """[...document.querySelectorAll('.panel text')].filter(text => {
        const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1;
    }).map(text => text.textContent)"""
    assert opened.evaluate(outside) == []


def test_scrolling_tables_take_the_keyboards_focus(opened):
    assert opened.locator(".wide").first.get_attribute("tabindex") == "0"


def test_a_heading_sorts_and_sorts_back(opened):
    column = opened.locator(".results").first.locator("thead th", has_text="Perplexity wiki")
    at = column.evaluate("head => head.cellIndex")
    values = """[...document.querySelector('.results').tBodies].at(-1).querySelectorAll('tr[id]')"""
    shown = f"[...{values}].map(row => parseFloat(row.cells[{at}].textContent))"
    for state, backwards in (("ascending", False), ("descending", True)):
        column.locator("button").click()
        assert column.get_attribute("aria-sort") == state
        numbers = opened.evaluate(shown)
        assert numbers == sorted(numbers, reverse=backwards)


def test_filters_leave_the_rows_that_fit(opened):
    visible = opened.locator(".results").first.locator("tr[id]:visible")
    before = visible.count()
    opened.locator(".filters select").nth(1).select_option("magnitude")
    kept = visible.count()
    assert 0 < kept < before
    assert all("magnitude" in row or row.startswith("dense") for row in visible.all_inner_texts())
    opened.locator(".filters select").nth(1).select_option("all")
    assert visible.count() == before


def test_a_mark_leads_to_its_row(opened):
    mark = opened.locator(".panel a").first
    mark.evaluate("link => link.dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert opened.locator("tr:target").count() == 1


def test_all_is_there_without_the_script(browser, whole):
    page = browser.new_page(java_script_enabled=False)
    page.goto(whole)
    assert page.locator(".filters, .results button").count() == 0
    assert page.locator(".results tr[id]").count() > 0
    page.close()


def test_print_has_no_controls_and_is_made(opened):
    opened.emulate_media(media="print")
    assert not opened.locator(".filters").first.is_visible()
    button = opened.locator(".results thead button").first
    assert button.evaluate("button => getComputedStyle(button).display") == "contents"  # else pages lack the head
    assert opened.pdf().startswith(b"%PDF")
