"""What the tests and the examples in docstrings share: tiny SSL models and real speech.

It lies in the repository's root so that the package's doctests find it as well.
"""

import os

# Read when the HuggingFace libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# joblib, and the programs that tests start, begin no workers unless a number is asked for.
os.environ["LOKY_MAX_CPU_COUNT"] = "1"

import signal
from pathlib import Path

import pytest
import soundfile
import torch

# So small models gain nothing from threads, and lose much where the cores are busy.
torch.set_num_threads(1)

SPEECH_FOLDER = Path(__file__).parent / "recipes" / "DynamicMix" / "speech" / "en"

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    # Large weights, so that each of them matters in so small a model.
    "initializer_range": 0.2,
}
#: How the base and the large models of all three families differ, size aside.
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@pytest.fixture(scope="session", autouse=True)
def quiet_transformers():
    """No progress bars of transformers between the test results."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def hears_ctrl_c():
    """The programs that tests start hear it, also where these run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in each test, whichever tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ssl_folder(tmp_path_factory):
    """`ssl_folder("wavlm", large=False, **config)`: folder of a tiny random model (str).

    The family is wavlm, wav2vec2 or hubert. Further arguments go to its
    configuration. The same arguments give the same folder: leave it as it is.
    """
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    folders = {}

    def make(family, large=False, **config):
        key = repr((family, large, sorted(config.items())))
        if key not in folders:
            folder = tmp_path_factory.mktemp(family)
            config = {**TINY, **(LARGE if large else BASE), **config}
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = AutoModel.from_config(AutoConfig.for_model(family, **config))
            model.save_pretrained(folder)
            Wav2Vec2FeatureExtractor(do_normalize=large).save_pretrained(folder)
            folders[key] = str(folder)
        return folders[key]

    return make


@pytest.fixture
def tiny_wavlm(ssl_folder):
    """A tiny random WavLM in SpeechBrain's wrapper: 3 hidden states of 32 channels."""
    from speechbrain_cffma.lobes import load_ssl

    return load_ssl(ssl_folder("wavlm"))


@pytest.fixture
def call_all_here():
    """`workers.parallel_map` in this process: to start others takes longer than a small run."""
    from speechbrain_cffma.workers import Outcome

    def call_all(function, arguments, n_jobs, time_limits=None):
        for index, its_arguments in enumerate(arguments):
            yield Outcome(index, function(*its_arguments))

    return call_all


@pytest.fixture
def scored_here(call_all_here, monkeypatch):
    """Training and evaluation score in this process."""
    from speechbrain_cffma.metrics import scoring

    monkeypatch.setattr(scoring, "parallel_map", call_all_here)


@pytest.fixture
def tiny_enhancer(tiny_wavlm):
    """A tiny random network in eval mode."""
    from speechbrain_cffma.lobes import (
        CFFMA,
        CFFMAEnhancer,
        LogSpectrogram,
        SSLEmbedding,
    )

    mask_estimator = CFFMA(ssl_dim=32, fused_dim=48, dim=32)
    embedding = SSLEmbedding(tiny_wavlm)
    return CFFMAEnhancer(embedding, LogSpectrogram(), mask_estimator).eval()


@pytest.fixture
def speechmos():
    """Skips what needs the package of DNSMOS where it is not installed."""
    pytest.importorskip("speechmos")


@pytest.fixture
def torchmetrics():
    """Skips what needs the packages of SRMR where they are not installed."""
    pytest.importorskip("gammatone")
    pytest.importorskip("torchmetrics")


@pytest.fixture(scope="session")
def speech():
    """3 s of a real utterance, float32 tensor [S] at 16 kHz: clone before writing to it."""
    for path in sorted(SPEECH_FOLDER.rglob("*.opus"), key=lambda path: path.name):
        wav, sample_rate = soundfile.read(path, dtype="float32")
        if len(wav) > 2 * sample_rate:
            assert (sample_rate, wav.ndim) == (16000, 1), path
            return torch.from_numpy(wav[: 3 * sample_rate])
    raise FileNotFoundError(f"no speech of more than 2 s in {SPEECH_FOLDER}")
