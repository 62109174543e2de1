"""Fixtures for the tests and for the examples in docstrings: tiny SSL models, real speech.

This file is in the repository's root so that the doctests of the package find it too.
"""

import os

# Read when the HuggingFace libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# joblib and the programs that tests start use no workers unless a test asks for them.
os.environ["LOKY_MAX_CPU_COUNT"] = "1"

import signal
from pathlib import Path

import pytest
import soundfile
import torch

# Threads don't speed up such small models, and slow them down if the cores are busy.
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
    # Large weights, so that each one matters in such a small model.
    "initializer_range": 0.2,
}
#: Differences between the base and the large models of all three families, besides size.
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@pytest.fixture(scope="session", autouse=True)
def quiet_transformers():
    """Switch off the progress bars of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def hears_ctrl_c():
    """Let the programs that tests start react to Ctrl-C, also if tests run in background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """Give each test the same random numbers, whichever tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ssl_folder(tmp_path_factory):
    """`ssl_folder("wavlm", large=False, **config)`: folder of a tiny random model (str).

    The family is wavlm, wav2vec2 or hubert. Further arguments go to its configuration.
    Tests share the folder for the same arguments, so they must not change it.
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
    """Skip a test if the package of DNSMOS is not installed."""
    pytest.importorskip("speechmos")


@pytest.fixture
def torchmetrics():
    """Skip a test if the packages of SRMR are not installed."""
    pytest.importorskip("gammatone")
    pytest.importorskip("torchmetrics")


@pytest.fixture
def pyarrow():
    """Skip a test if the package that reads folders, buckets and Parquet is missing."""
    pytest.importorskip("pyarrow")


@pytest.fixture(scope="session")
def speech():
    """3 s of a real utterance, float32 tensor [S] at 16 kHz; clone it before changing it."""
    for path in sorted(SPEECH_FOLDER.rglob("*.opus"), key=lambda path: path.name):
        wav, sample_rate = soundfile.read(path, dtype="float32")
        if len(wav) > 2 * sample_rate:
            assert (sample_rate, wav.ndim) == (16000, 1), path
            return torch.from_numpy(wav[: 3 * sample_rate])
    raise FileNotFoundError(f"no speech of more than 2 s in {SPEECH_FOLDER}")
