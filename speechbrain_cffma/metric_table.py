"""The table of metrics: name, heading, digits and the function of each.

To add a metric, add a row here and write the function that it names. This module
imports no other package, so that `cffma evaluate --help` is fast.

Authors
 * The speechbrain-cffma developers 2026
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """A row of the table: one metric.

    Arguments
    ---------
    function : str
        Module and function in `speechbrain_cffma.metrics`, such as "intrusive.pesq". The
        function takes the clean and the enhanced samples [S] and the sample rate, and
        returns a float. A function for several metrics returns a dict of scores by name,
        and is called once for all of them.
    heading : str
        The name in tables.
    digits : int
        Decimals in tables.
    lower_is_better : bool
        True for distances.
    package : str or None
        The package that computes the metric; None for our own code.
    extra : str
        The extra of speechbrain-cffma that installs the package.
    has_scale : bool
        Whether the score depends on the scale of the samples; see `SCALES`.
    needs_clean : bool
        False for metrics that need no clean reference. Their functions take the enhanced
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
#: The default metrics of an evaluation: those of most papers.
DEFAULT = ("pesq", "csig", "cbak", "covl", "ssnr", "stoi", "si_sdr")
#: The metrics of validation during training.
BASIC = ("pesq", "stoi", "si_sdr")
#: Full scale of the samples for SSNR, LLR, WSS, CSIG, CBAK and COVL, by name.
SCALES = {"int16": 32768.0, "unit": 1.0}

LOWER_IS_BETTER = {name for name, row in TABLE.items() if row.lower_is_better}
PACKAGES = {name: row.package for name, row in TABLE.items() if row.package}
