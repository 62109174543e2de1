"""Composite measures: published figures, a plain loop over frames, and edge cases."""

import os
from pathlib import Path

import composite_loop
import numpy as np
import pytest
import soundfile

from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.metrics import (
    METRICS,
    composite,
    composite_from_parts,
    llr,
    pesq,
    score,
    segmental_measures,
    ssnr,
    wss,
)

FULL_SCALE = {"int16": 32768, "unit": 1}

#: Pairs of VoiceBank-DEMAND, which the project does not hold: noisy/ and clean/.
PAIRS = Path(
    os.environ.get(
        "CFFMA_VBD_PAIRS",
        Path(__file__).parents[2] / "shared" / "corpus" / "vbd_pairs",
    )
)
COLUMNS = ["pesq", "csig", "cbak", "covl", "ssnr", "llr", "wss"]
#: The noisy files' scores at the 16-bit scale, equal to Loizou's MATLAB code.
REFERENCE = {
    "p287_001": [1.7623, 2.8228, 2.2622, 2.2278, 1.9587, 0.8735, 48.225],
    "p287_002": [1.3397, 2.6782, 2.0837, 1.9362, 2.6079, 0.7447, 50.713],
    "p287_003": [1.1676, 2.3005, 1.7192, 1.6380, -0.8395, 0.9296, 59.999],
    "p287_004": [1.1227, 1.9043, 1.4419, 1.4037, -4.2659, 1.2383, 65.713],
    "p287_005": [1.5964, 3.1385, 2.5812, 2.3362, 6.7356, 0.5911, 34.322],
    "p287_006": [1.4879, 2.9945, 2.3280, 2.2086, 3.5921, 0.6634, 34.784],
}
#: CSIG, CBAK and COVL of samples in [-1, 1].
UNIT_REFERENCE = {
    "p287_001": [3.0885, 2.4689, 2.4345],
    "p287_002": [2.9301, 2.2797, 2.1322],
    "p287_003": [2.6059, 1.9567, 1.8755],
    "p287_004": [2.1357, 1.6219, 1.5837],
    "p287_005": [3.3345, 2.7336, 2.4886],
    "p287_006": [3.1740, 2.4676, 2.3482],
}

FOUND = [name for name in REFERENCE if (PAIRS / "noisy" / f"{name}.wav").is_file()]
if FOUND:

    @pytest.mark.parametrize("name", FOUND)
    class TestOfVoiceBankDemandPairs:
        @pytest.fixture
        def pair(self, name):
            paths = (PAIRS / folder / f"{name}.wav" for folder in ("clean", "noisy"))
            return [soundfile.read(path)[0] for path in paths]

        def test_equals_the_reference_at_the_16_bit_scale(self, pair, name):
            scores = composite(*pair)
            assert list(scores) == COLUMNS
            assert list(scores.values()) == pytest.approx(REFERENCE[name], abs=1e-3)

        def test_equals_the_reference_at_the_unit_scale(self, pair, name):
            scores = composite(*pair, scale="unit")
            found = [scores[column] for column in ("csig", "cbak", "covl")]
            assert found == pytest.approx(UNIT_REFERENCE[name], abs=1e-3)
            same = dict(zip(COLUMNS, REFERENCE[name], strict=True))
            for column in ("pesq", "ssnr", "llr"):
                assert scores[column] == pytest.approx(same[column], abs=1e-3)


@pytest.fixture
def clean(speech):
    return speech.numpy().astype(np.float64)


@pytest.fixture
def enhanced(clean):
    """The speech with white noise."""
    noise = np.random.default_rng(0).standard_normal(len(clean))
    return add_noise(clean, noise, 5)


@pytest.mark.parametrize("scale", FULL_SCALE)
class TestIsThatOfAPlainLoop:
    def expected(self, pair, sample_rate, scale):
        return composite_loop.measures(*pair, sample_rate, FULL_SCALE[scale])

    @pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050])
    def test_at_each_sample_rate(self, clean, enhanced, scale, sample_rate):
        pair = clean[8000:32000], enhanced[8000:32000]
        found = segmental_measures(*pair, sample_rate, scale)
        assert found == pytest.approx(self.expected(pair, sample_rate, scale), rel=1e-7)

    @pytest.mark.parametrize("n_frames", [1, 2, 9, 10, 11, 30, 255, 256, 257])
    @pytest.mark.parametrize("extra", [0, 119])
    def test_for_each_number_of_frames(self, clean, enhanced, scale, n_frames, extra):
        part = slice(8000, 8000 + 480 + 120 * n_frames + extra)
        pair = clean[part], enhanced[part]
        found = segmental_measures(*pair, 16000, scale)
        assert found == pytest.approx(self.expected(pair, 16000, scale), rel=1e-7)

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: 0.1 * x,
            lambda x: x + 0.05,
            lambda x: np.sign(x) * np.minimum(np.abs(x), 0.02),
            lambda x: np.convolve(x, [0.5, 0.5], "same"),
        ],
        ids=["quieter", "offset", "clipped", "dull"],
    )
    def test_for_each_distortion(self, clean, scale, change):
        clean = clean + 1e-5 * np.random.default_rng(0).standard_normal(len(clean))
        pair = clean, change(clean)
        found = segmental_measures(*pair, 16000, scale)
        expected = self.expected(pair, 16000, scale)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)


class TestComposite:
    @pytest.mark.parametrize("sample_rate", [8000, 16000])
    @pytest.mark.parametrize("scale", FULL_SCALE)
    def test_is_made_of_pesq_and_the_measures(
        self, clean, enhanced, sample_rate, scale
    ):
        scores = composite(clean, enhanced, sample_rate, scale)
        parts = {
            "pesq": pesq(clean, enhanced, sample_rate),
            "ssnr": ssnr(clean, enhanced, sample_rate, scale),
            "llr": llr(clean, enhanced, sample_rate, scale),
            "wss": wss(clean, enhanced, sample_rate, scale),
        }
        assert list(scores) == COLUMNS
        assert scores == {**parts, **composite_from_parts(**parts)}

    def test_ratings_follow_their_equations(self):
        assert composite_from_parts(
            pesq=2.0, ssnr=5.0, llr=0.5, wss=40.0
        ) == pytest.approx(
            {
                "csig": 3.093 - 1.029 * 0.5 + 0.603 * 2 - 0.009 * 40,
                "cbak": 1.634 + 0.478 * 2 - 0.007 * 40 + 0.063 * 5,
                "covl": 1.594 + 0.805 * 2 - 0.512 * 0.5 - 0.007 * 40,
            }
        )

    def test_ratings_stay_between_1_and_5(self):
        worst = composite_from_parts(pesq=1.0, ssnr=-10.0, llr=9.0, wss=400.0)
        assert worst == {"csig": 1.0, "cbak": 1.0, "covl": 1.0}
        best = composite_from_parts(pesq=4.64, ssnr=35.0, llr=0.0, wss=0.0)
        assert best == {"csig": 5.0, "cbak": 5.0, "covl": 5.0}

    def test_scores_by_name_are_those_of_composite(self, clean, enhanced):
        expected = composite(clean, enhanced, scale="unit")
        row = score(clean, enhanced, COLUMNS, scale="unit")
        assert row == {**expected, "failed": ""}
        for name in ("csig", "cbak", "covl"):
            assert METRICS[name](clean, enhanced, scale="unit") == expected[name]

    def test_the_scale_changes_wss_and_with_it_the_ratings(self, clean, enhanced):
        at_int16, at_unit = (
            composite(clean, enhanced, scale=scale) for scale in FULL_SCALE
        )
        assert at_unit["wss"] < at_int16["wss"] - 5
        assert at_unit["cbak"] > at_int16["cbak"]
        for same in ("pesq", "ssnr", "llr"):
            assert at_unit[same] == pytest.approx(at_int16[same], abs=1e-9)

    def test_an_unknown_scale_is_refused(self, clean):
        with pytest.raises(ValueError, match="int16, unit, not 'float'"):
            composite(clean, clean, scale="float")

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    def test_leaves_its_inputs(self, clean, enhanced, dtype):
        factor = 20000 if dtype == np.int16 else 1
        pair = [(factor * samples).astype(dtype) for samples in (clean, enhanced)]
        for samples in pair:
            samples.flags.writeable = False
        copies = [samples.copy() for samples in pair]
        first = composite(*pair)
        np.testing.assert_array_equal(pair, copies)
        assert composite(*pair) == first

    def test_takes_strided_arrays(self, clean, enhanced):
        interleaved = np.stack([clean, enhanced], axis=1)
        assert composite(*interleaved.T) == composite(clean, enhanced)


class TestSegmentalSNR:
    @pytest.mark.parametrize(
        ("gain", "expected"),
        [(1.1, 20.0), (2.0, 0.0), (1.0, 35.0), (1.0001, 35.0), (100.0, -10.0)],
    )
    def test_is_that_of_each_frame_within_bounds(self, clean, gain, expected):
        assert ssnr(clean, gain * clean) == pytest.approx(expected, abs=1e-6)

    def test_is_the_mean_over_frames(self, clean):
        louder = np.where(np.arange(len(clean)) < len(clean) // 2, 1.1, 2.0)
        assert ssnr(clean, louder * clean) == pytest.approx(10, abs=0.2)


class TestLogLikelihoodRatio:
    @pytest.mark.parametrize("gain", [1, 1e-3, -1])
    def test_does_not_depend_on_the_level(self, clean, gain):
        assert llr(clean, gain * clean) == pytest.approx(0, abs=1e-9)

    def test_of_white_noise_is_the_gain_of_prediction(self):
        """x[n] = 0.9 x[n-1] + e[n] has 1 / (1 - 0.81) times the variance of e."""
        import scipy.signal

        noise = np.random.default_rng(0).standard_normal((2, 80000)) / 100
        clean = scipy.signal.lfilter([1], [1, -0.9], noise[0])
        expected = np.log(1 / (1 - 0.81))
        assert llr(clean, noise[1]) == pytest.approx(expected, rel=0.1)

    def test_digital_silence_counts_as_faint_white_noise(self, clean):
        noise = 1e-9 * np.random.default_rng(0).standard_normal(len(clean))
        muted, faint = clean.copy(), clean.copy()
        muted[16000:32000] = 0
        faint[16000:32000] = noise[16000:32000]
        for pair, limit in (
            ((clean, muted), (clean, faint)),
            ((muted, clean), (faint, clean)),
        ):
            assert llr(*pair) > 0.1
            assert llr(*pair) == pytest.approx(llr(*limit), rel=0.1)
        assert llr(muted, muted) == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("frequency", [0, 100, 1000, 4000, 8000])
    def test_is_finite_for_what_can_be_predicted_exactly(self, clean, frequency):
        tone = 0.1 * np.cos(2 * np.pi * frequency / 16000 * np.arange(len(clean)))
        for pair in ((clean, tone), (tone, clean), (tone, tone)):
            for value in segmental_measures(*pair).values():
                assert np.isfinite(value)
        assert llr(tone, tone) == pytest.approx(0, abs=0.02)

    def test_of_a_click_is_finite(self, clean):
        click = np.zeros_like(clean)
        click[20000] = 1
        for pair in ((clean, click), (click, clean)):
            assert np.isfinite(list(segmental_measures(*pair).values())).all()


class TestSpectralSlope:
    def test_is_0_at_equal_slopes(self, clean):
        noisy = clean + 1e-3 * np.random.default_rng(0).standard_normal(len(clean))
        assert wss(noisy, 0.5 * noisy) == pytest.approx(0, abs=1e-9)

    def test_is_0_where_all_bands_lie_below_the_floor(self, clean):
        tiny = 1e-3 * np.random.default_rng(0).standard_normal((2, 16000))
        assert wss(*tiny, scale="int16") > 1
        assert wss(*tiny, scale="unit") == 0
