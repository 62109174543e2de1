"""The metrics: what each is called, how it is shown, and what computes it.

A new metric is one row here, and the function that it names. This module imports
nothing, so that `cffma evaluate --help` lists the metrics at once.

Authors
 * The speechbrain-cffma developers 2026
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """A row of the table.

    Arguments
    ---------
    function : str
        The function that computes it, in `speechbrain_cffma.metrics`. It takes the clean
        and the enhanced samples [S] and the sample rate, and returns a float. A function
        that computes several metrics at once returns a dict of their scores; it is
        called once for all of them.
    heading : str
        The name in tables.
    digits : int
        Decimals in tables.
    lower_is_better : bool
        True for distances.
    package : str or None
        The package that computes it; None if it is our own code.
    extra : str
        The extra of speechbrain-cffma that installs the package.
    has_scale : bool
        Whether the score depends on the scale of the samples, see `SCALES`.
    needs_clean : bool
        False for metrics of the enhanced signal alone. Their functions take the enhanced
        samples and the sample rate.
    """

    function: str
    heading: str
    digits: int = 2
    lower_is_better: bool = False
    package: str | None = None
    extra: str = "train"
    has_scale: bool = False
    needs_clean: bool = True


def _rating(heading):
    return Metric("composite.composite", heading, package="pesq", has_scale=True)


def _dnsmos(heading):
    return Metric(
        "nonintrusive.dnsmos",
        heading,
        package="speechmos",
        extra="dnsmos",
        needs_clean=False,
    )


#: Every metric by its name.
TABLE = {
    "pesq": Metric("intrusive.pesq", "PESQ", package="pesq"),
    "pesq_nb": Metric("intrusive.pesq_nb", "PESQ (narrow-band)", package="pesq"),
    "stoi": Metric("intrusive.stoi", "STOI", 3, package="pystoi"),
    "estoi": Metric("intrusive.estoi", "ESTOI", 3, package="pystoi"),
    "si_sdr": Metric("intrusive.si_sdr", "SI-SDR (dB)"),
    "ssnr": Metric("segmental.ssnr", "SSNR (dB)", has_scale=True),
    "llr": Metric("segmental.llr", "LLR", 3, lower_is_better=True, has_scale=True),
    "wss": Metric("segmental.wss", "WSS", lower_is_better=True, has_scale=True),
    "csig": _rating("CSIG"),
    "cbak": _rating("CBAK"),
    "covl": _rating("COVL"),
    "dnsmos_ovrl": _dnsmos("DNSMOS OVRL"),
    "dnsmos_sig": _dnsmos("DNSMOS SIG"),
    "dnsmos_bak": _dnsmos("DNSMOS BAK"),
    "dnsmos_p808": _dnsmos("DNSMOS P.808"),
    "srmr": Metric(
        "nonintrusive.srmr",
        "SRMR",
        package="torchmetrics",
        extra="srmr",
        needs_clean=False,
    ),
}
#: The metrics of most papers, which an evaluation computes unless others are named.
DEFAULT = ("pesq", "csig", "cbak", "covl", "ssnr", "stoi", "si_sdr")
#: The metrics of the validation during training.
BASIC = ("pesq", "stoi", "si_sdr")
#: Full scale of the samples that SSNR, LLR, WSS and the ratings measure, by name.
SCALES = {"int16": 32768.0, "unit": 1.0}

LOWER_IS_BETTER = {name for name, row in TABLE.items() if row.lower_is_better}
PACKAGES = {name: row.package for name, row in TABLE.items() if row.package}
