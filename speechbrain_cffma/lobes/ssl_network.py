"""WavLM, wav2vec 2.0 and HuBERT without transformers.

Importing transformers takes longer than enhancing a short recording, so the SSL models of
model folders are built from this module. Names of weights, shapes and outputs are those of
transformers' models, from which folders are saved.

The networks: wav2vec 2.0 (https://arxiv.org/abs/2006.11477, Section 2 and Appendix B),
HuBERT (https://arxiv.org/abs/2106.07447, Section II), WavLM
(https://arxiv.org/abs/2110.13900, Section III).

Authors
 * The speechbrain-cffma developers 2026
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from speechbrain_cffma.lobes.fast_ssl import (
    ACTIVATIONS,
    ChannelsLastConv1d,
    FastFeatureEncoder,
    FastWavLMAttention,
)

_SHARED = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": (512, 512, 512, 512, 512, 512, 512),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "apply_spec_augment": True,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_feature_prob": 0.0,
    "mask_feature_length": 10,
}
_ADAPTER = {
    "add_adapter": False,
    "adapter_kernel_size": 3,
    "adapter_stride": 2,
    "num_adapter_layers": 3,
    "output_hidden_size": None,
}
#: The values of a configuration that shape an encoder, and their defaults, by family.
DEFAULTS = {
    "wavlm": {**_SHARED, "num_buckets": 320, "max_bucket_distance": 800, **_ADAPTER},
    "wav2vec2": {
        **_SHARED,
        "mask_feature_min_masks": 0,
        **_ADAPTER,
        "adapter_attn_dim": None,
    },
    "hubert": {
        **_SHARED,
        "feat_proj_layer_norm": True,
        "conv_pos_batch_norm": False,
        "mask_feature_min_masks": 0,
    },
}


class SSLConfig:
    """The configuration of an SSL model: attributes named as in transformers.

    Arguments
    ---------
    model_type : str
        "wavlm", "wav2vec2" or "hubert".
    **values
        Values other than the defaults, which are those of the base models.

    Example
    -------
    >>> config = SSLConfig("wavlm", num_hidden_layers=24)
    >>> config.num_hidden_layers, config.hidden_size
    (24, 768)
    """

    def __init__(self, model_type, **values):
        self.model_type = model_type
        vars(self).update({**DEFAULTS[model_type], **values})
        if "output_hidden_size" in DEFAULTS[model_type]:
            self.output_hidden_size = self.output_hidden_size or self.hidden_size


class SSL(nn.Module):
    """An SSL model that returns all hidden states, in place of SpeechBrain's wrapper.

    Arguments
    ---------
    config : SSLConfig
        The model's configuration. Its masks of time and channels are switched off.
    normalize_wav : bool
        Whether waveforms are normalised to mean 0 and variance 1.

    Example
    -------
    >>> ssl = SSL(SSLConfig("hubert", num_hidden_layers=2), normalize_wav=False)
    >>> [hidden.shape for hidden in ssl(torch.randn(1, 8000))]
    [torch.Size([1, 24, 768]), torch.Size([1, 24, 768]), torch.Size([1, 24, 768])]
    """

    # Attributes of SpeechBrain's wrappers.
    freeze = False
    output_all_hiddens = True
    output_norm = False

    def __init__(self, config, normalize_wav):
        super().__init__()
        config.apply_spec_augment = False
        self.model = SSLNetwork(config)
        self.normalize_wav = normalize_wav

    def forward(self, wav: Tensor, lengths: None = None) -> list[Tensor]:
        """Embed waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S] at 16 kHz.
        lengths : None
            An argument of SpeechBrain's wrappers: `SSLEmbedding` handles padding itself.

        Returns
        -------
        list of torch.Tensor
            The input of the transformer and the output of each layer, [B, T, C] each.
        """
        if self.normalize_wav:
            wav = F.layer_norm(wav, wav.shape[1:])
        return self.model(wav).hidden_states


class _Output(NamedTuple):
    last_hidden_state: Tensor
    hidden_states: list


class SSLNetwork(nn.Module):
    """A WavLM, wav2vec 2.0 or HuBERT without heads.

    Arguments
    ---------
    config : SSLConfig
        The configuration.

    Example
    -------
    >>> network = SSLNetwork(SSLConfig("wavlm", num_hidden_layers=2))
    >>> network(torch.randn(1, 8000)).last_hidden_state.shape
    torch.Size([1, 24, 768])
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.feature_extractor = FastFeatureEncoder(config)
        self.feature_projection = FeatureProjection(config)
        if config.mask_time_prob > 0 or config.mask_feature_prob > 0:
            # Pre-training puts it in place of frames. Here it only keeps its weights.
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size))
            nn.init.uniform_(self.masked_spec_embed)
        self.encoder = Encoder(config)
        # It follows the last layer, so no hidden state depends on it.
        self.adapter = Adapter(config) if getattr(config, "add_adapter", 0) else None

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = True,
    ) -> _Output:
        """Compute all hidden states, as transformers' models do.

        Arguments
        ---------
        input_values : torch.Tensor
            Waveforms [B, S], or what the feature extractor makes of them [B, C, T].
        attention_mask : torch.Tensor or None
            True for the valid samples [B, S], which come first.
        output_hidden_states : bool
            Not used: they are always returned.

        Returns
        -------
        last_hidden_state : torch.Tensor
            Output [B, T, C] of the encoder.
        hidden_states : list of torch.Tensor
            The input of the transformer and the output of each layer, [B, T, C] each.
        """
        features = self.feature_extractor(input_values).mT  # [B, T, C]
        mask = None
        if attention_mask is not None:
            mask = self._valid_frames(attention_mask.sum(1), features.shape[1])
        return self.encoder(self.feature_projection(features), mask)

    def _valid_frames(self, n_valid, n_frames):
        """Mark the frames [B, T] that see only valid samples; all, if there is none."""
        for kernel, stride in zip(
            self.config.conv_kernel, self.config.conv_stride, strict=True
        ):
            n_valid = (n_valid - kernel) // stride + 1
        n_valid = n_valid.masked_fill(n_valid < 1, n_frames).unsqueeze(1)
        return torch.arange(n_frames, device=n_valid.device) < n_valid


class FeatureProjection(nn.Module):
    """Maps the channels of the feature encoder to those of the transformer.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        n_features = config.conv_dim[-1]
        self.layer_norm = nn.Identity()
        if getattr(config, "feat_proj_layer_norm", True):
            self.layer_norm = nn.LayerNorm(n_features, eps=config.layer_norm_eps)
        self.projection = nn.Linear(n_features, config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, x):
        """Map [B, T, C] to [B, T, hidden_size]."""
        return self.dropout(self.projection(self.layer_norm(x)))


class Encoder(nn.Module):
    """The transformer: a convolution that tells positions, and layers of attention.

    Arguments
    ---------
    config : SSLConfig
        The configuration. With `do_stable_layer_norm`, as in the large models, norms
        precede the parts of a layer rather than follow them.
    """

    def __init__(self, config):
        super().__init__()
        self.norm_first = config.do_stable_layer_norm
        self.pos_conv_embed = PositionalConvolution(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index) for index in range(config.num_hidden_layers)
        )

    def forward(self, x, mask=None):
        """Compute all hidden states from [B, T, C]; `mask` [B, T] is True if valid."""
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(2), 0.0)
        x = x + self.pos_conv_embed(x)
        if not self.norm_first:
            x = self.layer_norm(x)
        x = self.dropout(x)
        hidden_states, position_bias = [x], None
        for layer in self.layers:
            x, position_bias = layer(x, mask, position_bias)
            hidden_states.append(x)
        return _Output(self.layer_norm(x) if self.norm_first else x, hidden_states)


class PositionalConvolution(nn.Module):
    """A grouped convolution over time, whose output tells a frame's position.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        dim, size = config.hidden_size, config.num_conv_pos_embeddings
        groups = config.num_conv_pos_embedding_groups
        conv = ChannelsLastConv1d(dim, dim, size, padding=size // 2, groups=groups)
        self.batch_norm = None
        if getattr(config, "conv_pos_batch_norm", False):
            self.batch_norm = nn.BatchNorm1d(dim)
            self.conv = conv
        else:
            self.conv = register_parametrization(conv, "weight", WeightNorm())
        self.activation = ACTIVATIONS[config.feat_extract_activation]()

    def forward(self, x):
        """Convolve [B, T, C]."""
        n_frames = x.shape[1]
        x = x.transpose(1, 2)
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        # An even kernel gives one frame more.
        return self.activation(self.conv(x)[..., :n_frames]).transpose(1, 2)


class WeightNorm(nn.Module):
    """A kernel as the product of a length for each tap and a direction of length 1.

    torch's own computes norms even on the meta device, for which it imports its compiler.

    Example
    -------
    >>> weight = torch.randn(4, 2, 3)
    >>> norm = WeightNorm()
    >>> torch.allclose(norm(*norm.right_inverse(weight)), weight)
    True
    """

    def forward(self, length, direction):
        """The kernel [C_out, C_in, K] of a length [1, 1, K] and a direction."""
        # Not is_meta, which is true while a program is exported.
        if direction.device.type == "meta":
            return direction
        return torch._weight_norm(direction, length, 2)

    def right_inverse(self, weight):
        """A length and a direction of which the kernel is the product."""
        if weight.is_meta:
            return weight.new_empty(1, 1, weight.shape[2]), weight
        return torch.norm_except_dim(weight, 2, 2), weight


class EncoderLayer(nn.Module):
    """A layer of the transformer: self-attention and a feed-forward network.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    index : int
        Number of the layer.
    """

    def __init__(self, config, index):
        super().__init__()
        dim, eps = config.hidden_size, config.layer_norm_eps
        self.norm_first = config.do_stable_layer_norm
        if config.model_type == "wavlm":
            self.attention = FastWavLMAttention(config, has_position_bias=index == 0)
        else:
            self.attention = SelfAttention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(dim, eps=eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(dim, eps=eps)
        self.adapter_layer = None
        if self.norm_first and getattr(config, "adapter_attn_dim", None):
            self.adapter_layer = AttentionAdapter(config)

    def forward(self, x, mask=None, position_bias=None):
        """Map [B, T, C] to [B, T, C], and hand on the bias of the first layer."""
        attended = self.layer_norm(x) if self.norm_first else x
        attended, _, position_bias = self.attention(attended, mask, position_bias)
        x = x + self.dropout(attended)
        if self.norm_first:
            x = x + self.feed_forward(self.final_layer_norm(x))
            if self.adapter_layer is not None:
                x = x + self.adapter_layer(x)
        else:
            x = self.layer_norm(x)
            x = self.final_layer_norm(x + self.feed_forward(x))
        return x, position_bias


class SelfAttention(nn.Module):
    """Multi-head self-attention without positions, as in wav2vec 2.0 and HuBERT.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x, attention_mask=None, position_bias=None):
        """Attend, called as `FastWavLMAttention`; there is no position bias."""
        query, key, value = (
            project(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if attention_mask is not None:
            attention_mask = attention_mask[:, None, None]  # [B, 1, 1, T]
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None, None


class FeedForward(nn.Module):
    """The feed-forward network of a layer.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        self.intermediate_dense = nn.Linear(
            config.hidden_size, config.intermediate_size
        )
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x):
        """Map [B, T, C] to [B, T, C]."""
        x = self.intermediate_dropout(self.activation(self.intermediate_dense(x)))
        return self.output_dropout(self.output_dense(x))


class AttentionAdapter(nn.Module):
    """A small network after a layer, which multilingual wav2vec 2.0 models have
    (https://arxiv.org/abs/2305.13516, Section 3.3).

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        dim, inner = config.hidden_size, config.adapter_attn_dim
        self.norm = nn.LayerNorm(dim)
        self.linear_1 = nn.Linear(dim, inner)
        self.linear_2 = nn.Linear(inner, dim)

    def forward(self, x):
        """Map [B, T, C] to [B, T, C]."""
        return self.linear_2(F.relu(self.linear_1(self.norm(x))))


class Adapter(nn.Module):
    """The convolutions that some models have after the encoder: only their weights.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    def __init__(self, config):
        super().__init__()
        dim = config.output_hidden_size
        if dim != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, dim)
            self.proj_layer_norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv1d(dim, 2 * dim, config.adapter_kernel_size)})
            for _ in range(config.num_adapter_layers)
        )
