"""Small networks and lobes for the tests of several files."""

import copy
import functools

import torch

from helpers.paths import HPARAMS
from speechbrain_cffma.lobes import (
    BLSTM,
    CFFMA,
    MSCFF,
    RHMA,
    SCTA,
    CFFMAEnhancer,
    CrossAttentionFusion,
    FeedForward,
    LogSpectrogram,
    RelativeSelfAttention,
    SelectiveChannelAttention,
    SelectiveTimeAttention,
    SSLEmbedding,
    TransformerStack,
)
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

N_FREQS, SSL_DIM, FUSED_DIM, DIM = 9, 8, 14, 12
SHORT, LONG = 11, 17  # frames of two utterances
RELATIVE_LENGTHS = torch.tensor([SHORT / LONG, 1.0])
#: All variants of the network; `contrast_stretching` changes only the targets.
VARIANT_FILES = [
    path
    for path in sorted((HPARAMS / "variants").glob("*.yaml"))
    if path.stem != "contrast_stretching"
]
#: Each file, and the two files that together give the predecessor, BSSE-SE.
VARIANTS = [*(path.stem for path in VARIANT_FILES), "[fusion_concatenation, blstm]"]


def small_cffma():
    return CFFMA(N_FREQS, SSL_DIM, FUSED_DIM, DIM, n_blocks=2, n_heads=3)


#: Lobes that map [B, T, DIM] to the same shape.
SEQUENCE_LOBES = {
    "attention": lambda: RelativeSelfAttention(DIM, n_heads=3),
    "feed_forward": lambda: FeedForward(DIM),
    "channel_attention": lambda: SelectiveChannelAttention(DIM),
    "time_attention": SelectiveTimeAttention,
    "scta": lambda: SCTA(DIM),
    "rhma": lambda: RHMA(DIM, n_blocks=2, n_heads=3),
    "blstm": lambda: BLSTM(DIM),
    "transformer": lambda: TransformerStack(DIM, n_heads=3),
}
#: Lobes that take a log magnitude [B, T, N_FREQS] and an embedding [B, T, SSL_DIM].
FUSING_LOBES = {
    "mscff": lambda: MSCFF(N_FREQS, SSL_DIM, FUSED_DIM),
    "cross_attention": lambda: CrossAttentionFusion(N_FREQS, SSL_DIM, DIM, n_heads=3),
    "cffma": small_cffma,
}


def perturbed(module):
    """Perturb each parameter, so that no default value hides a fault; return in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def padded_with_noise(short, long):
    """A batch of both; noise pads the short one, and no result may depend on it."""
    filled = torch.cat([short, 3 * torch.randn(1, LONG - SHORT, short.shape[2])], 1)
    return torch.cat([filled, long])


def small_enhancer(ssl, **options):
    head = CFFMA(ssl_dim=32, fused_dim=16, dim=8, n_blocks=1, n_heads=2)
    return CFFMAEnhancer(
        SSLEmbedding(ssl, fine_tune="entire"),
        LogSpectrogram(),
        perturbed(head),
        **options,
    ).eval()


def is_cancelled(name):
    """Whether this is the bias of an attention's keys. It adds the same to all scores, so
    softmax removes it and its gradient is only rounding."""
    return name.endswith((".key.bias", ".k_proj.bias"))


def enhancer_of(variant, experiment="mini", **options):
    """The network that `train.py` builds for a variant."""
    return copy.deepcopy(_built(variant, experiment, **options))


@functools.lru_cache(maxsize=40)  # Reading an experiment takes longer than a copy.
def _built(variant, experiment, **options):
    options = {"variant": variant, **options}
    overrides = {key: str(value) for key, value in options.items()}
    text = read_experiment(HPARAMS / f"{experiment}.yaml", overrides)
    return load_experiment(text, only="enhancer")
