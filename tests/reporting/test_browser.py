"""The page of a report in a real browser: nothing is asked for, nothing is run that is not ours, the filter filters."""

import shutil

import pytest

from flax_attnat.reporting.report import Options, write_report
from tests.reporting import made
from tests.reporting.test_report import workdir

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, and playwright: the extra browser")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The address of a page with tables, figures and three texts, the first of them hostile."""
    folder = tmp_path_factory.mktemp("browser")
    lines = made.every_split() + made.every_split(("attention_at",), epsilon=1.0, auc=0.1)
    lines += [made.robustness(name, seed) for name in made.VALUES for seed in (0, 1)]
    page = write_report([workdir(folder / "a", lines, texts=True)], folder / "report", Options(), lambda note: None)
    return f"file://{page}"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra browser")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, report, request):
    """The page, and what it asked for and complained about."""
    context = browser.new_context(offline=True, **getattr(request, "param", {}))
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(report)
    yield page, asked, said
    context.close()


SIZES = [
    {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    for width in (360, 1600)
    for scheme in ("light", "dark")
]


@pytest.mark.parametrize("opened", SIZES, indirect=True, ids=lambda size: f"{size['viewport']['width']}")
def test_it_asks_for_nothing_says_nothing_and_fits(opened, report):
    page, asked, said = opened
    assert [url for url in asked if not url.startswith("data:")] == [report] and said == []
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")


def test_hostile_texts_appear_as_texts(opened):
    page, _, said = opened
    first = page.locator("section.sentence").first.inner_text()
    assert "<script>alert(1)</script>" in first and "\"'&amp;" in first and "<!--" in first and said == []
    assert page.locator("section.sentence script, section.sentence img").count() == 0


def shown(page):
    """The numbers of the texts that are shown."""
    headings = page.locator("section.sentence:visible .heading").all_inner_texts()
    return [int(text.split(".")[0]) for text in headings]


def test_the_filter_filters(opened):
    page, _, _ = opened
    assert shown(page) == [1, 2, 3] and page.inner_text("#shown") == "3 of 3 texts"
    page.fill("[name=text]", "Good film")
    assert shown(page) == [2] and page.inner_text("#shown") == "1 of 3 texts"
    page.fill("[name=text]", "<script>")
    assert shown(page) == [1]
    page.click("text=Clear")
    assert shown(page) == [1, 2, 3]
    page.select_option("[name=label]", "good")
    assert shown(page) == [2]
    page.select_option("[name=label]", "")
    page.select_option("[name=error]", "wrong")  # all are said to be of the first class, as equal probabilities are
    assert shown(page) == [2]
    page.select_option("[name=error]", "right")
    assert shown(page) == [1, 3]


def test_one_technique_can_be_looked_at(opened):
    page, _, _ = opened
    assert page.locator("[data-technique]:visible").count() == 6
    page.select_option("[name=technique]", "attention_at")
    visible = page.locator("[data-technique]:visible")
    assert {each.get_attribute("data-technique") for each in visible.all()} == {"attention_at"}


def test_everything_can_be_reached_by_keyboard(opened):
    page, _, _ = opened
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.tagName.toLowerCase()"))
    assert {"a", "text", "label", "technique", "error", "button", "summary", "div"} <= reached


@pytest.mark.parametrize("opened", [{"java_script_enabled": False}], indirect=True)
def test_without_script_everything_but_the_filter_is_there(opened):
    page, _, _ = opened
    assert not page.is_visible("#filter") and page.locator("section.sentence:visible").count() == 3
    assert page.is_visible("#record") and page.locator("table:visible").count() >= 3
