"""Scores: known values, and failures that are never counted as 0."""

import importlib.util

import numpy as np
import pytest

from speechbrain_cffma import metrics
from speechbrain_cffma.metrics import (
    METRICS,
    MetricError,
    available_metrics,
    mean_scores,
    pesq,
    score,
    score_all,
    si_sdr,
    stoi,
)
from speechbrain_cffma.mixing import add_noise

ALL = list(METRICS)
LENGTH_0_2_S = 3200


@pytest.fixture
def clean(speech):
    return speech.numpy().copy()


@pytest.fixture
def noisy(clean):
    """`noisy(snr)`: the speech with white noise."""
    noise = np.random.default_rng(0).standard_normal(len(clean))
    return lambda snr: add_noise(clean, noise, snr)


def test_pesq_of_speech_with_itself_is_the_highest_score(clean):
    assert pesq(clean, clean) == pytest.approx(4.6439, abs=1e-4)


def test_stoi_of_speech_with_itself_is_1(clean):
    assert stoi(clean, clean) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_scores_fall_with_the_signal_to_noise_ratio(clean, noisy, name):
    scores = [METRICS[name](clean, noisy(snr)) for snr in (20, 10, 0)]
    assert scores[0] > scores[1] > scores[2]


def test_the_clean_signal_is_the_reference(clean):
    import pesq as pesq_package
    import pystoi

    enhanced = clean * np.linspace(0, 1, len(clean), dtype=np.float32) ** 4
    assert pesq(clean, enhanced) == pesq_package.pesq(16000, clean, enhanced, "wb")
    assert stoi(clean, enhanced) == pystoi.stoi(clean, enhanced, 16000)
    assert pesq(clean, enhanced) != pesq(enhanced, clean)
    assert stoi(clean, enhanced) != stoi(enhanced, clean)


class TestSISDR:
    CLEAN = np.array([1.0, 0.0, -1.0, 0.0])
    ORTHOGONAL = np.array([0.0, 1.0, 0.0, 1.0])

    @pytest.mark.parametrize("ratio", [-10.0, 0.0, 20.0, 60.0])
    def test_is_the_ratio_to_orthogonal_noise(self, ratio):
        noise = self.ORTHOGONAL * 10 ** (-ratio / 20)
        assert si_sdr(self.CLEAN, self.CLEAN + noise) == pytest.approx(ratio)

    @pytest.mark.parametrize("scale", [0.01, 7.0, -1.0])
    def test_does_not_depend_on_the_scale_of_either(self, clean, noisy, scale):
        enhanced = noisy(5)
        value = si_sdr(clean, enhanced)
        assert si_sdr(clean, scale * enhanced) == pytest.approx(value, abs=1e-4)
        assert si_sdr(scale * clean, enhanced) == pytest.approx(value, abs=1e-4)

    def test_counts_an_offset_as_distortion(self):
        assert si_sdr(self.CLEAN, self.CLEAN + 1) == pytest.approx(10 * np.log10(0.5))

    def test_is_not_defined_without_distortion(self):
        with pytest.raises(MetricError, match="no distortion"):
            si_sdr(self.CLEAN, 2 * self.CLEAN)

    def test_is_not_defined_for_nothing_but_distortion(self):
        with pytest.raises(MetricError, match="nothing but"):
            si_sdr(self.CLEAN, self.ORTHOGONAL)


class TestFailures:
    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize("level", [0.0, 1e-30, 0.9e-4])
    def test_silence_fails_with_a_reason(self, clean, name, level):
        silence = np.full_like(clean, level)
        for pair, which in (
            ((silence, clean), "the clean signal"),
            ((clean, silence), "the signal"),
        ):
            row = score(*pair, [name])
            assert row[name] is None
            assert f"{which} is silent" in row["failed"]

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_and_inf_fail_with_a_reason(self, clean, name, value):
        enhanced = clean.copy()
        enhanced[1000] = value
        row = score(clean, enhanced, [name])
        assert row[name] is None
        assert "NaN or Inf" in row["failed"]

    @pytest.mark.parametrize(
        ("name", "reason"), [("pesq", "second"), ("stoi", "too little")]
    )
    def test_a_fifth_of_a_second_fails_with_a_reason(self, clean, noisy, name, reason):
        row = score(clean[:LENGTH_0_2_S], noisy(5)[:LENGTH_0_2_S], [name])
        assert row[name] is None
        assert reason in row["failed"]

    def test_of_one_metric_leaves_the_others(self, clean, noisy):
        row = score(clean[:LENGTH_0_2_S], noisy(5)[:LENGTH_0_2_S], ALL)
        assert row["si_sdr"] is not None
        assert "PESQ" in row["failed"]
        assert "STOI" in row["failed"]
        assert "SI-SDR" not in row["failed"]

    def test_there_is_no_reason_without_failure(self, clean, noisy):
        assert score(clean, noisy(5), ALL)["failed"] == ""


class TestMeanScores:
    def test_is_over_the_scored_ones(self, clean, noisy):
        scored = [(clean, noisy(20)), (clean, noisy(0))]
        silent = (clean, 0 * clean)
        means = mean_scores(score_all([*scored, silent], ALL), ALL)
        for name in ALL:
            expected = np.mean([METRICS[name](*pair) for pair in scored])
            assert means[name] == pytest.approx(expected)

    def test_a_score_of_0_counts(self):
        assert mean_scores([{"stoi": 0.0}, {"stoi": 1.0}], ["stoi"]) == {"stoi": 0.5}

    def test_is_none_where_nothing_is_scored(self):
        assert mean_scores([{"pesq": None}], ["pesq"]) == {"pesq": None}


class TestScoreAll:
    def test_does_not_depend_on_the_processes(self, clean, noisy):
        pairs = [(clean, noisy(snr)) for snr in (0, 10, 5)]
        alone, together = (score_all(pairs, ALL, n_jobs=n_jobs) for n_jobs in (1, 2))
        for name in ALL:
            expected = [score(*pair, [name])[name] for pair in pairs]
            assert [row[name] for row in alone] == pytest.approx(expected)
            assert [row[name] for row in together] == pytest.approx(expected)


def test_scoring_leaves_its_inputs(clean, noisy):
    pair = clean, noisy(5)
    copies = [samples.copy() for samples in pair]
    score(*pair, ALL)
    np.testing.assert_array_equal(pair, copies)


class TestAvailableMetrics:
    def test_with_all_packages(self):
        assert available_metrics() == ALL

    @pytest.mark.parametrize(
        ("package", "name"), [("pesq", "pesq"), ("pystoi", "stoi")]
    )
    def test_without_a_package_its_metric_is_left_out(self, monkeypatch, package, name):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            metrics.importlib.util,
            "find_spec",
            lambda wanted: None if wanted == package else find_spec(wanted),
        )
        assert available_metrics() == [other for other in ALL if other != name]
