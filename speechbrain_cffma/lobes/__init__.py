"""The lobes of BSS-CFFMA. Any SpeechBrain recipe can use each of them by `!new:`.

Tensors are [batch, time, channel]. `lengths` are SpeechBrain's relative lengths.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.versions import check_torch_pair

check_torch_pair()

from speechbrain_cffma.lobes.attention import RelativeSelfAttention  # noqa: E402
from speechbrain_cffma.lobes.blstm import BLSTM  # noqa: E402
from speechbrain_cffma.lobes.cffma import CFFMA, MaskEstimator  # noqa: E402
from speechbrain_cffma.lobes.enhancer import CFFMAEnhancer, load_enhancer  # noqa: E402
from speechbrain_cffma.lobes.fusion import (  # noqa: E402
    Concatenation,
    CrossAttentionFusion,
    EmbeddingOnly,
    SpectrogramOnly,
)
from speechbrain_cffma.lobes.mscff import (  # noqa: E402
    MSCFF,
    ConvGate,
    GatedFusion,
    OpenGate,
)
from speechbrain_cffma.lobes.refiner import Refiner  # noqa: E402
from speechbrain_cffma.lobes.rhma import (  # noqa: E402
    RHMA,
    FeedForward,
    PostNormBlock,
    PostNormStack,
)
from speechbrain_cffma.lobes.scta import (  # noqa: E402
    SCTA,
    SelectiveChannelAttention,
    SelectiveTimeAttention,
)
from speechbrain_cffma.lobes.spectrogram import LogSpectrogram  # noqa: E402
from speechbrain_cffma.lobes.ssl import NoEmbedding, SSLEmbedding  # noqa: E402
from speechbrain_cffma.lobes.ssl_models import load_ssl  # noqa: E402
from speechbrain_cffma.lobes.transformer import TransformerStack  # noqa: E402

__all__ = [
    "BLSTM",
    "CFFMA",
    "CFFMAEnhancer",
    "Concatenation",
    "ConvGate",
    "CrossAttentionFusion",
    "EmbeddingOnly",
    "FeedForward",
    "GatedFusion",
    "LogSpectrogram",
    "MSCFF",
    "MaskEstimator",
    "NoEmbedding",
    "OpenGate",
    "PostNormBlock",
    "PostNormStack",
    "RHMA",
    "Refiner",
    "RelativeSelfAttention",
    "SCTA",
    "SSLEmbedding",
    "SelectiveChannelAttention",
    "SelectiveTimeAttention",
    "SpectrogramOnly",
    "TransformerStack",
    "load_enhancer",
    "load_ssl",
]
