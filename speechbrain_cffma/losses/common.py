"""Common functions of the losses of waveforms.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch

from speechbrain_cffma.lobes.layers import n_valid_samples

#: A clean waveform with a lower RMS is silent: -80 dB.
SILENCE = 1e-4


def cut(wav, lengths):
    """Set the padding of waveforms to zero.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms [B, S].
    lengths : torch.Tensor or None
        Relative lengths [B].

    Returns
    -------
    torch.Tensor
        Waveforms [B, S].

    Example
    -------
    >>> cut(torch.ones(1, 4), torch.tensor([0.5])).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    if lengths is None:
        return wav
    place = torch.arange(wav.shape[1], device=wav.device)
    padded = place >= n_valid_samples(lengths, wav.shape[1]).unsqueeze(1)
    return wav.masked_fill(padded, 0.0)


def mean_power(wav, lengths):
    """Mean power of the valid samples; the padding must be zero.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms [..., B, S].
    lengths : torch.Tensor or None
        Relative lengths [B].

    Returns
    -------
    torch.Tensor
        [..., B]

    Example
    -------
    >>> mean_power(torch.tensor([[2.0, 2.0, 0.0, 0.0]]), torch.tensor([0.5])).item()
    4.0
    """
    power = wav.square().mean(-1)
    return power if lengths is None else power / lengths


def mean_over_items(errors, lengths):
    """Mean of errors over the items, each with the same weight; padding must be zero.

    Arguments
    ---------
    errors : torch.Tensor
        [B, ...]
    lengths : torch.Tensor or None
        Relative lengths [B].

    Returns
    -------
    torch.Tensor
        The mean, a scalar.

    Example
    -------
    >>> errors = torch.tensor([[1.0, 0.0], [2.0, 4.0]])
    >>> mean_over_items(errors, torch.tensor([0.5, 1.0])).item()
    2.0
    """
    if lengths is None:
        return errors.mean()
    return (errors.flatten(1).mean(1) / lengths).mean()


def mean_of_active(values, clean, lengths):
    """Mean over the items whose clean reference is not silent.

    Arguments
    ---------
    values : torch.Tensor
        A value for each item [B].
    clean : torch.Tensor
        References [B, S], zero in the padding.
    lengths : torch.Tensor or None
        Relative lengths [B].

    Returns
    -------
    torch.Tensor
        The mean, a scalar; 0 if all references are silent.

    Example
    -------
    >>> clean = torch.tensor([[0.1, -0.1], [0.0, 0.0]])
    >>> mean_of_active(torch.tensor([1.0, 5.0]), clean, None).item()
    1.0
    """
    active = mean_power(clean, lengths) > SILENCE**2
    return torch.where(active, values, 0.0).sum() / active.sum().clamp(min=1)
