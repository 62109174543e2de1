"""The form of samples: array or tensor, type, device and shape.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import numpy as np
import torch

from speechbrain_cffma.errors import InputError

#: Full scale of the integer types.
FULL_SCALE = {torch.int16: 2**15, torch.int32: 2**31}


class Form:
    """The form of the input, so that the output gets the same form.

    Arguments
    ---------
    block : np.ndarray or torch.Tensor
        The first block of the signal.
    """

    def __init__(self, block):
        self.is_tensor = isinstance(block, torch.Tensor)
        block = self._tensor(block)
        self.dtype, self.device, self.shape = (
            block.dtype,
            block.device,
            block.shape[:-1],
        )
        self.n_samples = 0
        if not (self.dtype in FULL_SCALE or self.dtype.is_floating_point):
            raise InputError(
                f"samples of type {self.dtype} can't be enhanced: use float, int16 or int32"
            )
        if not 1 <= block.dim() <= 3 or 0 in self.shape:
            raise InputError(
                "a waveform must have shape [samples], [channels, samples] or [batch, "
                f"channels, samples], not {tuple(block.shape)}"
            )

    def rows(self, block):
        """Check a block and return its samples [rows, n], float32 in [-1, 1], on the CPU."""
        block = self._tensor(block)
        if (block.dtype, block.shape[:-1]) != (self.dtype, self.shape):
            raise InputError(
                f"a block is {block.dtype} {tuple(block.shape)}: it must be {self.dtype} "
                f"{(*self.shape, '...')}, as the first block"
            )
        samples = block.detach().cpu().float() / FULL_SCALE.get(self.dtype, 1)
        faults = (~torch.isfinite(samples)).nonzero()
        if len(faults):
            *row, sample = faults[0].tolist()
            names = ("item", "channel")[2 - len(row) :]
            place = "".join(f", {n} {i}" for n, i in zip(names, row, strict=True))
            value = samples[tuple(faults[0])].item()
            raise InputError(
                f"sample {self.n_samples + sample}{place} is {value}: it must be finite"
            )
        self.n_samples += block.shape[-1]
        return samples.reshape(math.prod(self.shape), block.shape[-1])

    def restore(self, rows):
        """Return samples [rows, n] in the form of the input."""
        samples = rows.reshape(*self.shape, rows.shape[1])
        if self.dtype in FULL_SCALE:
            scale = FULL_SCALE[self.dtype]
            samples = (samples.double() * scale).round().clamp(-scale, scale - 1)
        samples = samples.to(self.device, self.dtype)
        return samples if self.is_tensor else samples.numpy()

    def _tensor(self, block):
        if self.is_tensor:
            return block
        block = np.asarray(block)
        native = block.dtype.newbyteorder("=")
        try:
            return torch.tensor(np.array(block, dtype=native, order="C"))
        except TypeError as error:
            raise InputError(
                f"samples of type {block.dtype} can't be enhanced: use float, int16 or int32"
            ) from error
