"""Small networks and lobes, and what the tests of several files ask of them."""

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
#: All networks; `contrast_stretching` changes the targets alone.
VARIANT_FILES = [
    path
    for path in sorted((HPARAMS / "variants").glob("*.yaml"))
    if path.stem != "contrast_stretching"
]
#: Each file, and two that make the predecessor together.
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
#: Lobes that take a spectrum [B, T, N_FREQS] and an embedding [B, T, SSL_DIM].
FUSING_LOBES = {
    "mscff": lambda: MSCFF(N_FREQS, SSL_DIM, FUSED_DIM),
    "cross_attention": lambda: CrossAttentionFusion(N_FREQS, SSL_DIM, DIM, n_heads=3),
    "cffma": small_cffma,
}


def perturbed(module):
    """The module in eval mode, each parameter moved so that no default hides a fault."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def padded_with_noise(short, long):
    """A batch of both; behind the short one lies noise, which nothing may depend on."""
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
    """A bias of an attention's keys adds the same to all scores: softmax takes it out,
    and what is left of its gradient is rounding."""
    return name.endswith((".key.bias", ".k_proj.bias"))


def enhancer_of(variant, experiment="mini", **options):
    """The network that `train.py` would build."""
    options = {"variant": variant, **options}
    overrides = {key: str(value) for key, value in options.items()}
    text = read_experiment(HPARAMS / f"{experiment}.yaml", overrides)
    return load_experiment(text, only="enhancer")
