"""The training loss: a weighted sum of named terms.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.errors import InputError

#: Name of the term that compares log1p magnitudes; all others compare waveforms.
LOG1P = "log1p"


class WeightedSum:
    """The weighted sum of the terms of a loss.

    Arguments
    ---------
    log1p : callable or None
        Compares log1p magnitudes [B, T, F]. It is called as
        `log1p(enhanced, clean, length=None)`, like the losses in
        `speechbrain.nnet.losses`. Its name is "log1p".
    waveform : callable, dict or None
        Compares waveforms [B, S]. It is called as `waveform(enhanced, clean)`, for padded
        batches also with `lengths`. A dict gives several terms by name; a single term has
        the name "waveform".
    weights : dict or None
        The weight of each term by name; terms of weight 0 are not computed. None: all
        weights are 1.

    Raises
    ------
    InputError
        If there is no term, if a term is not callable, if weights and terms differ in their names, if a weight
        is negative, or if all weights are 0.

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
            raise InputError(
                f"waveform_loss has a term {LOG1P!r}, the name of the term in the key loss: "
                "give it another name"
            )
        terms = {LOG1P: log1p, **waveform}
        terms = {name: term for name, term in terms.items() if term is not None}
        if not terms:
            raise InputError(
                "loss and waveform_loss are both null: give at least one loss"
            )
        for name, term in terms.items():
            if not callable(term):
                raise InputError(
                    f"the loss {name} is {term!r}, which can't be called: give a function "
                    "or a module"
                )
        self.weights = _checked(weights, terms)
        self.terms = {name: terms[name] for name in self.weights}

    @property
    def needs_waveform(self):
        """Whether any term compares waveforms."""
        return any(name != LOG1P for name in self.terms)

    def __call__(self, wavs, log_magnitudes, lengths=None):
        """Compute the loss.

        Arguments
        ---------
        wavs : (torch.Tensor, torch.Tensor)
            Enhanced and clean waveforms [B, S]. The enhanced ones may be None if no term
            compares waveforms.
        log_magnitudes : (torch.Tensor, torch.Tensor)
            Enhanced and clean log1p magnitudes [B, T, F].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        loss : torch.Tensor
            The weighted sum, a scalar.
        values : dict
            The value of each term by name, before weighting: scalars without a gradient.
        """
        # Terms without an argument `lengths` work as long as nothing is padded.
        padded = {} if lengths is None else {"lengths": lengths}
        values = {
            name: term(*log_magnitudes, length=lengths)
            if name == LOG1P
            else term(*wavs, **padded)
            for name, term in self.terms.items()
        }
        loss = sum(self.weights[name] * value for name, value in values.items())
        return loss, {name: value.detach() for name, value in values.items()}


def _checked(weights, terms):
    """Check the weights; return those above 0, by name."""
    if weights is None:
        return dict.fromkeys(terms, 1.0)
    if not isinstance(weights, dict) or set(weights) != set(terms):
        raise InputError(
            f"loss_weights must give a weight to each of {', '.join(terms)} and to "
            f"nothing else, not {weights}; a weight of 0 switches a term off"
        )
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise InputError(
                f"loss_weights: {name} is {weight!r}, but must be a number of 0 or more"
            )
    positive = {name: weights[name] for name in terms if weights[name]}
    if not positive:
        raise InputError(
            "loss_weights: no term has a weight above 0; give at least one such weight"
        )
    return positive
