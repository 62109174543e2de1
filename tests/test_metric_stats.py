"""The metrics as statistics of SpeechBrain's recipes."""

import io
import math

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.metric_stats import MetricStats

from speechbrain_cffma.metrics import METRICS, MetricError
from speechbrain_cffma.metrics.stats import EnhancementStats

YAML = """
csig_stats: !name:speechbrain_cffma.metrics.stats.EnhancementStats
    metric: csig
    scale: unit
stoi_stats: !new:speechbrain_cffma.metrics.stats.EnhancementStats
    metric: stoi
"""


@pytest.fixture
def clean(speech):
    return torch.stack([speech, speech.roll(100), speech.flip(0)])


@pytest.fixture
def noisy(clean):
    level = torch.tensor([[0.01], [0.1], [0.03]])
    return clean + level * clean.std() * torch.randn_like(clean)


IDS = ["a", "b", "c"]


@pytest.mark.parametrize("name", ["stoi", "si_sdr", "wss"])
def test_the_summary_is_over_the_utterances(clean, noisy, name):
    stats = EnhancementStats(name)
    stats.append(IDS[:2], noisy[:2], clean[:2])
    stats.append(ids=IDS[2:], predict=noisy[2:], target=clean[2:])
    scores = [
        METRICS[name](*pair) for pair in zip(clean.numpy(), noisy.numpy(), strict=True)
    ]
    assert stats.summarize() == {
        "average": pytest.approx(np.mean(scores)),
        "min_score": pytest.approx(min(scores)),
        "min_id": IDS[np.argmin(scores)],
        "max_score": pytest.approx(max(scores)),
        "max_id": IDS[np.argmax(scores)],
        "n_scored": 3,
        "n_failed": 0,
        "failed": [],
    }
    assert stats.summarize("average") == pytest.approx(np.mean(scores))


def test_it_is_a_statistic_of_speechbrain(clean, noisy):
    ours = EnhancementStats("si_sdr")
    theirs = MetricStats(lambda p, t: METRICS["si_sdr"](t.numpy(), p.numpy()), 1, False)
    assert isinstance(ours, MetricStats)
    lengths = torch.tensor([1.0, 0.5, 0.75])
    for stats in (ours, theirs):
        stats.append(IDS, predict=noisy, target=clean, lengths=lengths)
    theirs = theirs.summarize()
    assert {key: ours.summarize(key) for key in theirs} == pytest.approx(theirs)


def test_padding_is_not_scored(clean, noisy):
    stats = EnhancementStats("si_sdr")
    noisy[0, 24000:] = torch.nan
    stats.append(["a"], noisy[:1], clean[:1], lengths=torch.tensor([0.5]))
    expected = METRICS["si_sdr"](clean[0, :24000].numpy(), noisy[0, :24000].numpy())
    assert stats.scores == [expected]


def test_utterances_may_come_as_a_list(clean, noisy):
    stats = EnhancementStats("si_sdr")
    lengths = 20000, 30000, 40000
    pairs = [
        [wav[:length] for wav, length in zip(wavs, lengths, strict=True)]
        for wavs in (noisy, clean)
    ]
    stats.append(IDS, *pairs)
    assert stats.summarize("n_scored") == 3


def test_the_names_in_a_yaml(clean, noisy):
    hparams = load_hyperpyyaml(YAML)
    stats = hparams["csig_stats"]()
    stats.append(["a"], noisy[:1], clean[:1])
    expected = METRICS["csig"](clean[0].numpy(), noisy[0].numpy(), scale="unit")
    assert stats.summarize("average") == expected
    assert hparams["csig_stats"]().scores == []
    assert hparams["stoi_stats"].scores == []


def test_other_sample_rates(clean, noisy):
    stats = EnhancementStats("pesq", sample_rate=8000)
    stats.append(["a"], noisy[:1, ::2], clean[:1, ::2])
    pair = clean[0, ::2].numpy(), noisy[0, ::2].numpy()
    assert stats.scores == [METRICS["pesq_nb"](*pair, 8000)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_gradients(clean, noisy, dtype):
    stats = EnhancementStats("si_sdr")
    stats.append(IDS, noisy.to(dtype).requires_grad_(), clean.to(dtype))
    assert stats.summarize("n_scored") == 3


class TestFailures:
    @pytest.fixture
    def stats(self, clean, noisy):
        """Of a scored utterance, a silent one and one with NaN."""
        noisy[1] = 0
        noisy[2, 100] = torch.nan
        stats = EnhancementStats("stoi")
        stats.append(IDS, noisy, clean)
        return stats

    def test_are_counted_with_their_reason(self, stats):
        summary = stats.summarize()
        assert (summary["n_scored"], summary["n_failed"]) == (1, 2)
        assert summary["failed"] == [
            ("b", "STOI: the signal is silent"),
            ("c", "STOI: the signal holds NaN or Inf"),
        ]

    def test_are_left_out_of_the_scores(self, stats, clean, noisy):
        expected = METRICS["stoi"](clean[0].numpy(), noisy[0].numpy())
        for field in ("average", "min_score", "max_score"):
            assert stats.summarize(field) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("lengths", "reason"),
        [((3200, 3200), "too little speech"), ((3200, 8000), "the lengths differ")],
    )
    def test_of_length(self, clean, noisy, lengths, reason):
        pair = [
            wavs[:1, 16000 : 16000 + length]
            for wavs, length in zip((noisy, clean), lengths, strict=True)
        ]
        stats = EnhancementStats("stoi")
        stats.append(["a"], *pair)
        [(utterance, message)] = stats.summarize("failed")
        assert utterance == "a"
        assert reason in message

    def test_of_all_give_nan_and_not_0(self, clean):
        stats = EnhancementStats("stoi")
        for _ in range(2):
            summary = stats.summarize()
            for field in ("average", "min_score", "max_score"):
                assert math.isnan(summary[field])
            assert summary["min_id"] is summary["max_id"] is None
            stats.append(["a"], 0 * clean[:1], clean[:1])
        assert stats.summarize("n_failed") == 2

    def test_of_a_metric_of_ones_own(self, clean, noisy):
        def metric(clean, enhanced, sample_rate):
            if clean[0] < 0:
                raise MetricError("begins below 0")
            return math.nan if clean[0] > 0 else 1.0

        clean[:, 0] = torch.tensor([-1.0, 1.0, 0.0])
        stats = EnhancementStats(metric)
        stats.append(IDS, noisy, clean)
        assert stats.scores == [1.0]
        assert stats.failed == [("a", "begins below 0"), ("b", "the score is nan")]

    def test_that_are_faults_of_the_code_are_raised(self, clean, noisy):
        stats = EnhancementStats(lambda clean, enhanced, sample_rate: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stats.append(IDS, noisy, clean)

    def test_are_written_with_the_scores(self, stats, capsys):
        file = io.StringIO()
        stats.write_stats(file, verbose=True)
        assert file.getvalue() == capsys.readouterr().out
        assert "Scored: 1, failed: 2" in file.getvalue()
        assert "b: STOI: the signal is silent\n" in file.getvalue()

    def test_are_forgotten_by_clear(self, stats):
        stats.clear()
        assert (stats.scores, stats.ids, stats.failed) == ([], [], [])


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="no metric 'mos': choose one of pesq,"):
        EnhancementStats("mos")


def test_ids_and_signals_that_do_not_match_are_refused(clean, noisy):
    stats = EnhancementStats("si_sdr")
    with pytest.raises(ValueError, match="argument 2 is longer"):
        stats.append(IDS[:2], noisy, clean)
    assert stats.scores == []
