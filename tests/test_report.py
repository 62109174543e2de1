"""The page report.html: what is on it, as HTML. How it behaves is in tests/browser."""

import base64
import io
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from speechbrain_cffma import audio
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation import figures, page
from speechbrain_cffma.evaluation.report import write_report
from speechbrain_cffma.evaluation.scores import scoring_settings
from speechbrain_cffma.evaluation.statistics import summarize_systems

pytestmark = pytest.mark.slow

SETTINGS = scoring_settings(["pesq", "wss"])
#: ID, snr, noise, PESQ of noisy, PESQ of new
FILES = [
    ("a", 0.0, "wind", 1.0, 1.5),
    ("b", 0.0, "rain", 1.5, 2.5),
    ("c", 10.0, "wind", 2.0, 2.0),
    ("d", 10.0, "rain", 2.5, None),
]


@pytest.fixture
def rows(tmp_path, speech):
    """Of 4 files of two systems; `new` has no score for the last."""
    rng = np.random.default_rng(0)
    clean = speech.numpy()
    rows = []
    for system in ("noisy", "new"):
        for name, snr, noise, *scores in FILES:
            paths = {
                "path": tmp_path / system / f"{name}.wav",
                "clean": tmp_path / "clean" / f"{name}.wav",
            }
            audio.write(paths["clean"], clean)
            audio.write(paths["path"], clean + 0.01 * rng.standard_normal(len(clean)))
            pesq = scores[system == "new"]
            pair = {"ID": name, "system": system, "snr": snr, "noise": noise, **paths}
            failed = "" if pesq else "the <signal> is silent"
            rows.append(
                {**pair, "pesq": pesq, "wss": pesq and 9 - pesq, "failed": failed}
            )
    return rows


def render(rows, settings=SETTINGS):
    return page.render(rows, summarize_systems(rows, settings["metrics"]), settings)


def test_a_report_that_can_t_be_written_is_not_finished(rows, tmp_path):
    """A sweep takes a run that has a summary.json for finished."""
    (tmp_path / "report" / "report.html").mkdir(parents=True)
    with pytest.raises(InputError, match="report.html can't be written"):
        write_report(tmp_path / "report", rows, SETTINGS)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"scores.csv", "summary.md", "report.html"}


class Collector(HTMLParser):
    """The tags with their attributes, and whether each is closed in order."""

    VOID = {"meta", "link", "input", "img", "path", "use", "rect", "image", "br"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


class TestPage:
    def test_is_well_formed(self, rows):
        collected = Collector(render(rows))
        assert collected.open == []

    def test_has_its_style_and_scripts_in_it(self, rows):
        html = render(rows)
        for name in ("page.css", "page.js", "players.js"):
            assert (
                files("speechbrain_cffma.evaluation")
                .joinpath(name)
                .read_text(encoding="utf-8")
                .strip()
                in html
            )

    def test_needs_no_other_file(self, rows):
        tags = Collector(render(rows)).tags
        links = [
            value
            for tag, attributes in tags
            for key, value in attributes.items()
            if key in ("src", "href", "xlink:href")
        ]
        assert len(links) > 10
        # What begins with # is a part of the same figure.
        assert all(link.startswith(("data:", "#")) for link in links)

    def test_has_no_name_twice(self, rows):
        names = [a["id"] for _, a in Collector(render(rows)).tags if "id" in a]
        own = [name for name in names if not re.fullmatch("[mp][0-9a-f]{10}", name)]
        assert len(own) == len(set(own)) > 3

    def test_is_the_same_each_time(self, rows):
        assert render(rows) == render(rows)

    def test_shows_means_with_intervals(self, rows):
        summary = summarize_systems(rows, ["pesq"])
        mean = summary["overall"]["new"]["scores"]["pesq"]
        cell = (
            f">{mean['mean']:.2f}<small>{mean['low']:.2f} … {mean['high']:.2f}</small>"
        )
        assert cell in render(rows)

    def test_counts_and_explains_what_failed(self, rows):
        html = render(rows)
        assert "new: 1 file failed (d): the &lt;signal&gt; is silent" in html
        assert "<signal>" not in html

    def test_shows_curves_where_there_are_several_snrs(self, rows):
        n_figures = render(rows).count("<figure>")
        for row in rows:
            row["snr"] = 5.0
        assert n_figures - render(rows).count("<figure>") == len(SETTINGS["metrics"])

    def test_says_how_it_was_scored(self, rows):
        assert "with the sample scale int16" in render(rows)

    def test_names_a_file_that_has_gone(self, rows):
        (gone,) = [r for r in rows if r["system"] == "noisy" and r["ID"] == "a"]
        gone["path"].unlink()
        html = render(rows)
        assert f"{gone['path']} can" in html

    def test_of_nothing_but_failures(self, rows):
        rows = [{**row, "pesq": None, "wss": None, "failed": "silent"} for row in rows]
        html = render(rows)
        assert "No file has a score." in html
        assert "<audio" not in html

    def test_turns_all_signals_down_alike(self, rows, speech):
        for row in rows:
            if row["system"] == "noisy":
                audio.write(row["path"], 3 * speech.numpy() / speech.abs().max().item())
        assert "attenuated equally" in render(rows)

    def test_shows_the_beginning_of_a_long_file(self, rows, speech):
        for row in rows:
            for key in ("path", "clean"):
                audio.write(row[key], np.tile(speech.numpy(), 8))
        assert "first 20 s" in render(rows)


class TestChoice:
    def test_is_the_best_median_and_worst_of_each_system(self, rows):
        # new: a 1.5, c 2.0, b 2.5; d has no score.
        assert page.choose(rows, "pesq") == {
            "d": [("best", "noisy")],
            "b": [("median", "noisy"), ("best", "new")],
            "a": [("worst", "noisy"), ("worst", "new")],
            "c": [("median", "new")],
        }

    def test_follows_the_direction_of_the_metric(self, rows):
        assert page.choose(rows, "wss") == page.choose(rows, "pesq")

    def test_names_a_single_file_once(self, rows):
        assert page.choose(rows[:1], "pesq") == {"a": [("best", "noisy")]}


def pixels(uri):
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)), dtype=float)


class TestFigures:
    def test_spectrograms_share_a_scale(self, speech):
        loud = speech.numpy()
        images = [*figures.spectra([loud, 0.01 * loud], 16000)]
        images += [figures.spectra([x], 16000)[0] for x in (loud, 0.01 * loud)]
        loudest, quiet, alone, quiet_alone = map(pixels, images)
        assert np.abs(loudest - alone).mean() < 1
        assert np.abs(quiet_alone - alone).mean() < 1
        assert loudest.mean() > 2 * quiet.mean()

    @pytest.mark.parametrize("n_samples", [0, 1, 400])
    def test_a_short_or_silent_signal_has_a_spectrogram(self, n_samples):
        (image,) = figures.spectra([np.zeros(n_samples, np.float32)], 16000)
        assert image.startswith("data:image/webp;base64,")

    def test_charts_take_the_colour_of_the_page(self):
        svg = figures.distributions({"noisy": [1.0, 2.0, 4.0]})
        assert "currentColor" in svg
        assert figures._TEXT not in svg

    def test_names_of_systems_are_text(self):
        svg = figures.distributions({"a <b> & c": [1.0, 2.0], "x" * 40: [1.0]})
        assert "a &lt;b&gt; &amp; c" in svg
        assert "x" * 16 not in svg
