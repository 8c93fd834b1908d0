"""Figures that the reader moves: what a chapter puts out, and what a browser makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from assocmem.book.interactive import Axis, Frame, Panel, interactive
from tests.book.browser import PICTURE, script, with_figure
from tests.book.chapter import CHAPTERS, Chapter

HEAVY = 60_000  # bytes of one figure's frames, at most

X = Axis("keys N", (1, 100), [(1, "1"), (10, "10"), (100, "100")], log=True)
Y = Axis("weight < 1", (0, 2), [(0, "0"), (1, "1")])
PANELS = [
    Panel("bars", "two bars", [1, 10], X, Y),
    Panel("line", "a line", [1, 10, 100], X, Y, level=0.5),
]
FRAMES = [
    Frame("τ = 1", "Low: 0.5.", [[0.5, 1.0], [0.0, 0.5, 1.0]]),
    Frame("τ = 2", "High: 2.", [[2.0, 1.5], [2.0, 2.0, 2.0]]),
    Frame("τ = 3", "Back: 1.", [[1.0, 1.0], [1.0, 1.0, 1.0]]),
]


def output(**changes) -> str:
    arguments = {"figure": "fig-x", "control": "Temperature", "panels": PANELS, "frames": FRAMES}
    return interactive(**(arguments | changes)).data


def data(html: str) -> dict:
    script = BeautifulSoup(html, "html.parser").select_one("div.interactive[hidden] script")
    assert script is not None
    assert script["type"] == "application/json"
    return json.loads(script.text)


# --- what a chapter puts out ---


def test_places_are_fractions_of_the_axis() -> None:
    found = data(output(start=1))
    assert found["control"] == "Temperature"
    assert found["start"] == 1
    bars, line = found["panels"]
    assert bars["at"] == [0.0, 0.5]
    assert line["at"] == [0.0, 0.5, 1.0]
    assert bars["axes"]["x"] == {"label": "keys N", "ticks": [[0, "1"], [0.5, "10"], [1, "100"]]}
    assert (bars["level"], line["level"]) == (None, 0.25)
    assert [frame["setting"] for frame in found["frames"]] == ["τ = 1", "τ = 2", "τ = 3"]
    assert found["frames"][0]["heights"] == [[0.25, 0.5], [0.0, 0.25, 0.5]]


def test_bars_stand_on_zero_where_the_axis_has_it() -> None:
    for limits, log, foot in (((-1, 3), False, 0.25), ((0, 2), False, 0.0), ((1, 9), True, 0.0)):
        panel = Panel("bars", "bars", [1, 10], X, Axis("height", limits, [], log=log))
        assert panel.as_json()["foot"] == foot


def test_text_cannot_end_the_script() -> None:
    html = output(control="</script><b>")
    assert data(html)["control"] == "</script><b>"
    assert html.count("</script>") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 3}, "start must be one of 3 frames, got 3"),
        ({"start": -1}, "start must be one of 3 frames, got -1"),
        ({"frames": []}, "start must be one of 0 frames, got 0"),
        (
            {"frames": [Frame("a", "b", [[1.0, 1.0], [1.0]])]},
            r"heights of 'a' must have sizes \[2, 3\], got \[2, 1\]",
        ),
        (
            {"frames": [Frame("a", "b", [[1.0, 2.5], [1.0, 1.0, 1.0]])]},
            "must lie on the axis 'weight < 1', got 2.5",
        ),
        (
            {"frames": [Frame("a", "b", [[1.0, math.nan], [1.0, 1.0, 1.0]])]},
            "must lie on the axis 'weight < 1', got nan",
        ),
        (
            {"panels": [Panel("pie", "t", [1, 10], X, Y)]},
            r"kind must be one of \['bars', 'line'\], got 'pie'",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        output(**changes)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_a_chapter_s_moving_figure_has_a_picture_to_fall_back_on(chapter: Chapter) -> None:
    names = [cell.metadata.mystnb.figure.name for cell in chapter.figures]
    players = chapter.interactives + chapter.workbenches
    found = [str(tag["data-for"]) for tag in players]
    assert set(found) <= set(names)
    assert len(found) == len(set(found))
    for tag in players:
        assert tag.has_attr("hidden")  # where no script runs, nothing but the picture is to be seen
        assert len(str(tag).encode()) < HEAVY


def test_the_book_has_a_figure_that_moves() -> None:
    assert any(chapter.interactives for chapter in CHAPTERS)


# --- what a browser makes of it ---

SCRIPTS = [script("interactive")]


def html(theme: str = "light", scripts: Sequence[str] = SCRIPTS) -> str:
    return with_figure(output(), scripts, theme)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_content(html())
    yield page
    page.close()


def bars(page: Page) -> list[float]:
    """Heights of the bars, in units of the axis."""
    tall = page.locator("#fig-x rect").evaluate_all(
        "bars => bars.map(bar => Number(bar.getAttribute('height')))"
    )
    return [height / 180 * 2 for height in tall]  # 180 units for an axis from 0 to 2


def test_the_player_takes_the_picture_s_place(page: Page) -> None:
    assert not page.locator("#fig-x img").is_visible()
    assert page.locator("#fig-x figcaption").is_visible()
    assert page.locator("#fig-x svg").count() == 2
    assert page.locator("#fig-x .says").inner_text() == "Low: 0.5."
    assert bars(page) == pytest.approx([0.5, 1.0])


def test_a_bar_below_zero_hangs_from_it(page: Page) -> None:
    signed = Panel("bars", "two bars", [1, 10], X, Axis("lead", (-2, 2), []))
    frames = [Frame("1", "One up, one down.", [[1.0, -2.0]])]
    page.set_content(with_figure(output(panels=[signed], frames=frames), SCRIPTS, "light"))
    places = page.locator("#fig-x rect").evaluate_all(
        "bars => bars.map(bar => [bar.getAttribute('y'), bar.getAttribute('height')].map(Number))"
    )
    assert places == [[71, 45], [116, 90]]  # 45 units are 1, and 0 lies at 116


def test_the_keyboard_moves_it(page: Page) -> None:
    page.keyboard.press("Tab")
    slider = page.get_by_role("slider", name="Temperature")
    assert slider.evaluate("slider => slider === document.activeElement")
    page.keyboard.press("ArrowRight")
    assert bars(page) == pytest.approx([2.0, 1.5])
    assert page.locator("#fig-x output").inner_text() == "τ = 2"
    assert page.locator("#fig-x .says").inner_text() == "High: 2."
    assert slider.get_attribute("aria-valuetext") == "τ = 2"
    page.keyboard.press("End")
    assert bars(page) == pytest.approx([1.0, 1.0])
    page.keyboard.press("Home")
    assert bars(page) == pytest.approx([0.5, 1.0])


def test_a_line_goes_through_its_points(page: Page) -> None:
    points = page.locator("#fig-x polyline").get_attribute("points")
    assert points is not None
    places = [tuple(map(float, pair.split(","))) for pair in points.split()]
    # An axis of 270 units from 58, and one of 180 units down to 206.
    expected = [(58, 206), (58 + 135, 206 - 45), (58 + 270, 206 - 90)]
    assert places == [pytest.approx(place) for place in expected]


def test_two_figures_do_not_disturb_each_other(page: Page) -> None:
    two = html().replace("<main>", "<main>" + FIGURE_Y, 1)
    page.set_content(two)
    page.locator("#fig-y").get_by_role("slider").press("End")
    assert page.locator("#fig-y .says").inner_text() == "Back: 1."
    assert page.locator("#fig-x .says").inner_text() == "Low: 0.5."
    ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    assert len(ids) == len(set(ids))


FIGURE_Y = f"""<figure id="fig-y"><img alt="Another" src="{PICTURE}">
<figcaption>Another</figcaption></figure>{output(figure="fig-y")}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible(page: Page, theme: str) -> None:
    page.set_content(html(theme=theme))
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [violation["id"] for violation in found] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_drawn_in_the_colours_of_the_page(page: Page, theme: str) -> None:
    page.set_content(html(theme=theme))
    fill = page.locator("#fig-x rect").first.evaluate("bar => getComputedStyle(bar).fill")
    text = page.locator("#fig-x text").first.evaluate("text => getComputedStyle(text).fill")
    colours = {
        "light": ("rgb(11, 92, 145)", "rgb(34, 34, 34)"),
        "dark": ("rgb(124, 192, 234)", "rgb(221, 221, 221)"),
    }
    assert (fill, text) == colours[theme]


def test_it_fits_on_a_telephone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_without_the_script_the_picture_stays(page: Page) -> None:
    page.set_content(html(scripts=[]))
    assert page.locator("#fig-x img").is_visible()
    assert page.locator(".player").count() == 0
    assert not page.locator("div.interactive").is_visible()


def test_an_output_without_its_figure_does_no_harm(page: Page) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_content(html().replace('id="fig-x"', 'id="fig-z"'))
    assert complaints == []
    assert page.locator("img").is_visible()
