"""The model that comes with the package: what anyone may expect of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from speechbrain_cffma import audio, cli, pretrained
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.hub.card import read_card
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.metrics.intrusive import pesq, si_sdr, stoi

FOLDER = Path(pretrained.__file__).parent / "default"
MIX = Path(__file__).parents[1] / "recipes" / "DynamicMix"
#: Real ambience that is in no training.
NOISES = sorted((MIX / "noise").glob("*.opus"))


@pytest.fixture(scope="module")
def enhancer():
    return CFFMAEnhancer.from_pretrained()


def utterance(language, seconds=5):
    """Bundled prompts in a row [S]."""
    parts = []
    for path in audio.find_audio(MIX / "speech" / language):
        parts.append(audio.read(path))
        if sum(map(len, parts)) >= seconds * 16000:
            return np.concatenate(parts)[: seconds * 16000]
    raise AssertionError(f"{language} is too short")


@pytest.fixture(scope="module")
def unseen():
    """Speech of a speaker, and in a language, of no training [S]."""
    return utterance("ru")


class TestFolder:
    def test_it_is_small(self):
        assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 15e6

    def test_its_network_is_that_of_the_project_with_a_small_wavlm(self, enhancer):
        n_parameters = sum(p.numel() for p in enhancer.parameters())
        assert 3e6 < n_parameters < 7e6
        config = json.loads((FOLDER / "config.json").read_text())["model"]
        assert config["mask_estimator"]["fusion"]["lobe"] == "MSCFF"
        assert config["mask_estimator"]["enhancer"]["lobe"] in ("RHMA", "PostNormStack")
        assert config["embedding"]["ssl"]["config"]["model_type"] == "wavlm"

    def test_its_card_names_licence_data_and_commands(self, enhancer):
        text, data = read_card(enhancer.card)
        assert data["license"] == "cc-by-sa-3.0"
        for fact in ("hparams/pretrain.yaml", "hparams/default.yaml", "Asterisk"):
            assert fact in text

    def test_it_has_the_log_of_its_training(self):
        log = (FOLDER / "train_log.txt").read_text()
        assert "epoch: 1," in log
        assert "valid pesq" in log


class TestOnWhatItNeverHeard:
    @pytest.mark.parametrize("noise", NOISES, ids=lambda path: path.stem)
    def test_noisy_speech_gets_better(self, enhancer, unseen, noise):
        noisy = add_noise(unseen, np.resize(audio.read(noise), len(unseen)), snr=5)
        enhanced = enhancer.enhance(noisy)
        assert pesq(unseen, enhanced) > pesq(unseen, noisy) + 0.05
        assert si_sdr(unseen, enhanced) > si_sdr(unseen, noisy) + 2
        assert stoi(unseen, enhanced) > stoi(unseen, noisy) - 0.02

    def test_soft_and_loud_recordings_are_enhanced_alike(self, enhancer, unseen):
        noisy = add_noise(unseen, np.resize(audio.read(NOISES[0]), len(unseen)), 5)
        soft = enhancer.enhance(0.003 * noisy) / 0.003
        np.testing.assert_allclose(soft, enhancer.enhance(noisy), atol=1e-3)


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "ru"])
def test_clean_speech_stays_clean(enhancer, language):
    clean = utterance(language)
    assert pesq(clean, enhancer.enhance(clean)) > 4.3


def test_silence_stays_silence(enhancer):
    assert not enhancer.enhance(np.zeros(16000, dtype="float32")).any()


def test_the_command_line_takes_it_by_itself(enhancer, unseen, tmp_path):
    audio.write(tmp_path / "noisy.wav", unseen)
    with pytest.raises(SystemExit) as stop:
        cli.main(["enhance", f"{tmp_path}/noisy.wav", "-o", f"{tmp_path}/enhanced.wav"])
    assert stop.value.code == 0
    noisy = audio.read(tmp_path / "noisy.wav")
    expected = CFFMAEnhancer.from_pretrained().pack().enhance(noisy)
    enhanced = audio.read(tmp_path / "enhanced.wav")
    np.testing.assert_allclose(enhanced, expected, atol=1.1 / 2**15)
