"""What of a file is drawn: the network's own spectrum, however long the file and whatever its rate."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_cffma.app.spectra import MAX_COLUMNS, log_spectrum
from speechbrain_cffma.lobes import LogSpectrogram


@pytest.fixture
def written(tmp_path):
    """`written(samples, sample_rate)`: path of a file."""

    def write(samples, sample_rate=16000):
        soundfile.write(tmp_path / "a.wav", samples, sample_rate, "FLOAT")
        return tmp_path / "a.wav"

    return write


class TestLogSpectrum:
    def test_at_16_khz_is_the_network_s(self, written, speech):
        expected, _ = LogSpectrogram()(speech[None])
        seen = log_spectrum(written(speech.numpy()), seconds=3.0)
        np.testing.assert_allclose(seen, expected[0, :-1], atol=1e-5)

    def test_a_long_file_is_pooled_to_a_bounded_number_of_columns(self, written):
        samples = np.random.default_rng(0).normal(0, 0.1, 16000 * 35)
        seen = log_spectrum(written(samples), seconds=35.0)
        frames = LogSpectrogram()(torch.from_numpy(samples).float()[None])[0][0, :-1]
        pooled = frames.reshape(-1, 4, 201).mean(dim=1)  # 3500 frames
        assert seen.shape == pooled.shape
        assert len(seen) <= MAX_COLUMNS
        # Frames at the joins of what was read at once are reflected there.
        assert np.median(np.abs(seen - pooled.numpy())) < 1e-5
        assert np.abs(seen - pooled.numpy()).mean() < 1e-2

    @pytest.mark.parametrize("rate", [44100, 48000, 22050])
    def test_other_rates_show_the_same_levels(self, written, rate):
        def tone(rate):
            return 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)

        expected = log_spectrum(written(tone(16000)), seconds=1.0)
        stereo = np.stack([tone(rate)] * 2, axis=1)
        seen = log_spectrum(written(stereo, rate), seconds=1.0)
        assert seen.shape[1] == 201
        np.testing.assert_allclose(seen[40, 25], expected[40, 25], rtol=0.01)

    def test_a_low_rate_ends_at_its_own_band(self, written):
        assert log_spectrum(written(np.ones(8000), 8000), seconds=1.0).shape[1] == 101

    @pytest.mark.parametrize("n_samples", [400, 401, 16000 * 10 + 1])
    def test_every_length_can_be_drawn(self, written, n_samples):
        seen = log_spectrum(written(np.ones(n_samples)), seconds=n_samples / 16000)
        assert 1 <= len(seen) <= MAX_COLUMNS
        assert np.isfinite(seen).all()
