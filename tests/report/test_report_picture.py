"""A plot as a file of its own: well formed, with its colours, and nothing from outside."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tgeokd_ray.report import svg
from tgeokd_ray.report.markup import tag
from tgeokd_ray.report.picture import picture


def test_a_drawing_becomes_a_file() -> None:
    drawing = svg.intervals([svg.Row("a <b>", 0.5, (0.4, 0.6), 2)], name="n & m")
    text = picture(drawing)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["width"] == str(svg.WIDTH)
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None
    assert style.text is not None
    assert "--c2" in style.text
    assert "prefers-color-scheme: dark" in style.text
    assert text.count("http") == 1, "its namespace"
    assert [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")][-2] == "a <b>"
    assert text == picture(drawing)


def test_one_drawing_is_a_picture() -> None:
    drawing = svg.bars([svg.Row("a", 0.5, None, 1)], name="n")
    for wrong in (tag("p", "text"), tag("div", drawing), type(drawing)(drawing + drawing)):
        with pytest.raises(ValueError, match="one drawing"):
            picture(wrong)
