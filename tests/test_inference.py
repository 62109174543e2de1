"""Use of a network: whatever goes in comes out in the same form, whole or by windows."""

import copy
import math
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speechbrain.utils.importutils import LazyModule

from helpers.signals import ratio_db
from speechbrain_cffma.errors import InputError, InstallError
from speechbrain_cffma.inference.limiter import PeakWarning
from speechbrain_cffma.inference.together import Together
from speechbrain_cffma.inference.windows import Windows
from speechbrain_cffma.lobes import CFFMAEnhancer, LogSpectrogram, NoEmbedding

# Hypothesis asks each module for its file; SpeechBrain's lazy ones would then import
# packages that are not installed.
LazyModule.__file__ = None

#: Short ones, for many joins in a few seconds.
SHORT = Windows(hop=0.6, fade=0.1, left_context=0.2, lookahead=0.2)
WHOLE = Windows(hop=1e6)
RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000, 15999, 44101]
DTYPES = ["float16", "float32", "float64", "int16", "int32"]
INTEGERS = {"int16": 2**15, "int32": 2**31}


class Mask(torch.nn.Module):
    """A given mask: a number for all, or one for each frequency [F]."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.as_tensor(value, dtype=torch.float32))

    def forward(self, spectrum, embedding, lengths=None):
        return self.value * torch.ones_like(spectrum)


def enhancer_of(mask):
    return CFFMAEnhancer(NoEmbedding(), LogSpectrogram(), Mask(mask)).eval()


@pytest.fixture
def identity():
    return enhancer_of(1.0)


@pytest.fixture
def heard(identity, monkeypatch):
    """The windows [B, S] that go through the network `identity`."""
    windows = []
    forward = identity.forward
    monkeypatch.setattr(
        identity, "forward", lambda wav, **_: windows.append(wav) or forward(wav)
    )
    return windows


@pytest.fixture
def noisy(speech):
    """3 s of speech with noise at about 10 dB, float32 array [S]."""
    noise = np.random.default_rng(0).standard_normal(len(speech))
    level = float(speech.square().mean().sqrt())
    return (speech.numpy() + 0.3 * level * noise).astype("float32")


def random_wav(shape, dtype="float32", level=0.5):
    wav = np.random.default_rng(0).uniform(-level, level, shape)
    return (wav * INTEGERS.get(dtype, 1)).astype(dtype)


def tone(frequency, sample_rate=48000, seconds=1.0, level=0.3):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return level * np.sin(2 * np.pi * frequency * time)


def level_at(wav, frequency, sample_rate=48000):
    """Of a tone, in its middle."""
    middle = wav[len(wav) // 4 : -len(wav) // 4]
    time = np.arange(len(middle)) / sample_rate
    return 2 * abs(np.mean(middle * np.exp(2j * np.pi * frequency * time)))


def in_blocks(wav, sizes):
    """Cut [.., S] to blocks of these sizes, again and again."""
    start, i = 0, 0
    while start < wav.shape[-1]:
        yield wav[..., start : start + sizes[i % len(sizes)]]
        start += sizes[i % len(sizes)]
        i += 1


def concatenated(blocks):
    return np.concatenate(list(blocks), axis=-1)


def test_the_names_of_0_1_0_for_windows_stay_valid():
    assert Windows(past=3.0, future=0.4) == Windows(left_context=3.0, lookahead=0.4)
    assert Windows()._fields == ("hop", "fade", "past", "future")
    assert (Windows().left_context, Windows().lookahead) == (0.5, 0.5)
    assert Windows()._replace(past=2.0).left_context == 2.0


class TestForm:
    """Type, shape, rate and length come back."""

    @pytest.mark.parametrize("sample_rate", RATES)
    @pytest.mark.parametrize("n_samples", [1, 399, 12345])
    def test_a_mask_of_ones_gives_the_input(self, identity, sample_rate, n_samples):
        wav = random_wav((2, n_samples))
        enhanced = identity.enhance(wav, sample_rate)
        np.testing.assert_allclose(enhanced, wav, atol=2e-5)

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        zip(DTYPES, [5e-4, 1e-5, 1e-5, 1, 2**31 * 1e-5], strict=True),
    )
    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    def test_every_type_comes_back(self, identity, dtype, tolerance, kind):
        wav = kind(random_wav(3000, dtype))
        enhanced = identity.enhance(wav)
        assert (type(enhanced), enhanced.dtype) == (type(wav), wav.dtype)
        difference = np.asarray(enhanced, "float64") - np.asarray(wav, "float64")
        assert np.abs(difference).max() <= tolerance

    @pytest.mark.parametrize("shape", [(700,), (1, 700), (2, 700), (2, 3, 700), (0,)])
    def test_every_shape_comes_back(self, tiny_enhancer, shape):
        assert tiny_enhancer.enhance(random_wav(shape)).shape == shape

    def test_integers_are_turned_down_rather_than_clipped(self):
        louder = enhancer_of(1.2)
        wav = (tone(440, 16000, level=0.9) * 2**15).astype("int16")
        with pytest.warns(PeakWarning, match="dB beyond full scale were turned down"):
            enhanced = louder.enhance(wav)
        assert np.abs(enhanced.astype(int)).max() >= 2**15 - 40
        # Clipping holds the tone's tops flat, at full scale.
        assert np.mean(np.abs(enhanced.astype(int)) >= 2**15 - 40) < 0.06

    def test_what_comes_out_is_a_tensor_as_any_other(self, tiny_enhancer):
        enhanced = tiny_enhancer.enhance(torch.randn(1000))
        assert not enhanced.is_inference()
        assert not enhanced.requires_grad
        enhanced.mul_(2)

    def test_arrays_in_any_memory_layout_go_in(self, tiny_enhancer):
        wav = random_wav((1000, 2))
        expected = tiny_enhancer.enhance(np.ascontiguousarray(wav[::-1].T))
        np.testing.assert_array_equal(tiny_enhancer.enhance(wav[::-1].T), expected)
        swapped = wav[::-1].T.astype(">f4")
        np.testing.assert_array_equal(tiny_enhancer.enhance(swapped), expected)

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        n_samples=st.integers(1, 6000),
        sample_rate=st.one_of(st.sampled_from(RATES), st.integers(8000, 192000)),
        channels=st.sampled_from([(), (1,), (3,), (2, 2)]),
        dtype=st.sampled_from(DTYPES),
        level=st.sampled_from([0.0, 1e-4, 0.99]),
        block=st.integers(300, 7000),
        suppression=st.sampled_from([None, 0, 12]),
    )
    def test_whatever_goes_in_comes_out_finite_in_the_same_form(
        self,
        tiny_enhancer,
        n_samples,
        sample_rate,
        channels,
        dtype,
        level,
        block,
        suppression,
    ):
        wav = random_wav((*channels, n_samples), dtype, level)
        stream = tiny_enhancer.enhance_stream(
            in_blocks(wav, [block]),
            sample_rate,
            windows=Windows(hop=0.1, fade=0.02, left_context=0.03, lookahead=0.02),
            suppression=suppression,
        )
        enhanced = concatenated(stream)
        assert (enhanced.shape, enhanced.dtype) == (wav.shape, wav.dtype)
        assert np.isfinite(enhanced).all()


class TestSignals:
    @pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
    def test_silence_stays_silence(self, tiny_enhancer, sample_rate):
        enhanced = tiny_enhancer.enhance(np.zeros((2, 5000)), sample_rate)
        assert not enhanced.any()

    @pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
    @pytest.mark.parametrize(
        "wav",
        [np.ones(9000), np.full(300, -1.0), random_wav(9000, level=1.0), [1.0]],
        ids=["constant", "short constant", "full-scale noise", "one sample"],
    )
    def test_the_output_is_finite(self, tiny_enhancer, wav, sample_rate):
        assert np.isfinite(tiny_enhancer.enhance(wav, sample_rate)).all()

    def test_it_is_what_the_network_gives(self, tiny_enhancer, noisy):
        with torch.no_grad():
            expected, _ = tiny_enhancer(torch.from_numpy(noisy).unsqueeze(0))
        np.testing.assert_array_equal(tiny_enhancer.enhance(noisy), expected[0])

    def test_a_channel_is_enhanced_by_itself(self, tiny_enhancer, noisy):
        stereo = np.stack([noisy, 0.5 * noisy[::-1]])
        together = tiny_enhancer.enhance(stereo, batch_size=2)
        for channel, enhanced in zip(stereo, together, strict=True):
            alone = tiny_enhancer.enhance(channel)
            np.testing.assert_allclose(enhanced, alone, atol=1e-5)

    @pytest.mark.parametrize("batch_size", [2, 3, 100])
    def test_a_batch_of_windows_gives_what_single_ones_give(
        self, tiny_enhancer, noisy, batch_size
    ):
        stereo = np.stack([noisy, 0.5 * noisy[::-1]])
        single = tiny_enhancer.enhance(stereo, windows=SHORT, batch_size=1)
        batch = tiny_enhancer.enhance(stereo, windows=SHORT, batch_size=batch_size)
        np.testing.assert_allclose(batch, single, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        ("place", "name"),
        [
            ((1234,), "sample 1234 is "),
            ((1, 1234), "sample 1234, channel 1 is "),
            ((2, 0, 1234), "sample 1234, item 2, channel 0 is "),
        ],
    )
    def test_a_sample_that_is_not_finite_is_named(self, identity, place, name, value):
        wav = np.zeros((3, 2, 2000)[-len(place) :])
        wav[place] = value
        with pytest.raises(InputError, match=f"^{name}{value}: it must be finite$"):
            identity.enhance(wav)

    def test_in_a_stream_samples_count_from_its_beginning(self, identity):
        wav = np.zeros((2, 3000))
        wav[1, 2500] = np.nan
        with pytest.raises(InputError, match="sample 2500, channel 1 is nan"):
            list(identity.enhance_stream(in_blocks(wav, [700])))

    @pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "complex64", "U1"])
    def test_other_types(self, identity, dtype):
        with pytest.raises(InputError, match="can't be enhanced"):
            identity.enhance(np.zeros(1000).astype(dtype))

    @pytest.mark.parametrize("shape", [(), (0, 100), (1, 1, 1, 100)])
    def test_other_shapes(self, identity, shape):
        with pytest.raises(InputError, match="a waveform must have shape"):
            identity.enhance(np.zeros(shape))

    def test_channels_last(self, identity):
        with pytest.raises(InputError, match="transpose it"):
            identity.enhance(np.zeros((16000, 2)))

    def test_blocks_that_do_not_go_together(self, identity):
        blocks = [np.zeros((2, 100)), np.zeros((1, 100))]
        with pytest.raises(InputError, match=", as the first block"):
            list(identity.enhance_stream(blocks))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sample_rate": 7999}, "7999 Hz: it must be a whole number"),
            ({"sample_rate": 192001}, "192001 Hz: it must be"),
            ({"sample_rate": 16000.5}, "16000.5 Hz: it must be a whole number"),
            ({"suppression": -1}, "at least 0 dB, not -1"),
            ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
            ({"windows": Windows(hop=0.0)}, "windows need a hop"),
            ({"windows": Windows(fade=20.0)}, "a fade that is not longer"),
        ],
    )
    def test_options_are_refused_before_the_first_block(
        self, identity, options, message
    ):
        with pytest.raises(InputError, match=message):
            identity.enhance_stream([], **options)


class TestModule:
    def test_it_runs_in_eval_mode_and_the_modes_stay(self, tiny_enhancer, noisy):
        expected = tiny_enhancer.enhance(noisy)
        tiny_enhancer.train()
        tiny_enhancer.mask_estimator.fusion.eval()
        modes = [module.training for module in tiny_enhancer.modules()]
        np.testing.assert_array_equal(tiny_enhancer.enhance(noisy), expected)
        assert [module.training for module in tiny_enhancer.modules()] == modes

    def test_the_modes_stay_after_an_error(self, tiny_enhancer, monkeypatch):
        tiny_enhancer.train()
        monkeypatch.setattr(tiny_enhancer, "spectrogram", None)
        with pytest.raises(AttributeError):
            tiny_enhancer.enhance(np.zeros(1000))
        assert tiny_enhancer.training

    def test_gradients_work_between_the_blocks_of_a_stream(self, tiny_enhancer, noisy):
        stream = tiny_enhancer.enhance_stream([noisy], windows=SHORT)
        next(stream)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()

    @pytest.mark.parametrize(
        ("features", "precision"),
        [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")],
    )
    def test_auto_is_bf16_where_the_processor_has_it(
        self, tiny_enhancer, noisy, monkeypatch, features, precision
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
        other = copy.deepcopy(tiny_enhancer)
        enhanced = tiny_enhancer.pack().enhance(noisy)
        assert tiny_enhancer.packed == precision
        expected = other.pack(precision).enhance(noisy)
        np.testing.assert_array_equal(enhanced, expected)


class TestSuppression:
    def test_of_0_db_gives_the_input(self, tiny_enhancer, noisy):
        enhanced = tiny_enhancer.enhance(noisy, suppression=0)
        np.testing.assert_allclose(enhanced, noisy, atol=1e-5)

    @pytest.mark.parametrize("bound", [6, 20])
    def test_bounds_the_gain_of_each_time_and_frequency(self, bound):
        mask = torch.linspace(0, 1, 201)
        # Steady tones on the bins, for which the overlap of the frames adds nothing.
        frequencies = np.arange(1, 200, 7) * 80
        wav = sum(tone(f, 16000, level=0.01) for f in frequencies)
        free = enhancer_of(mask).enhance(wav)
        bounded = enhancer_of(mask).enhance(wav, suppression=bound)
        for frequency in frequencies:
            gain = level_at(free, frequency, 16000) / 0.01
            expected = max(gain, 10 ** (-bound / 20))
            got = level_at(bounded, frequency, 16000) / 0.01
            assert got == pytest.approx(expected, abs=0.02), frequency

    def test_no_bound_and_one_beyond_all_are_the_same(self, tiny_enhancer, noisy):
        free = tiny_enhancer.enhance(noisy)
        bounded = tiny_enhancer.enhance(noisy, suppression=300)
        np.testing.assert_allclose(bounded, free, atol=1e-5)


class TestHighBand:
    """Above 8 kHz the gain is that of 7 to 8 kHz."""

    @pytest.mark.parametrize("sample_rate", [44100, 48000, 96000])
    def test_has_the_gain_of_the_top_of_the_band(self, sample_rate):
        mask = torch.ones(201)
        mask[170:] = 0.5
        wav = tone(7500, sample_rate, level=0.05) + tone(12000, sample_rate, level=0.2)
        enhanced = enhancer_of(mask).enhance(wav, sample_rate)
        gain = level_at(enhanced, 7500, sample_rate) / 0.05
        assert 0.2 < gain < 0.8
        got = level_at(enhanced, 12000, sample_rate) / 0.2
        assert got == pytest.approx(gain, abs=0.05)

    def test_follows_the_bound_on_suppression(self):
        wav = tone(12000) + 0.1 * random_wav(48000)
        enhanced = enhancer_of(0.0).enhance(wav, 48000, suppression=12)
        got = level_at(enhanced, 12000) / level_at(wav, 12000)
        assert got == pytest.approx(10 ** (-12 / 20), rel=0.02)

    def test_is_cut_on_demand(self, identity):
        wav = tone(3000) + tone(12000)
        enhanced = identity.enhance(wav, 48000, high_band=False)
        assert level_at(enhanced, 12000) < 1e-5
        assert level_at(enhanced, 3000) == pytest.approx(0.3, rel=1e-3)

    @pytest.mark.parametrize("sample_rate", [8000, 15999])
    def test_is_what_lies_above_the_network_s_band_alone(self, identity, sample_rate):
        wav = random_wav(sample_rate)
        enhanced = identity.enhance(wav, sample_rate, high_band=False)
        np.testing.assert_allclose(enhanced, wav, atol=2e-5)

    def test_the_end_does_not_ring_into_the_beginning(self, identity):
        wav = np.zeros(48000)
        wav[-1] = 1
        enhanced = identity.enhance(wav, 48000, high_band=False)
        assert np.abs(enhanced[:4800]).max() < 1e-4

    def test_does_not_leak_into_the_network(self):
        wav = tone(12000) + tone(8200)
        cut = enhancer_of(1.0).enhance(wav, 48000, high_band=False)
        assert np.abs(cut[4800:-4800]).max() < 1e-4

    def test_what_the_network_hears_does_not_depend_on_the_rate(
        self, tiny_enhancer, noisy
    ):
        narrow = np.fft.rfft(noisy)
        narrow[len(narrow) * 7 // 8 :] = 0  # below the crossover
        wide = np.zeros(3 * len(noisy) // 2 + 1, dtype=complex)
        wide[: len(narrow)] = narrow
        at_16 = np.fft.irfft(narrow, len(noisy))
        at_48 = 3 * np.fft.irfft(wide, 3 * len(noisy))
        expected = tiny_enhancer.enhance(at_16)
        enhanced = tiny_enhancer.enhance(at_48, 48000)[::3]
        inner = slice(1600, -1600)
        error = ratio_db(expected[inner], (enhanced - expected)[inner])
        assert error > 30


class TestWindows:
    def test_a_file_of_one_window_is_a_whole(self, tiny_enhancer, noisy):
        windows = Windows(hop=2.0, fade=0.5, left_context=0.5, lookahead=0.5)
        whole = tiny_enhancer.enhance(noisy, windows=WHOLE)
        enhanced = tiny_enhancer.enhance(noisy[: 3 * 16000], windows=windows)
        np.testing.assert_array_equal(enhanced, whole)

    @pytest.mark.parametrize("sample_rate", [16000, 44100, 44101])
    @pytest.mark.parametrize(
        "windows",
        [
            SHORT,
            Windows(hop=0.1, fade=0.1, left_context=1.0, lookahead=0.05),
            Windows(hop=0.3, fade=0.0, left_context=0.0, lookahead=0.0),
        ],
    )
    def test_a_mask_of_ones_gives_the_input_across_all_joins(
        self, identity, windows, sample_rate
    ):
        wav = random_wav(2 * sample_rate + 777)
        enhanced = identity.enhance(wav, sample_rate, windows=windows)
        np.testing.assert_allclose(enhanced, wav, atol=2e-5)

    def test_neighbours_are_cross_faded(self):
        """Windows of gain 1, then 0.5: the gain falls smoothly within the fade alone."""
        enhancer = enhancer_of(1.0)
        gains = iter([1.0, 0.5, 0.5, 0.5])
        forward = enhancer.forward
        enhancer.forward = lambda wav, **_: [
            next(gains) * part for part in forward(wav)
        ]
        enhanced = enhancer.enhance(np.full(24000, 0.5), windows=SHORT) / 0.5
        fade = slice(9600, 11200)
        np.testing.assert_allclose(enhanced[:9600], 1.0, atol=1e-3)
        np.testing.assert_allclose(enhanced[11200:], 0.5, atol=1e-3)
        steps = np.diff(enhanced[fade])
        assert (steps < 1e-5).all()
        assert np.abs(steps).max() < 1e-3
        assert enhanced[10400] == pytest.approx(0.75, abs=1e-3)

    def test_joins_differ_from_the_whole_no_more_than_the_rest(
        self, tiny_enhancer, noisy
    ):
        enhanced = tiny_enhancer.enhance(noisy, windows=SHORT)
        whole = tiny_enhancer.enhance(noisy, windows=WHOLE)
        at_join = np.zeros(len(noisy), dtype=bool)
        for join in (9600, 19200, 28800):
            at_join[join - 800 : join + 2400] = True
        joins, rest = (
            ratio_db(whole[part], (enhanced - whole)[part])
            for part in (at_join, ~at_join)
        )
        assert joins > max(20, rest - 3)

    def test_every_window_but_the_first_is_of_full_length(self, identity, noisy, heard):
        identity.enhance(noisy[:40123], windows=SHORT)
        lengths = [window.shape for window in heard]
        full = round(1.1 * 16000)
        assert lengths[0] == (1, full - 3200)
        assert lengths[1:-1] == [(1, full)] * (len(lengths) - 2)
        assert full <= lengths[-1][1] <= full + 320

    @pytest.mark.parametrize(
        ("seconds", "last"), [(15.6, 4.0), (17.0, 4.0), (20.0, 6.5), (30.0, 4.0)]
    )
    def test_the_last_window_is_as_short_as_is_enough(
        self, identity, heard, seconds, last
    ):
        identity.enhance(np.zeros(round(seconds * 16000)))
        assert heard[-1].shape[1] == pytest.approx(last * 16000, abs=320)

    def test_windows_begin_on_the_frames_of_the_whole(self, identity, heard):
        identity.enhance(np.arange(40123) / 2**16, windows=SHORT)
        begins = [round(float(window[0, 0]) * 2**16) for window in heard]
        assert len(begins) == 4
        assert {begin % 320 for begin in begins} == {0}

    @pytest.mark.parametrize("sizes", [[16000], [1, 7, 16001], [160], [48000]], ids=str)
    def test_a_stream_gives_what_the_whole_array_gives(
        self, tiny_enhancer, noisy, sizes
    ):
        blocks = in_blocks(noisy, sizes)
        stream = tiny_enhancer.enhance_stream(blocks, windows=SHORT)
        expected = tiny_enhancer.enhance(noisy, windows=SHORT)
        np.testing.assert_array_equal(concatenated(stream), expected)

    def test_nothing_in_nothing_out(self, identity):
        assert list(identity.enhance_stream([])) == []

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_the_latency_is_what_it_says(self, identity, noisy, batch_size):
        n_in = n_out = 0

        def live():
            nonlocal n_in
            for block in in_blocks(noisy, [160]):
                n_in += block.shape[-1]
                yield block

        bound = SHORT.latency + (batch_size - 1) * SHORT.hop
        stream = identity.enhance_stream(live(), windows=SHORT, batch_size=batch_size)
        delays = []
        for block in stream:
            delays.append((n_in - n_out) / 16000)  # of its first sample
            n_out += block.shape[-1]
            if batch_size == 1:  # else the blocks of a batch come one after the other
                assert delays[-1] <= bound + 0.0101
        assert max(delays) == pytest.approx(bound, abs=0.0101)
        assert n_out == len(noisy)

    def test_a_stream_takes_no_more_than_it_needs(self, identity, noisy):
        taken = []
        blocks = (taken.append(0) or block for block in in_blocks(noisy, [160]))
        next(identity.enhance_stream(blocks, windows=SHORT))
        assert len(taken) == round(SHORT.latency * 100) + 1


@pytest.fixture
def wav(noisy, tmp_path):
    """`wav(name, sample_rate, subtype)`: a stereo file of 3 s of noisy speech."""

    def write(name, sample_rate=16000, subtype=None, gain=1.0, **options):
        path = tmp_path / name
        stereo = gain * np.stack([noisy, -0.5 * noisy], axis=1)
        soundfile.write(path, stereo, sample_rate, subtype, **options)
        return path

    return write


class TestFiles:
    @pytest.mark.parametrize(
        ("source", "subtype", "target", "expected"),
        [
            ("a.wav", "PCM_16", "b.wav", ("WAV", "PCM_16")),
            ("a.wav", "PCM_24", "b.flac", ("FLAC", "PCM_24")),
            ("a.wav", "PCM_32", "b.WAV", ("WAV", "PCM_32")),
            ("a.wav", "FLOAT", "b.wav", ("WAV", "FLOAT")),
            ("a.wav", "DOUBLE", "b.flac", ("FLAC", "PCM_24")),
            ("a.wav", "ULAW", "b.wav", ("WAV", "ULAW")),
            ("a.wav", "ULAW", "b.flac", ("FLAC", "PCM_16")),
            ("a.flac", "PCM_24", "b.aif", ("AIFF", "PCM_24")),
            ("a.flac", "PCM_16", "b.ogg", ("OGG", "VORBIS")),
            ("a.flac", "PCM_16", "b.mp3", ("MP3", "MPEG_LAYER_III")),
            ("a.mp3", None, "b.wav", ("WAV", "PCM_16")),
            ("a.mp3", None, "b.mp3", ("MP3", "MPEG_LAYER_III")),
            ("a.ogg", "OPUS", "b.ogg", ("OGG", "OPUS")),
            ("a.ogg", "VORBIS", "b.opus", ("OGG", "OPUS")),
        ],
    )
    def test_the_sample_format_is_kept_where_the_container_has_it(
        self, identity, wav, source, subtype, target, expected
    ):
        source = wav(source, subtype=subtype)
        identity.enhance_file(source, source.with_name(target))
        info = soundfile.info(source.with_name(target))
        assert (info.format, info.subtype) == expected
        assert (info.channels, info.samplerate) == (2, 16000)
        if target.endswith((".wav", ".flac", ".aif")):
            assert info.frames == soundfile.info(source).frames

    @pytest.mark.parametrize("sample_rate", [8000, 44100, 96000])
    def test_levels_are_kept(self, identity, wav, sample_rate):
        source = wav("a.wav", sample_rate, "PCM_16", gain=0.01)
        identity.enhance_file(source, source.with_name("b.wav"))
        noisy, enhanced = (
            soundfile.read(source.with_name(name))[0] for name in ("a.wav", "b.wav")
        )
        np.testing.assert_allclose(enhanced, noisy, atol=1.1 / 2**15)

    def test_a_file_gives_what_its_samples_give(self, tiny_enhancer, wav):
        source = wav("a.wav", 44100, "FLOAT")
        tiny_enhancer.enhance_file(source, source.with_name("b.wav"), windows=SHORT)
        samples, _ = soundfile.read(source, dtype="float32")
        expected = tiny_enhancer.enhance(samples.T, 44100, windows=SHORT)
        enhanced, _ = soundfile.read(source.with_name("b.wav"), dtype="float32")
        np.testing.assert_array_equal(enhanced.T, expected)

    def test_peaks_that_a_full_scale_can_not_hold_are_turned_down(self, wav):
        louder = enhancer_of(1.2)
        source = wav("a.wav", subtype="PCM_16", gain=0.9)
        samples, _ = soundfile.read(source)
        expected = louder.enhance(samples.T).T
        excess = 20 * np.log10(np.abs(expected).max())
        assert excess > 1
        with pytest.warns(PeakWarning, match=f"b.wav: peaks up to {excess:.1f} dB bey"):
            told = louder.enhance_file(source, source.with_name("b.wav"))
        assert told == pytest.approx(excess, abs=0.01)
        limited, _ = soundfile.read(source.with_name("b.wav"))
        assert np.abs(limited).max() <= 1
        reach = np.ones(4 * 80 + 1)  # the gain is lowest for 5 ms, and back after 10 ms
        for heard, asked in zip(limited.T, expected.T, strict=True):
            far = np.convolve(np.abs(asked) > 1, reach, "same") == 0
            assert far.mean() > 0.2
            np.testing.assert_allclose(heard[far], asked[far], atol=1e-4)

        assert louder.enhance_file(source, source.with_name("c.wav"), "FLOAT") == 0
        kept, _ = soundfile.read(source.with_name("c.wav"))
        np.testing.assert_allclose(kept, expected, atol=1e-5)

    def test_lossy_formats_are_limited_alike(self, identity, wav):
        source = wav("a.wav", subtype="FLOAT", gain=5)
        with pytest.warns(PeakWarning):
            identity.enhance_file(source, source.with_name("b.ogg"))
        peaks = [
            np.abs(soundfile.read(source.with_name(name))[0]).max()
            for name in ("a.wav", "b.ogg")
        ]
        assert peaks[0] > 3
        assert peaks[1] < 2  # a codec overshoots

    def test_a_limited_file_has_no_seams(self, wav):
        """By windows it is what it is as a whole."""
        louder = enhancer_of(1.2)
        source = wav("a.wav", subtype="PCM_16", gain=0.9)
        for name, windows in (("b.wav", SHORT), ("c.wav", WHOLE)):
            with pytest.warns(PeakWarning):
                louder.enhance_file(source, source.with_name(name), windows=windows)
        by_windows, whole = (
            soundfile.read(source.with_name(name))[0] for name in ("b.wav", "c.wav")
        )
        np.testing.assert_allclose(by_windows, whole, atol=1e-3)

    def test_progress_is_told_in_seconds(self, identity, wav):
        told = []
        source = wav("a.wav", 48000)
        target = source.with_name("b.wav")
        windows = Windows(hop=0.4, fade=0.1, left_context=0, lookahead=0)
        identity.enhance_file(source, target, progress=told.append, windows=windows)
        assert told == pytest.approx([0.4, 0.4, 0.2])

    @pytest.mark.parametrize("existed", [False, True])
    def test_a_failure_leaves_the_folder_as_it_was(self, identity, tmp_path, existed):
        samples = np.zeros(40000)
        samples[30000] = np.nan
        soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
        target = tmp_path / "b.wav"
        if existed:
            target.write_text("from before")
        with pytest.raises(InputError, match="a.wav: sample 30000, channel 0 is nan"):
            identity.enhance_file(tmp_path / "a.wav", target, windows=SHORT)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == (["a.wav", "b.wav"] if existed else ["a.wav"])
        assert not existed or target.read_text() == "from before"

    @pytest.mark.parametrize(
        ("source", "target", "message"),
        [
            ("missing.wav", "b.wav", "missing.wav can't be read"),
            ("text.wav", "b.wav", "text.wav can't be read"),
            ("text.mp4", "b.wav", "text.mp4 can't be read"),
            ("empty.wav", "b.wav", "empty.wav: the file has no samples"),
            ("a.wav", "b.txt", "b.txt can't be written: its extension must be one of"),
            ("a.wav", "text.wav/b.wav", "text.wav/b.wav can't be written"),
            ("odd.wav", "b.opus", "b.opus can't be written"),
            ("slow.wav", "b.wav", "slow.wav: the sample rate is 4000 Hz: it must be"),
        ],
    )
    def test_what_can_t_be_used_is_one_line_that_names_it(
        self, identity, wav, tmp_path, source, target, message
    ):
        wav("a.wav")
        wav("odd.wav", 11025)
        wav("slow.wav", 4000)
        soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
        for name in ("text.wav", "text.mp4"):
            (tmp_path / name).write_text("no sound")
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InputError, match=message) as error:
            identity.enhance_file(tmp_path / source, tmp_path / target)
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.iterdir()) == before

    def test_a_sample_format_that_the_container_has_not(self, identity, wav):
        source = wav("a.wav")
        with pytest.raises(InputError, match="b.flac can't be written.* FLOAT samples"):
            identity.enhance_file(source, source.with_name("b.flac"), "FLOAT")

    def test_a_file_that_ends_early_gives_what_it_holds(self, identity, wav):
        source = wav("a.wav", subtype="PCM_16")
        source.write_bytes(source.read_bytes()[:100_044])
        identity.enhance_file(source, source.with_name("b.wav"))
        assert soundfile.info(source.with_name("b.wav")).frames == 25000

    @pytest.mark.parametrize(
        ("name", "codec", "layout"),
        [("a.mp4", "aac", "stereo"), ("a.mkv", "pcm_s16le", "mono")],
    )
    def test_the_sound_of_a_video(self, identity, noisy, tmp_path, name, codec, layout):
        av = pytest.importorskip("av")
        channels = 2 if layout == "stereo" else 1
        with av.open(str(tmp_path / name), "w") as container:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width = pictures.height = 64
            sound = container.add_stream(codec, rate=16000, layout=layout)
            picture = av.VideoFrame.from_ndarray(
                np.zeros((64, 64, 3), dtype="uint8"), format="rgb24"
            )
            container.mux([*pictures.encode(picture), *pictures.encode(None)])
            packed = np.repeat((noisy * 2**15).astype("int16"), channels)[None]
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate = 16000
            container.mux([*sound.encode(frame), *sound.encode(None)])
        identity.enhance_file(tmp_path / name, tmp_path / "b.wav")
        enhanced, sample_rate = soundfile.read(tmp_path / "b.wav", always_2d=True)
        assert (sample_rate, enhanced.shape[1]) == (16000, channels)
        assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"
        assert len(enhanced) == pytest.approx(len(noisy), abs=3000)  # AAC pads
        correlation = np.correlate(enhanced[:, 0], noisy[8000:24000], "valid").max()
        assert correlation > 0.9 * np.sum(noisy[8000:24000] ** 2)

    def test_a_video_without_the_package_says_what_to_install(
        self, identity, tmp_path, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "av", None)
        (tmp_path / "a.mp4").touch()
        with pytest.raises(
            InstallError, match=r"pip install 'speechbrain-cffma\[video"
        ):
            identity.enhance_file(tmp_path / "a.mp4", tmp_path / "b.wav")


class TestTogether:
    """Several signals in threads, as on a GPU."""

    def test_each_signal_gets_what_it_gets_alone(self, tiny_enhancer):
        signals = [torch.randn(n) for n in (16000, 12345, 8000)]
        together = Together(tiny_enhancer, n_threads=3).eval()
        for signal, enhanced in zip(
            signals, together.map(together.enhance, signals), strict=True
        ):
            alone = tiny_enhancer.enhance(signal)
            torch.testing.assert_close(enhanced, alone, atol=1e-4, rtol=0)

    def test_they_are_one_batch(self, tiny_enhancer):
        batches = []
        tiny_enhancer.register_forward_pre_hook(
            lambda _, inputs: batches.append(len(inputs[0]))
        )
        together = Together(tiny_enhancer, n_threads=2).eval()
        together.map(together.enhance, [torch.randn(16000) for _ in range(8)])
        assert batches == [2] * 4

    def test_a_signal_that_fails_does_not_stop_the_others(self, tiny_enhancer):
        def enhanced(signal):
            try:
                return len(together.enhance(signal))
            except InputError:
                return None

        together = Together(tiny_enhancer, n_threads=3).eval()
        bad = torch.full((16000,), math.nan)
        signals = [torch.randn(16000), bad, torch.randn(16000)]
        assert together.map(enhanced, signals) == [16000, None, 16000]
