"""Texts are escaped, numbers are aligned, and figures are closed."""

import base64

import matplotlib.pyplot as plt
import pandas as pd

from mixvi.report._page import Section, html, picture, table


def test_texts_are_escaped():
    frame = pd.DataFrame({"<name>": ["<script>alert(1)</script>"]})
    section = Section("a", "A & B", ["<b>"], table=table(frame), warnings=["<i>"])
    text = html("<title>", [("<1>", "<what>")], [section])
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert "A &amp; B" in text
    assert all(wrong not in text for wrong in ("<name>", "<what>", "<1>", "<i>"))


def test_columns_of_numbers_are_aligned_right():
    frame = pd.DataFrame({"n": [1, 2000], "x": [0.12345, float("nan")], "share": ["1.0%", "25.0%"], "name": ["0", "B"]})
    found = table(frame)
    assert found.columns == [("n", True), ("x", True), ("share", True), ("name", False)]
    assert found.rows == [["1", "0.123", "1.0%", "0"], ["2,000", "", "25.0%", "B"]]


def test_a_picture_is_inside_the_page():
    before = plt.get_fignums()
    _, ax = plt.subplots()
    found = picture(ax, "nothing")
    assert base64.b64decode(found.data.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert plt.get_fignums() == before
