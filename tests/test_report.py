"""The final table and figures of a training run."""

import csv
import json

import matplotlib.image
import numpy as np
import pytest

from speechbrain_cffma import plots
from speechbrain_cffma.report import (
    comparison_rows,
    summarize,
    table,
    write_report,
)

METRICS = ["pesq", "stoi"]
#: snr, noise, PESQ of noisy, PESQ of enhanced
UTTERANCES = [
    (0.0, "wind", 1.0, 2.0),
    (0.0, "rain", 1.5, 2.5),
    (10.0, "wind", 2.0, 3.0),
    (10.0, "rain", 2.5, 4.0),
]


def scores(pesq, stoi=0.5):
    return {"pesq": pesq, "stoi": stoi, "failed": "" if pesq else "PESQ: silent"}


def compare(utterances):
    manifest = [
        {"ID": f"u{i}", "snr": snr, "noise": noise}
        for i, (snr, noise, *_) in enumerate(utterances)
    ]
    return comparison_rows(
        manifest,
        [scores(before) for *_, before, _ in utterances],
        [scores(after, 0.75) for *_, after in utterances],
    )


@pytest.fixture
def summary():
    return summarize(compare(UTTERANCES), METRICS)


class TestComparisonRows:
    def test_a_row_joins_both_systems(self):
        assert compare(UTTERANCES)[1] == {
            "ID": "u1",
            "snr": 0.0,
            "noise": "rain",
            "noisy_pesq": 1.5,
            "enhanced_pesq": 2.5,
            "noisy_stoi": 0.5,
            "enhanced_stoi": 0.75,
            "failed": "",
        }

    @pytest.mark.parametrize(
        ("before", "after", "system"), [(None, 2.0, "noisy"), (1.0, None, "enhanced")]
    )
    def test_what_one_system_has_no_score_for_leaves_both(self, before, after, system):
        (row,) = compare([(0.0, "wind", before, after)])
        assert row["noisy_pesq"] is row["enhanced_pesq"] is None
        assert (row["noisy_stoi"], row["enhanced_stoi"]) == (0.5, 0.75)
        assert row["failed"] == f"{system}: PESQ: silent"


class TestSummarize:
    def test_overall(self, summary):
        assert summary["overall"] == {
            "n": 4,
            "failed": 0,
            "noisy": {"pesq": 1.75, "stoi": 0.5},
            "enhanced": {"pesq": 2.875, "stoi": 0.75},
        }

    def test_by_snr(self, summary):
        means = {
            snr: group["enhanced"]["pesq"] for snr, group in summary["snr"].items()
        }
        assert means == {"0.0": 2.25, "10.0": 3.5}

    def test_by_noise(self, summary):
        means = {
            kind: group["noisy"]["pesq"] for kind, group in summary["noise"].items()
        }
        assert means == {"rain": 2.0, "wind": 1.5}

    def test_an_utterance_without_score_leaves_both_means(self):
        rows = compare([*UTTERANCES, (0.0, "wind", 4.6, None)])
        overall = summarize(rows, METRICS)["overall"]
        assert (overall["n"], overall["failed"]) == (5, 1)
        assert overall["noisy"]["pesq"] == 1.75
        assert overall["enhanced"]["pesq"] == 2.875

    def test_without_known_snr_and_noise_there_are_no_groups(self):
        summary = summarize(compare([(None, "", 1.0, 2.0)]), METRICS)
        assert summary["snr"] == summary["noise"] == {}
        assert summary["overall"]["n"] == 1


class TestTable:
    def test_shows_noisy_beside_enhanced_by_snr_and_overall(self, summary):
        lines = [line.split() for line in table(summary, METRICS).splitlines()]
        assert lines == [
            ["PESQ", "STOI"],
            ["input", "SNR", "n", *["noisy", "enhanced"] * 2],
            ["0", "dB", "2", "1.25", "2.25", "0.500", "0.750"],
            ["10", "dB", "2", "2.25", "3.50", "0.500", "0.750"],
            ["all", "4", "1.75", "2.88", "0.500", "0.750"],
        ]

    def test_its_lines_are_of_equal_width(self, summary):
        assert len({len(line) for line in table(summary, METRICS).splitlines()}) == 1

    def test_counts_what_is_left_out(self):
        rows = compare([*UTTERANCES, (0.0, "wind", None, 2.0)])
        text = table(summarize(rows, METRICS), METRICS)
        assert text.splitlines()[-1].startswith("1 utterances without all scores")

    def test_shows_a_dash_where_nothing_is_scored(self):
        text = table(summarize(compare([(0.0, "wind", None, 2.0)]), METRICS), METRICS)
        assert "all 1 - - 0.500 0.750".split() in [
            line.split() for line in text.splitlines()
        ]


def test_a_report_is_a_row_an_utterance_and_the_summary(tmp_path, summary):
    rows = compare([*UTTERANCES, (0.0, "wind", 4.6, None)])
    write_report(tmp_path / "new", rows, summary)
    with open(tmp_path / "new" / "scores.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["ID"] for row in read] == ["u0", "u1", "u2", "u3", "u4"]
    assert [row["enhanced_pesq"] for row in read] == ["2.0", "2.5", "3.0", "4.0", ""]
    assert json.loads((tmp_path / "new" / "summary.json").read_text()) == summary


class TestPlots:
    @staticmethod
    def read(path):
        """The picture [height, width, RGB]."""
        return matplotlib.image.imread(path)[..., :3]

    def test_every_panel_of_an_utterance_shows_its_signal(self, tmp_path):
        one = np.abs(np.random.default_rng(0).normal(size=(40, 201)))
        other = one[::-1]
        signals = {  # noisy, enhanced, clean, mask
            "first": (one, one, one, one),
            "other noisy": (other, one, one, one),
            "other enhanced": (one, 0.1 * one, one, one),
            "other clean": (one, one, other, one),
            "other mask": (one, one, one, other),
        }
        pictures = {}
        for name, arguments in signals.items():
            path = tmp_path / "new" / f"{name}.png"
            plots.plot_enhancement(path, *arguments, title="an utterance")
            pictures[name] = self.read(path)
        first = pictures.pop("first")
        assert first.std() > 0.1
        for picture in pictures.values():
            assert np.abs(picture - first).mean() > 0.01

    def test_a_silent_utterance_can_be_drawn(self, tmp_path):
        silence = np.zeros((50, 201))
        plots.plot_enhancement(tmp_path / "a.png", *[silence] * 4)
        assert self.read(tmp_path / "a.png").std() > 0.05

    def test_layer_weights_show_the_weights(self, tmp_path):
        weights = np.full(13, 0.02)
        weights[4] = 0.76
        pictures = []
        for i, values in enumerate((weights, weights[::-1])):
            plots.plot_layer_weights(tmp_path / f"{i}.png", values, first_layer=0)
            pictures.append(self.read(tmp_path / f"{i}.png"))
        assert pictures[0].std() > 0.05
        assert np.abs(pictures[0] - pictures[1]).mean() > 0.01
