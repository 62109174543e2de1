"""A straightforward implementation of the network, as a reference for speed and output.

It uses the eager attention of transformers in WavLM, all hidden states, explicit scores of
frames and distances, convolutions over [batch, channel, time], float32, and processes the
whole recording at once. It takes the weights of an enhancer; `tests/test_straightforward.py`
checks that both give the same output.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_cffma.lobes.attention import RelativeSelfAttention, relative_sinusoids


class Straightforward(nn.Module):
    """A straightforward enhancer with MSCFF and RHMA.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The enhancer whose weights are copied.
    """

    def __init__(self, enhancer):
        super().__init__()
        self.enhancer = copy.deepcopy(enhancer)
        ssl = self.enhancer.embedding.ssl
        fast, ssl.model = ssl.model, type(ssl.model)(ssl.model.config)
        ssl.model.load_state_dict(fast.state_dict())
        ssl.model.to(next(fast.parameters()).device)
        self.enhancer.embedding.set_fine_tune(enhancer.embedding.fine_tune)

    def forward(self, noisy):
        """Enhance waveforms [B, S]; return waveforms and log1p magnitude [B, T, F]."""
        spectrogram = self.enhancer.spectrogram
        log_magnitude, phase = spectrogram(noisy)
        embedding = self.embed(noisy, log_magnitude.shape[1])
        masked = self.mask(log_magnitude, embedding) * log_magnitude
        return spectrogram.inverse(masked, phase, noisy.shape[1]), masked

    def embed(self, noisy, n_frames):
        """The weighted sum of all hidden states [B, T, D]."""
        embedding = self.enhancer.embedding
        if embedding.ssl.normalize_wav:
            noisy = F.layer_norm(noisy, noisy.shape[1:])
        hidden = embedding.ssl.model(noisy, output_hidden_states=True).hidden_states
        hidden = hidden[embedding.first_layer :]
        normed = torch.stack(
            [f(h) for f, h in zip(embedding.norms, hidden, strict=True)]
        )
        shares = torch.softmax(embedding.weights, dim=0).view(-1, 1, 1, 1)
        summed = (shares * normed).sum(0)
        frames = torch.arange(n_frames, device=noisy.device) // 2
        return summed[:, frames.clamp(max=summed.shape[1] - 1)]

    def mask(self, log_magnitude, embedding):
        """The mask [B, T, F]."""
        estimator = self.enhancer.mask_estimator
        x = estimator.input_layer(self.fuse(log_magnitude, embedding))
        for block in estimator.enhancer.blocks:
            block_input = x
            for sub_block, norm in zip(block.sub_blocks, block.norms, strict=True):
                is_attention = isinstance(sub_block, RelativeSelfAttention)
                out = attend(sub_block, x) if is_attention else sub_block(x)
                x = norm(x + out)
            x = block.output_norm(x + block_input)
        return torch.sigmoid(estimator.output_layer(x))

    def fuse(self, log_magnitude, embedding):
        """MSCFF: [B, T, U]."""
        fusion = self.enhancer.mask_estimator.fusion
        fused = fusion.fuse(torch.cat([log_magnitude, embedding], dim=2))
        hidden = convolve(fusion.bottleneck, fused.transpose(1, 2))
        norm = fusion.norm
        hidden = F.group_norm(
            fusion.activation(hidden), 1, norm.weight, norm.bias, norm.eps
        )
        gates = [
            torch.sigmoid(convolve(gate, hidden)).transpose(1, 2)
            for gate in fusion.gates
        ]
        gated = torch.cat([log_magnitude * gates[0], embedding * gates[1]], dim=2)
        return torch.relu(fusion.fuse(gated) + fused * gates[2])


def convolve(layer, x):
    """A layer's convolution over [B, C, T]."""
    return F.conv1d(
        x, layer.weight, layer.bias, padding="same", dilation=layer.dilation
    )


def attend(attention, x):
    """Self-attention [B, T, C] with explicit distance scores for each pair of frames."""
    n_frames, n_heads = x.shape[1], attention.n_heads
    query, key, value = (
        project(x).unflatten(2, (n_heads, -1)).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    table = attention.position(relative_sinusoids(n_frames, attention.dim, x.device))
    table = table.unflatten(1, (n_heads, -1)).transpose(0, 1)  # [H, 2T - 1, C / H]
    frames = torch.arange(n_frames, device=x.device)
    # The table begins with the distance T - 1.
    index = n_frames - 1 - (frames.unsqueeze(1) - frames)  # [T, T]
    by_distance = (query + attention.position_bias.unsqueeze(1)) @ table.mT
    by_distance = by_distance.gather(3, index.expand(*by_distance.shape[:2], -1, -1))
    by_content = (query + attention.content_bias.unsqueeze(1)) @ key.mT
    scores = (by_content + by_distance) / math.sqrt(query.shape[3])
    attended = torch.softmax(scores, dim=3) @ value
    return attention.output(attended.transpose(1, 2).flatten(2))
