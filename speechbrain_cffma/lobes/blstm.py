"""The recurrent enhancer of BSSE-SE, the predecessor of BSS-CFFMA, for comparison with RHMA.

Authors
 * The speechbrain-cffma developers 2026
"""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechbrain_cffma.lobes.layers import frame_mask
from speechbrain_cffma.registry import lobe


@lobe
class BLSTM(nn.Module):
    """Bidirectional LSTM layers; the two directions of the last layer are summed.

    After a `Concatenation` and with 256 channels it is the head of BSSE-SE
    (https://arxiv.org/abs/2204.03339).

    Arguments
    ---------
    dim : int
        Channels C of the input, of each direction and of the output.
    n_layers : int
        Number of layers.
    dropout : float
        Dropout between the layers.

    Example
    -------
    >>> import torch
    >>> blstm = BLSTM(256)
    >>> blstm(torch.rand(2, 10, 256)).shape
    torch.Size([2, 10, 256])
    >>> sum(parameter.numel() for parameter in blstm.parameters())
    2629632
    """

    def __init__(self, dim, n_layers=2, dropout=0.0):
        super().__init__()
        self.dim = dim
        self.n_layers = n_layers
        self.dropout = dropout
        self.layers = nn.LSTM(
            dim,
            dim,
            n_layers,
            batch_first=True,
            # LSTM drops out between layers only, and warns if there is just one.
            dropout=dropout if n_layers > 1 else 0.0,
            bidirectional=True,
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run over the valid frames in both directions.

        Arguments
        ---------
        x : torch.Tensor
            Features [B, T, C].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Features [B, T, C]; zero at padded frames.
        """
        n_frames = x.shape[1]
        mask = frame_mask(lengths, n_frames)
        if mask is None:
            hidden, _ = self.layers(x)
        else:
            # Packing lets the backward direction begin at the last valid frame.
            packed = pack_padded_sequence(
                x, mask.sum(dim=(1, 2)).cpu(), batch_first=True, enforce_sorted=False
            )
            hidden, _ = pad_packed_sequence(
                self.layers(packed)[0], batch_first=True, total_length=n_frames
            )
        return hidden.unflatten(2, (2, self.dim)).sum(dim=2)  # [B, T, 2C] -> [B, T, C]
