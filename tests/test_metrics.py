"""Scores: known values, and failures that are never counted as 0."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.paths import ROOT
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.evaluation import tables
from speechbrain_cffma.evaluation.scores import scoring_settings
from speechbrain_cffma.evaluation.statistics import summarize_systems
from speechbrain_cffma.metric_table import TABLE, Metric
from speechbrain_cffma.metrics import (
    BASIC,
    DNSMOS,
    LOWER_IS_BETTER,
    METRICS,
    MetricError,
    available_metrics,
    dnsmos,
    estoi,
    intrusive,
    mean_scores,
    nonintrusive,
    pesq,
    score,
    score_all,
    score_each,
    si_sdr,
    srmr,
    stoi,
)
from speechbrain_cffma.metrics.scoring import as_given

#: Those that compare with the clean signal.
ALL = [name for name, row in TABLE.items() if row.needs_clean]
LENGTH_0_2_S = 3200
THREADS = Path("/proc/self/task")


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


@pytest.mark.parametrize(
    ("sample_rate", "mode", "other"),
    [(16000, None, "wb"), (16000, "nb", "nb"), (8000, None, "nb"), (8000, "nb", "nb")],
)
def test_pesq_is_as_wide_as_the_sample_rate_allows(
    clean, noisy, sample_rate, mode, other
):
    import pesq as pesq_package

    pair = [samples[:: 16000 // sample_rate] for samples in (clean, noisy(5))]
    expected = pesq_package.pesq(sample_rate, *pair, other)
    assert pesq(*pair, sample_rate, mode) == expected


class TestPESQIsRefused:
    def test_for_wide_band_at_8_khz(self, clean):
        with pytest.raises(MetricError, match="wide-band is not defined at 8000 Hz"):
            pesq(clean, clean, 8000, "wb")

    @pytest.mark.parametrize("sample_rate", [22050, 48000])
    def test_at_other_sample_rates(self, clean, sample_rate):
        with pytest.raises(MetricError, match=f"not defined at {sample_rate} Hz"):
            pesq(clean, clean, sample_rate)

    def test_for_other_modes(self, clean):
        with pytest.raises(ValueError, match="not 'fullband'"):
            pesq(clean, clean, mode="fullband")


class TestLongPESQ:
    """`pesq` ends its process where speech has more than 50 stretches between pauses."""

    @pytest.fixture
    def bursts(self, clean):
        """28 s: 0.25 s of speech and 0.25 s of pause in turn."""
        speech = np.resize(clean[8000:40000], (56, 4000))
        return np.pad(speech, ((0, 0), (0, 4000))).ravel()

    def test_parts_are_short_and_together_the_whole(self, bursts):
        parts = intrusive._parts(bursts, 16000)
        assert len(parts) == 2
        assert np.array_equal(np.concatenate([bursts[p] for p in parts]), bursts)
        assert all(len(bursts[p]) <= 19 * 16000 for p in parts)

    def test_cuts_lie_in_pauses(self, bursts):
        _, second = intrusive._parts(bursts, 16000)
        assert not bursts[second.start - 1000 : second.start + 1000].any()

    def test_it_is_the_mean_over_the_parts(self, bursts):
        rng = np.random.default_rng(0)
        noisy = bursts + 0.01 * rng.standard_normal(len(bursts))
        parts = intrusive._parts(bursts, 16000)
        scores = [pesq(bursts[p], noisy[p]) for p in parts]
        lengths = [len(bursts[p]) for p in parts]
        expected = np.average(scores, weights=lengths)
        assert pesq(bursts, noisy) == pytest.approx(expected, abs=1e-6)

    def test_a_part_without_speech_is_left_out(self, bursts):
        padded = np.append(bursts, np.zeros(40 * 16000))
        assert pesq(padded, padded) == pytest.approx(4.64, abs=0.01)

    def test_speech_with_few_pauses_is_scored_as_a_whole(self, clean):
        assert len(intrusive._parts(np.tile(clean, 7), 16000)) == 1


class TestESTOI:
    def test_is_the_extended_stoi(self, clean, noisy):
        import pystoi

        expected = pystoi.stoi(clean, noisy(0), 16000, extended=True)
        assert estoi(clean, noisy(0)) == pytest.approx(expected, abs=1e-9)
        assert estoi(clean, noisy(0)) < stoi(clean, noisy(0))

    def test_is_the_same_each_time(self, clean, noisy):
        assert estoi(clean, noisy(0)) == estoi(clean, noisy(0))

    def test_leaves_the_random_numbers_of_a_training_run(self, clean, noisy):
        np.random.seed(7)
        expected = np.random.rand()
        np.random.seed(7)
        estoi(clean, noisy(0))
        assert np.random.rand() == expected


@pytest.mark.parametrize("name", ALL)
def test_scores_worsen_with_the_signal_to_noise_ratio(clean, noisy, name):
    scores = [METRICS[name](clean, noisy(snr)) for snr in (20, 10, 0)]
    assert sorted(scores, reverse=name not in LOWER_IS_BETTER) == scores
    assert scores[0] != scores[1]


@pytest.mark.parametrize("name", ALL)
def test_integers_are_samples_of_their_full_scale(clean, noisy, name):
    integers = [
        (samples.astype(np.float64).clip(-0.99, 0.99) * 32768).round().astype(np.int16)
        for samples in (clean, noisy(5))
    ]
    floats = [samples / 32768 for samples in integers]
    assert METRICS[name](*integers) == METRICS[name](*floats)


@pytest.mark.parametrize("name", ALL)
def test_a_frame_more_or_less_is_cut_off(clean, noisy, name):
    enhanced = noisy(5)
    expected = METRICS[name](clean[:-480], enhanced[:-480])
    assert METRICS[name](clean, enhanced[:-480]) == expected
    assert METRICS[name](clean[:-480], enhanced) == expected


def test_the_clean_signal_is_the_reference(clean):
    import pesq as pesq_package
    import pystoi

    enhanced = clean * np.linspace(0, 1, len(clean), dtype=np.float32) ** 4
    assert pesq(clean, enhanced) == pesq_package.pesq(16000, clean, enhanced, "wb")
    assert stoi(clean, enhanced) == pystoi.stoi(clean, enhanced, 16000)
    assert pesq(clean, enhanced) != pesq(enhanced, clean)
    assert stoi(clean, enhanced) != stoi(enhanced, clean)


@pytest.mark.usefixtures("speechmos")
class TestDNSMOS:
    def test_is_what_the_package_gives(self, noisy):
        from speechmos import dnsmos as package

        ratings = package.run(noisy(5), 16000)
        expected = {name: ratings[key] for name, key in DNSMOS.items()}
        assert dnsmos(noisy(5)) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.skipif(not THREADS.exists(), reason="lists threads as Linux does")
    def test_starts_no_threads(self, clean):
        nonintrusive._dnsmos_networks.cache_clear()
        n_threads = len(list(THREADS.iterdir()))
        dnsmos(clean)
        assert len(list(THREADS.iterdir())) == n_threads

    def test_prefers_less_noise(self, clean, noisy):
        better, worse = dnsmos(noisy(20)), dnsmos(noisy(0))
        assert all(better[name] > worse[name] for name in DNSMOS)

    def test_takes_what_exceeds_full_scale(self, clean):
        assert dnsmos(clean * 3 / np.abs(clean).max())["dnsmos_ovrl"] > 1

    def test_does_not_ask_for_the_clean_signal(self, clean):
        row = score(np.zeros(10), clean, ["dnsmos_sig", "dnsmos_bak"])
        assert row["dnsmos_sig"] > 1
        assert row["failed"] == ""

    def test_fails_once_for_all_four(self, clean):
        row = score(clean, np.zeros(16000), list(DNSMOS))
        expected = {**dict.fromkeys(DNSMOS), "failed": "DNSMOS: the signal is silent"}
        assert row == expected

    def test_is_not_defined_at_8_khz(self, clean):
        with pytest.raises(MetricError, match="not defined at 8000 Hz"):
            dnsmos(clean, 8000)


@pytest.mark.usefixtures("torchmetrics")
class TestSRMR:
    @pytest.fixture
    def second(self, clean):
        return clean[16000:32000]

    def test_is_what_the_package_gives(self, second):
        from torchmetrics.functional.audio.srmr import (
            speech_reverberation_modulation_energy_ratio as package,
        )

        expected = package(torch.from_numpy(second).double(), 16000).item()
        assert srmr(second) == expected

    def test_prefers_less_reverberation(self, second):
        rng = np.random.default_rng(0)
        room = rng.normal(size=8000) * np.exp(-np.arange(8000) / 2000)
        reverberant = np.convolve(second, room)[:16000]
        assert srmr(second) > 2 * srmr(reverberant / np.abs(reverberant).max())

    def test_a_long_signal_is_scored_in_parts_but_for_its_pauses(
        self, second, monkeypatch
    ):
        monkeypatch.setattr(nonintrusive, "SRMR_PART", 8000)
        halves = second[:8000], second[8000:]
        padded = np.concatenate([*halves, np.zeros(8000)])
        assert srmr(padded) == pytest.approx(np.mean([srmr(half) for half in halves]))

    def test_does_not_ask_for_the_clean_signal(self, second):
        assert score(np.zeros(10), second, ["srmr"])["srmr"] == srmr(second)

    def test_is_not_defined_below_0_3_s(self, second):
        with pytest.raises(MetricError, match=r"shorter than 0\.3 s"):
            srmr(second[:4799])


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
        with pytest.raises(MetricError, match="equal up to a factor"):
            si_sdr(self.CLEAN, 2 * self.CLEAN)

    def test_is_not_defined_for_nothing_but_distortion(self):
        with pytest.raises(MetricError, match="orthogonal"):
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

    @pytest.mark.parametrize("name", ALL)
    def test_lengths_that_differ_by_more_than_a_frame_fail(self, clean, noisy, name):
        row = score(clean, noisy(5)[:-481], [name])
        assert row[name] is None
        assert "the lengths differ by 481 samples, more than a frame" in row["failed"]

    @pytest.mark.parametrize("name", ALL)
    def test_two_channels_fail(self, clean, name):
        row = score(clean, np.stack([clean, clean]), [name])
        assert row[name] is None
        assert "the signal has the shape (2, 48000), not [S]" in row["failed"]

    @pytest.mark.parametrize("name", ALL)
    def test_an_empty_signal_fails(self, name):
        row = score(np.zeros(0), np.zeros(0), [name])
        assert row[name] is None
        assert "silent" in row["failed"]

    @pytest.mark.parametrize("name", ["ssnr", "llr", "wss"])
    @pytest.mark.parametrize(("sample_rate", "shortest"), [(16000, 600), (8000, 300)])
    def test_less_than_37_5_ms_fail(self, clean, noisy, name, sample_rate, shortest):
        pair = clean[16000:][:shortest], noisy(5)[16000:][:shortest]
        assert score(*pair, [name], sample_rate)["failed"] == ""
        row = score(pair[0][1:], pair[1][1:], [name], sample_rate)
        assert row[name] is None
        assert f"{shortest - 1} samples are too short" in row["failed"]

    @pytest.mark.parametrize("name", ["ssnr", "llr", "wss", "csig"])
    def test_floats_of_16_bit_samples_fail(self, clean, name):
        row = score(clean, 32768 * clean, [name])
        assert row[name] is None
        assert "divide 16-bit samples by 32768" in row["failed"]

    @pytest.mark.parametrize("name", ["csig", "cbak", "covl"])
    def test_ratings_fail_with_pesq_but_their_parts_stay(self, clean, noisy, name):
        pair = clean[16000:][:LENGTH_0_2_S], noisy(5)[16000:][:LENGTH_0_2_S]
        row = score(*pair, [name, "pesq", "ssnr", "llr", "wss"])
        assert row[name] is row["pesq"] is None
        assert None not in (row["ssnr"], row["llr"], row["wss"])
        assert row["failed"].count("PESQ") == 1

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("pesq", "second"), ("stoi", "too little"), ("estoi", "too little")],
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


def test_a_process_of_its_own_scores_where_none_is_asked_for(clean, noisy):
    """A metric that dies must not take the training with it."""
    pair = clean, noisy(5)
    (scored,) = score_each(as_given, [pair], ["si_sdr"], [3.0], n_jobs=0)
    assert scored.row["si_sdr"] == pytest.approx(si_sdr(*pair))


def test_a_row_of_the_table_makes_a_metric(monkeypatch, clean, noisy):
    row = Metric("intrusive.si_sdr", "MINE", digits=0, lower_is_better=True)
    monkeypatch.setitem(TABLE, "mine", row)
    assert score(clean, noisy(5), ["mine"])["mine"] == si_sdr(clean, noisy(5))
    assert scoring_settings(["mine"])["metrics"] == ["mine"]
    rows = [
        {"ID": "a", "system": "new", "snr": None, "noise": "", "failed": "", "mine": 7}
    ]
    table = tables.text(summarize_systems(rows, ["mine"]), ["mine"])
    assert re.search(r"^MINE ↓ +7$", table, re.MULTILINE)


def test_the_documentation_names_every_metric():
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", text)) >= set(TABLE)


def test_scoring_leaves_its_inputs(clean, noisy):
    pair = clean, noisy(5)
    copies = [samples.copy() for samples in pair]
    score(*pair, ALL)
    np.testing.assert_array_equal(pair, copies)


class TestAvailableMetrics:
    def test_with_all_packages(self):
        assert available_metrics() == list(BASIC) == ["pesq", "stoi", "si_sdr"]
        assert available_metrics(ALL) == ALL

    @pytest.mark.parametrize(
        ("package", "names"),
        [
            ("pesq", {"pesq", "pesq_nb", "csig", "cbak", "covl"}),
            ("pystoi", {"stoi", "estoi"}),
        ],
    )
    def test_without_a_package_its_metrics_are_left_out(
        self, monkeypatch, package, names
    ):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda wanted: None if wanted == package else find_spec(wanted),
        )
        assert set(available_metrics(ALL)) == set(ALL) - names
