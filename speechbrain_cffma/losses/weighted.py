"""The training loss: a weighted sum of named terms.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.errors import InputError

#: The term of the log1p magnitudes; all others compare waveforms.
LOG1P = "log1p"


class WeightedSum:
    """Sums terms of the loss by their weights.

    Arguments
    ---------
    log1p : callable or None
        Compares log1p magnitudes [B, T, F], as `log1p(enhanced, clean, length=None)`,
        like the losses in `speechbrain.nnet.losses`. Its name is "log1p".
    waveform : callable, dict or None
        Compares waveforms [B, S], as `waveform(enhanced, clean)`; for padded batches
        also with `lengths`. Several are given by their names, one has the name
        "waveform".
    weights : dict or None
        The weight of each term by its name; terms of weight 0 are not computed. None:
        1 for each.

    Raises
    ------
    InputError
        If a term can't be called, a weight is missing, fits no term or is negative, or
        all are 0.

    Example
    -------
    >>> import torch
    >>> from speechbrain.nnet.losses import l1_loss
    >>> from speechbrain_cffma.losses import SISDRLoss
    >>> terms = {"si_sdr": SISDRLoss()}
    >>> loss = WeightedSum(l1_loss, terms, {"log1p": 1.0, "si_sdr": 0.1})
    >>> wavs, spectra = torch.randn(2, 1, 800), torch.rand(2, 1, 6, 201)
    >>> total, values = loss(wavs, spectra)
    >>> sorted(values), bool(total == values["log1p"] + 0.1 * values["si_sdr"])
    (['log1p', 'si_sdr'], True)
    """

    def __init__(self, log1p, waveform=None, weights=None):
        if not isinstance(waveform, dict):
            waveform = {} if waveform is None else {"waveform": waveform}
        if LOG1P in waveform:
            raise InputError(f"waveform_loss: {LOG1P!r} is the name of the key loss")
        terms = {LOG1P: log1p, **waveform}
        terms = {name: term for name, term in terms.items() if term is not None}
        for name, term in terms.items():
            if not callable(term):
                raise InputError(f"the loss {name} is {term!r}, which can't be called")
        self.weights = _checked(weights, terms)
        self.terms = {name: terms[name] for name in self.weights}

    @property
    def needs_waveform(self):
        """Whether any term compares waveforms."""
        return any(name != LOG1P for name in self.terms)

    def __call__(self, wavs, spectra, lengths=None):
        """Compute the loss.

        Arguments
        ---------
        wavs : (torch.Tensor, torch.Tensor)
            Enhanced and clean waveforms [B, S]; the enhanced may be None without terms
            that compare waveforms.
        spectra : (torch.Tensor, torch.Tensor)
            Enhanced and clean log1p magnitudes [B, T, F].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        loss : torch.Tensor
            The weighted sum, a scalar.
        values : dict
            The terms without their weights, by name: scalars without a gradient.
        """
        # Terms that know no lengths are fine where nothing is padded.
        padded = {} if lengths is None else {"lengths": lengths}
        values = {
            name: term(*spectra, length=lengths)
            if name == LOG1P
            else term(*wavs, **padded)
            for name, term in self.terms.items()
        }
        loss = sum(self.weights[name] * value for name, value in values.items())
        return loss, {name: value.detach() for name, value in values.items()}


def _checked(weights, terms):
    """Weights above 0 by the names of their terms."""
    if weights is None:
        return dict.fromkeys(terms, 1.0)
    if not isinstance(weights, dict) or set(weights) != set(terms):
        raise InputError(
            f"loss_weights must give a weight to each of {', '.join(terms)} and to "
            f"nothing else, not {weights}; 0 leaves a term out"
        )
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise InputError(f"loss_weights: {name} is {weight!r}, not a number from 0")
    positive = {name: weights[name] for name in terms if weights[name]}
    if not positive:
        raise InputError("loss_weights: no term has a weight above 0")
    return positive
