"""Bootstrap intervals against known ones, and summaries of systems."""

import json

import numpy as np
import pytest
from scipy import stats

from speechbrain_cffma.evaluation import statistics
from speechbrain_cffma.evaluation.statistics import bootstrap, summarize_systems


def rows_of(**scores):
    """Rows of systems from the PESQ of their files."""
    return [
        row(f"u{i}", system, value)
        for system, values in scores.items()
        for i, value in enumerate(values)
    ]


def row(name, system, pesq, snr=None, noise=""):
    failed = "" if pesq is not None else "PESQ: no utterances"
    conditions = {"snr": snr, "noise": noise}
    return {"ID": name, "system": system, "pesq": pesq, "failed": failed, **conditions}


def summary_of(**scores):
    return summarize_systems(rows_of(**scores), ["pesq"])["overall"]


class TestBootstrap:
    @pytest.fixture
    def sample(self):
        return np.random.default_rng(1).normal(2.5, 0.4, size=200)

    def test_a_normal_sample_has_about_the_interval_of_student(self, sample):
        (mean,), (low,), (high,) = bootstrap(sample[:, None])
        expected = stats.t.interval(
            0.95, len(sample) - 1, sample.mean(), stats.sem(sample)
        )
        assert mean == pytest.approx(sample.mean())
        tolerance = 0.05 * (expected[1] - expected[0])
        assert (low, high) == pytest.approx(expected, abs=tolerance)

    def test_a_skewed_sample_has_a_skewed_interval(self):
        sample = np.random.default_rng(0).exponential(size=(30, 1))
        mean, low, high = bootstrap(sample)
        assert high - mean > mean - low

    def test_about_95_percent_of_intervals_hold_the_true_mean(self):
        samples = np.random.default_rng(2).normal(size=(50, 1000))
        _, low, high = bootstrap(samples)
        assert 0.92 < ((low < 0) & (high > 0)).mean() < 0.96

    def test_the_same_scores_have_the_same_interval(self, sample):
        assert np.array_equal(bootstrap(sample[:, None]), bootstrap(sample[:, None]))

    def test_a_row_without_score_is_left_out_of_its_column_alone(self, sample):
        values = np.stack([sample, sample], axis=1)
        values[100:, 0] = np.nan
        mean, low, high = bootstrap(values)
        assert mean == pytest.approx([sample[:100].mean(), sample.mean()])
        ratio = (high[0] - low[0]) / (high[1] - low[1])
        assert ratio == pytest.approx(2**0.5, abs=0.15)

    def test_of_one_score_there_is_no_interval_and_of_none_no_mean(self):
        mean, low, high = bootstrap(np.array([[1.5, np.nan], [np.nan, np.nan]]))
        assert mean[0] == 1.5
        assert np.isnan(mean[1])
        assert np.isnan(low).all()
        assert np.isnan(high).all()

    def test_many_files_are_resampled_in_blocks(self, sample, monkeypatch):
        at_once = bootstrap(sample[:, None])
        monkeypatch.setattr(statistics, "BLOCK", 50_000)
        assert np.allclose(bootstrap(sample[:, None]), at_once, atol=0.005)


class TestDifferences:
    def test_of_identical_systems_they_are_0(self):
        scores = [1.1, 1.7, 2.9, 1.3]
        difference = summary_of(noisy=scores, same=scores)["same"]["difference"]
        assert difference["pesq"] == {"n": 4, "mean": 0, "low": 0, "high": 0}

    def test_they_are_paired_what_all_files_gain_has_no_spread(self):
        scores = np.array([1.0, 1.5, 3.5, 2.0])
        summary = summary_of(noisy=scores, new=scores + 0.5)["new"]
        assert summary["scores"]["pesq"]["high"] - summary["scores"]["pesq"]["low"] > 1
        assert summary["difference"]["pesq"] == pytest.approx(
            {"n": 4, "mean": 0.5, "low": 0.5, "high": 0.5}
        )

    def test_they_are_over_files_that_both_systems_have_a_score_of(self):
        summary = summary_of(noisy=[1.0, None, 3.0], new=[2.0, 9.0, None])
        assert summary["new"]["difference"]["pesq"] == {
            "n": 1,
            "mean": 1.0,
            "low": None,
            "high": None,
        }

    def test_are_to_the_first_system_which_has_none(self):
        summary = summarize_systems(rows_of(b=[1.0], a=[2.0]), ["pesq"])
        assert summary["reference"] == "b"
        assert "difference" not in summary["overall"]["b"]
        assert summary["overall"]["a"]["difference"]["pesq"]["mean"] == 1.0


class TestSummary:
    def test_failures_are_counted_and_never_scored(self):
        summary = summary_of(noisy=[1.0, 2.0, 3.0], new=[2.0, None, 4.0])
        assert (summary["new"]["n"], summary["new"]["failed"]) == (3, 1)
        assert summary["new"]["scores"]["pesq"]["n"] == 2
        assert summary["new"]["scores"]["pesq"]["mean"] == 3.0

    def test_a_system_that_failed_everywhere_has_no_mean(self):
        scores = summary_of(noisy=[1.0, 2.0], new=[None, None])["new"]["scores"]
        assert scores["pesq"] == {"n": 0, "mean": None, "low": None, "high": None}

    def test_groups_are_of_known_conditions_in_order(self):
        conditions = [(10.0, "wind"), (-5.0, "wind"), (2.5, ""), (None, "rain")]
        rows = [
            row(f"u{i}", system, i + gain, snr, noise)
            for system, gain in (("noisy", 1.0), ("new", 2.0))
            for i, (snr, noise) in enumerate(conditions)
        ]
        summary = summarize_systems(rows, ["pesq"])
        assert list(summary["snr"]) == ["-5", "2.5", "10"]
        assert list(summary["noise"]) == ["rain", "wind"]
        wind = summary["noise"]["wind"]
        assert wind["noisy"]["n"] == 2
        assert wind["noisy"]["scores"]["pesq"]["mean"] == 1.5
        assert wind["new"]["difference"]["pesq"]["mean"] == 1.0

    def test_is_plain_data(self):
        summary = summarize_systems(
            rows_of(noisy=[1.0, 2.0], new=[3.0, None]), ["pesq"]
        )
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
