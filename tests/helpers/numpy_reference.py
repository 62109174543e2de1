"""The equations of BSS-CFFMA in float64 NumPy, with loops, for one utterance [T, C].

Written from the equations to check the lobes against, not for speed. `weights` are
those of a lobe as `weights_of` returns them.
"""

import math

import numpy as np


def weights_of(module):
    """The parameters of a module by name, as float64 arrays."""
    return {
        name: parameter.detach().double().numpy()
        for name, parameter in module.named_parameters()
    }


def part(weights, prefix):
    """The weights of a part, without its name as prefix."""
    return {
        name.removeprefix(prefix + "."): value
        for name, value in weights.items()
        if name.startswith(prefix + ".")
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(x, weights):
    return x @ weights["weight"].T + weights.get("bias", 0)


def layer_norm(x, weights, eps=1e-5):
    """Normalise each frame separately."""
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weights["weight"] + weights["bias"]


def global_layer_norm(x, weights, eps=1e-5):
    """Normalise over all frames and channels together."""
    variance = ((x - x.mean()) ** 2).mean()
    normalised = (x - x.mean()) / np.sqrt(variance + eps)
    return normalised * weights["weight"] + weights["bias"]


def conv(x, weights, dilation=1):
    """Centred convolution over time, zeros outside: [T, C_in] to [T, C_out]."""
    kernel = weights["weight"]  # [C_out, C_in, taps]
    out = np.zeros((len(x), len(kernel)))
    for t in range(len(x)):
        for tap in range(kernel.shape[2]):
            source = t + (tap - kernel.shape[2] // 2) * dilation
            if 0 <= source < len(x):
                out[t] += kernel[:, :, tap] @ x[source]
    return out + weights.get("bias", 0)


def hamming(n):
    """Periodic Hamming window."""
    return 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(n) / n)


def stft(wav, n_fft=400, hop=160):
    """Centred frames, reflect padding: [S] to complex [T, F]."""
    padded = np.pad(np.asarray(wav, dtype=np.float64), n_fft // 2, mode="reflect")
    window = hamming(n_fft)
    return np.stack(
        [
            np.fft.rfft(window * padded[start : start + n_fft])
            for start in range(0, len(padded) - n_fft + 1, hop)
        ]
    )


def log_spectrogram(wav):
    """log1p magnitude and unit phase [T, F]."""
    spectrum = stft(wav)
    magnitude = np.abs(spectrum) + 1e-6
    return np.log1p(magnitude), spectrum / magnitude


def inverse_log_spectrogram(log_magnitude, phase, length, n_fft=400, hop=160):
    """Overlap and add, divided by the sum of the squared windows."""
    spectrum = (np.expm1(log_magnitude) - 1e-6) * phase
    window = hamming(n_fft)
    total = np.zeros(n_fft + hop * (len(spectrum) - 1))
    weight = np.zeros_like(total)
    for t, frame in enumerate(spectrum):
        total[t * hop : t * hop + n_fft] += window * np.fft.irfft(frame, n_fft)
        weight[t * hop : t * hop + n_fft] += window**2
    start = n_fft // 2
    return (total / weight)[start : start + length]


def mscff(weights, spectrum, embedding, dilations=(1, 1, 1)):
    """u = Linear([S, L]); h = gLN(PReLU(conv(u))); three gates; the same Linear again.

    A gate without weights is open.
    """
    fuse = part(weights, "fuse")
    u = linear(np.concatenate([spectrum, embedding], axis=1), fuse)
    h = conv(u, part(weights, "bottleneck"))
    h = np.where(h > 0, h, weights["activation.weight"] * h)
    h = global_layer_norm(h, part(weights, "norm"))
    gate_s, gate_l, gate_u = (
        sigmoid(conv(h, part(weights, name), dilation)) if part(weights, name) else 1
        for name, dilation in zip(
            ("spectrum_gate", "embedding_gate", "fused_gate"), dilations, strict=True
        )
    )
    gated = np.concatenate([spectrum * gate_s, embedding * gate_l], axis=1)
    return np.maximum(linear(gated, fuse) + u * gate_u, 0)


def sinusoid(distance, dim):
    """Position vector of a distance: sin and cos alternate, from fast to slow."""
    vector = np.zeros(dim)
    for k in range(dim // 2):
        angle = distance / 10000 ** (2 * k / dim)
        vector[2 * k] = math.sin(angle)
        vector[2 * k + 1] = math.cos(angle)
    return vector


def relative_self_attention(weights, x):
    """Score of i for j: ((q_i + u) k_j + (q_i + v) W r_(i-j)) / sqrt(head channels)."""
    n_frames, dim = x.shape
    query = linear(x, part(weights, "query"))
    key = linear(x, part(weights, "key"))
    value = linear(x, part(weights, "value"))
    u, v = weights["content_bias"], weights["position_bias"]
    n_heads, head_dim = u.shape
    attended = np.zeros_like(x)
    for head in range(n_heads):
        channels = slice(head * head_dim, (head + 1) * head_dim)
        for i in range(n_frames):
            scores = np.zeros(n_frames)
            q = query[i, channels]
            for j in range(n_frames):
                position = weights["position.weight"] @ sinusoid(i - j, dim)
                scores[j] = (q + u[head]) @ key[j, channels]
                scores[j] += (q + v[head]) @ position[channels]
            scores = np.exp(scores / math.sqrt(head_dim))
            attended[i, channels] = scores / scores.sum() @ value[:, channels]
    return linear(attended, part(weights, "output"))


def positions(n_frames, dim):
    return np.stack([sinusoid(t, dim) for t in range(n_frames)])


def multi_head_attention(weights, queries, keys, n_heads):
    """Score of i for j: q_i k_j / sqrt(head channels); the values are the keys' frames."""
    query, key, value = (
        linear(x, {"weight": weight, "bias": bias})
        for x, weight, bias in zip(
            (queries, keys, keys),
            np.split(weights["in_proj_weight"], 3),
            np.split(weights["in_proj_bias"], 3),
            strict=True,
        )
    )
    head_dim = query.shape[1] // n_heads
    attended = np.zeros_like(query)
    for head in range(n_heads):
        channels = slice(head * head_dim, (head + 1) * head_dim)
        scores = np.exp(query[:, channels] @ key[:, channels].T / math.sqrt(head_dim))
        shares = scores / scores.sum(axis=1, keepdims=True)
        attended[:, channels] = shares @ value[:, channels]
    return linear(attended, part(weights, "out_proj"))


def cross_attention(weights, spectrum, embedding, n_heads=3):
    """s = Linear(S); LN(s + attention of s + P to Linear(L) + P)."""
    s = linear(spectrum, part(weights, "spectrum_layer"))
    keys = linear(embedding, part(weights, "embedding_layer"))
    p = positions(*s.shape)
    attended = multi_head_attention(
        part(weights, "attention"), s + p, keys + p, n_heads
    )
    return layer_norm(s + attended, part(weights, "norm"))


def transformer(weights, x, n_layers=2, n_heads=3):
    """x + P; then in each layer x = LN(x + attention(x)), x = LN(x + FFN(x)) with ReLU."""
    x = x + positions(*x.shape)
    for k in range(n_layers):
        layer = part(weights, f"layers.{k}")
        attended = multi_head_attention(part(layer, "self_attn"), x, x, n_heads)
        x = layer_norm(x + attended, part(layer, "norm1"))
        hidden = np.maximum(linear(x, part(layer, "linear1")), 0)
        x = layer_norm(x + linear(hidden, part(layer, "linear2")), part(layer, "norm2"))
    return x


def lstm(weights, x, name):
    """One direction of one layer: [T, C] to [T, C]."""
    h = c = np.zeros(weights[f"weight_hh_{name}"].shape[1])
    out = []
    for frame in x:
        gates = weights[f"weight_ih_{name}"] @ frame + weights[f"bias_ih_{name}"]
        gates += weights[f"weight_hh_{name}"] @ h + weights[f"bias_hh_{name}"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def blstm(weights, x, n_layers=2):
    """Layers of two directions, concatenated; those of the last layer are summed."""
    weights = part(weights, "layers")
    for k in range(n_layers):
        forward = lstm(weights, x, f"l{k}")
        backward = lstm(weights, x[::-1], f"l{k}_reverse")[::-1]
        x = np.concatenate([forward, backward], axis=1)
    return forward + backward


def feed_forward(weights, x):
    """Linear, SiLU, Linear."""
    hidden = linear(x, part(weights, "layers.0"))
    return linear(hidden * sigmoid(hidden), part(weights, "layers.3"))


def channel_attention(weights, x, share=0.5):
    """One gain per channel, from its maximum and its mean over time."""

    def mlp(vector):
        hidden = np.maximum(linear(vector, part(weights, "mlp.0")), 0)
        return linear(hidden, part(weights, "mlp.2"))

    m, v = mlp(x.max(axis=0)), mlp(x.mean(axis=0))
    gain = share / 2 * sigmoid(m) + share / 2 * sigmoid(v)
    return x * (gain + (1 - share) * sigmoid(m + v))


def time_attention(weights, x, share=0.5):
    """One gain per frame, from the mean and the maximum over its channels."""
    mean, maximum = x.mean(axis=1)[:, None], x.max(axis=1)[:, None]
    separate, joint = part(weights, "separate_conv"), part(weights, "joint_conv")
    gain = share / 2 * sigmoid(conv(mean, separate))
    gain += share / 2 * sigmoid(conv(maximum, separate))
    both = np.concatenate([mean, maximum], axis=1)
    return x * (gain + (1 - share) * sigmoid(conv(both, joint)))


def scta(weights, x, share=0.5):
    x = channel_attention(part(weights, "channel_attention"), x, share)
    return time_attention(part(weights, "time_attention"), x, share)


def rhma_block(weights, x):
    """Attention, FFN, SCTA, FFN, each x = LN(x + f(x)); then LN(x + the block's input)."""
    sub_blocks = (relative_self_attention, feed_forward, scta, feed_forward)
    block_input = x
    for k, sub_block in enumerate(sub_blocks):
        y = sub_block(part(weights, f"sub_blocks.{k}"), x)
        x = layer_norm(x + y, part(weights, f"norms.{k}"))
    return layer_norm(x + block_input, part(weights, "output_norm"))


def mask(weights, spectrum, embedding, n_blocks=2):
    """The whole head: MSCFF, Linear, RHMA blocks, Linear, sigmoid."""
    x = mscff(part(weights, "fusion"), spectrum, embedding)
    x = linear(x, part(weights, "input_layer"))
    for k in range(n_blocks):
        x = rhma_block(part(weights, f"enhancer.blocks.{k}"), x)
    return sigmoid(linear(x, part(weights, "output_layer")))


def n_ssl_frames(n_samples):
    """Frames of 400 samples every 320."""
    return (n_samples - 400) // 320 + 1


def ssl_embedding(weights, hidden_states, n_frames):
    """Softmax-weighted sum of the normalised layers [T_ssl, D], each frame twice, padded."""
    scalars = np.exp(weights["weights"])
    summed = sum(
        scalar / scalars.sum() * layer_norm(hidden, part(weights, f"norms.{k}"))
        for k, (scalar, hidden) in enumerate(zip(scalars, hidden_states, strict=True))
    )
    frames = [frame for frame in summed for _ in range(2)]
    while len(frames) < n_frames:
        frames.append(frames[-1])
    return np.stack(frames)
