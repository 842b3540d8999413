from __future__ import annotations

import re
import unicodedata
import warnings
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image
from samples import CHANGED, PAYLOADS, SLICES, empty, hostile, sample, watched

from nbmlops.records import Explanation, replace
from nbmlops.widgets.drift_picture import png
from nbmlops.widgets.drift_report import html, text
from nbmlops.widgets.wording import clean, explanation

TAGS = {
    *("style", "div", "p", "span", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th"),
    *("td", "svg", "g", "rect", "path", "line", "circle", "text"),
}
ATTRIBUTES = {
    *("class", "data-state", "data-verdict", "data-side", "role", "aria-level", "aria-label"),
    *("aria-hidden", "scope", "viewbox", "width", "height", "x", "y", "dx", "dy", "x1", "x2"),
    *("y1", "y2", "cx", "cy", "r", "d", "text-anchor", "preserveaspectratio"),
    *("data-level", "data-mark"),
    # For hosts that strip styles.
    *("fill", "fill-opacity", "stroke", "stroke-width", "stroke-linecap", "vector-effect"),
}


class Outline(HTMLParser):
    """The tags, attributes and text of a document; fails on what is not closed."""

    def __init__(self, document):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = set(), set(), [], []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def report():
    return sample()


def test_the_text_has_verdict_model_window_and_the_four_answers(report):
    lines = text(report).splitlines()
    assert lines[0] == "ALERT  cancer:3 (commit 1a2b3c4, endpoint cancer)"
    assert "200 rows, 2026-11-19 09:30 UTC to 2026-11-20 09:30 UTC" in lines[1]
    assert "400 rows" in lines[2]
    answers = [line.split()[:2] for line in lines[4:8]]
    assert answers == [
        ["no", "features"],
        ["yes", "predictions"],
        ["yes", "bounds"],
        ["unknown", "performance"],
    ]


def test_the_text_lists_drifted_columns_first_in_aligned_cells(report):
    lines = text(report).splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("  column"))
    assert lines[head + 1].startswith("  prediction")
    assert lines[head + 2].startswith("  feature 7")
    assert lines[head + 3].startswith("  clinic")
    place = lines[head].index("verdict")
    assert {line[place:].split()[0] for line in lines[head + 1 :]} == {"ok", "drift", "unknown"}
    assert "empty" in lines[-1]


def test_many_columns_are_cut_and_counted(report):
    many = replace(report, columns=report.columns * 3)
    assert text(many).splitlines()[-1] == f"  … and {3 * 32 + 1 - 40} more columns"
    many = replace(report, columns=report.columns * 7)
    assert html(many).endswith(f"… and {7 * 32 + 1 - 200} more columns</p></div>")


def test_the_html_shows_each_column_with_its_figures_and_a_picture(report):
    document = html(report)
    words = " ".join(Outline(document).words)
    for column in report.columns:
        assert column.name in words
    assert "no-actuals" in words
    assert document.count("<svg") == 32  # all but the empty one, and the prediction's
    assert "http" not in document
    assert "<script" not in document


def test_the_html_reads_without_styles_and_pictures(report):
    words = " ".join(Outline(html(report)).words)
    assert "✕ alert" in words
    assert "Do the inputs look like the training data?   ✕ no" in words.replace("\n", "")
    assert "█" in words


def test_drawings_have_colours_where_a_host_strips_styles():
    document = re.sub("<style>.*?</style>", "", html(watched()), flags=re.DOTALL)
    # What is in a group has the group's.
    shapes = re.findall(
        r"<(?:path|g data-|rect (?:class|data)|line class=.nbm-rule)[^>]*>", document
    )
    assert len(shapes) > 50
    assert [one for one in shapes if "fill=" not in one and "stroke=" not in one] == []


def test_html_from_hostile_text_has_no_tag_or_attribute_but_ours():
    outline = Outline(html(hostile()))
    assert outline.tags <= TAGS
    assert outline.attributes <= ATTRIBUTES
    words = " ".join(outline.words)
    for payload in PAYLOADS:
        assert clean(payload) in words


def test_text_from_hostile_text_has_no_control_characters():
    lines = text(hostile()).splitlines()
    categories = {unicodedata.category(character) for line in lines for character in line}
    assert not categories & {"Cc", "Cf", "Cs"}
    text(hostile()).encode("utf-8")


@pytest.mark.parametrize("make", [sample, watched, hostile, empty])
def test_the_picture_is_a_png_that_is_not_blank(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = Image.open(BytesIO(png(make())))
    assert picture.format == "PNG"
    assert picture.width == 1100
    assert len(picture.convert("RGB").getcolors(1_000_000)) > 20


def test_the_picture_leaves_matplotlib_s_state_alone(report):
    from matplotlib import _pylab_helpers

    png(report)
    assert _pylab_helpers.Gcf.get_num_fig_managers() == 0


def test_the_same_report_gives_the_same_bytes(report):
    assert (text(report), html(report), png(report)) == (text(report), html(report), png(report))


@pytest.mark.parametrize("make", [empty, hostile, watched])
def test_a_report_of_little_or_odd_content_has_every_form(make):
    report = make()
    assert text(report)
    Outline(html(report))


# --- why, how well, since when --------------------------------------------------------------------


@pytest.fixture(scope="module")
def day():
    return watched()


def told(report):
    return "".join(part.text for part in explanation(report))


def test_an_alert_is_explained_in_one_sentence(day):
    assert told(day) == (
        "Since 2026-11-19 21:30 UTC: feature 7 accounts for 62% of the change (multiplied by"
        " 1,000), clinic for 25% (new categories, since 2026-11-19 22:30 UTC), feature 12 for 8%"
        " (shifted), another feature for 5%. At that time: cancer:3 took the traffic from cancer:2"
        " (2026-11-19 21:26 UTC); the client intake/2.1 was seen for the first time. Answered by"
        " cancer:3 (commit 1a2b3c4)."
    )
    assert [part.text for part in explanation(day) if part.strong] == [
        "Since 2026-11-19 21:30 UTC",
        "feature 7",
        "clinic",
        "feature 12",
    ]


def test_an_explanation_says_what_it_knows_and_no_more(day):
    since = replace(day, explanation=None)
    assert told(since) == "Since 2026-11-19 21:30 UTC calls differ from the training data."
    little = replace(day, changed_since=None, explanation=Explanation(since=None, commit="1a2b3c4"))
    assert told(little) == "Calls differ from the training data. Answered by commit 1a2b3c4."
    assert told(replace(day, verdict="ok")) == ""
    assert told(replace(day, changed_since=None, explanation=None)) == ""


def test_the_text_has_causes_metrics_traffic_and_a_line_for_each_feature(day):
    lines = text(day).splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("  Since 2026"))
    assert max(len(line) for line in lines[begin : begin + 4]) <= 96
    assert "  accuracy  actuals    0.871  0.841 to 0.901      0.95      -0.079" in text(day)
    assert "  accuracy  estimate   0.889" in text(day)
    assert "  traffic  4,700 calls, 9,400 rows, 21 failed, p50 3.12 ms, p99 14.8 ms" in lines
    assert f"  over time, {SLICES} slices, 2026-11-19 09:30 to 2026-11-20 09:30 UTC" in lines
    feature = next(line for line in lines if line.startswith("  feature 7 "))
    assert feature.endswith(f"{'█' * 24}  drift in 24 of 48 slices")
    assert sum("drift in" in line or "no drift" in line for line in lines) == 15


def test_the_html_has_a_heat_map_charts_and_the_metrics(day):
    document = html(day)
    assert document.count('class="nbm-cells"') == 30
    assert document.count('class="nbm-plot"') == 6
    assert "… and 3 more features" in document
    words = " ".join(Outline(document).words)
    assert told(day).replace(" ", "") in words.replace(" ", "")
    assert "0.841 to 0.901" in words
    assert "estimated 0.889" in words


def test_the_heat_map_and_the_charts_read_without_styles_and_pictures(day):
    words = " ".join(Outline(html(day)).words)
    assert f"{'█' * 24} drift in 24 of 48 slices" in words
    assert "realised ▆▆" in words
    assert f"{CHANGED:%Y-%m-%d}" in words


def test_no_form_has_an_attribute_that_jupyterlab_takes_for_a_command():
    attributes = Outline(html(hostile())).attributes
    assert not any("commandlinker" in name for name in attributes)


def test_the_picture_of_a_history_is_higher_and_small_enough_for_a_notebook(day, report):
    pictures = [Image.open(BytesIO(png(each))) for each in (day, report)]
    assert pictures[0].height > pictures[1].height + 800
    assert len(png(day)) < 150_000
