"""The report of a sweep: table.md, table.csv and a figure that compare its variants.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import json

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation.statistics import (
    LEVEL,
    N_RESAMPLES,
    bootstrap,
    t_interval,
)
from speechbrain_cffma.evaluation.tables import cell, heading, pipes
from speechbrain_cffma.files import CSV
from speechbrain_cffma.hub.complexity import count_parameters, multiply_adds_per_audio
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.metric_table import TABLE
from speechbrain_cffma.training.plots import save_figure


def plot_differences(path, base, names, panels):
    """Draw the differences between variants and a base variant, with their intervals.

    Arguments
    ---------
    path : str or Path
        The PNG or SVG to write.
    base : str
        Name of the base variant.
    names : list of str
        Names of the variants [N].
    panels : dict
        For each heading: low, mean and high [N] (NaN: not drawn), and for each variant the
        list of its differences with single seeds [N].

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.svg"
    >>> panel = [0.1], [0.2], [0.3], [[0.15, 0.25]]
    >>> plot_differences(path, "published", ["without SCTA"], {"PESQ": panel})
    >>> path.exists()
    True
    """
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    # Text stays text in an SVG, and the same values give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cffma", "font.size": 9}):
        figure = Figure(
            figsize=(1.6 + 2.1 * n_columns, 0.3 + n_rows * (0.6 + 0.2 * len(names))),
            layout="constrained",
        )
        axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
        places = np.arange(len(names))
        for axis, (title, (low, mean, high, seeds)) in zip(
            axes, panels.items(), strict=False
        ):
            axis.axvline(0, color="0.6", linewidth=1)
            axis.hlines(places, low, high, color="#2f81d6", linewidth=1.6)
            axis.plot(mean, places, "o", color="#2f81d6", markersize=4.5)
            ticks = [
                (value, place)
                for place, values in zip(places, seeds, strict=True)
                for value in values
            ]
            axis.plot(*zip(*ticks, strict=True), "|", color="0.35", markersize=6)
            axis.set_title(title, fontsize=9)
            axis.grid(alpha=0.2)
            axis.tick_params(length=0)
            for side in ("top", "right", "left"):
                axis.spines[side].set_visible(False)
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        figure.supxlabel(
            f"Difference to {base}: mean (dot), 95 % interval over the test files (bar), "
            "single seeds (ticks)",
            fontsize=9,
        )
        save_figure(figure, path)


#: Multiply-adds are counted for a recording of this length.
SECONDS = 10


def write_comparison(sweep):
    """Compare the variants of a sweep by its finished runs, and write the report.

    Arguments
    ---------
    sweep : Sweep
        Sweep from `sweep.read_sweep`.

    Returns
    -------
    str
        The tables that table.md holds.

    Raises
    ------
    InputError
        If runs were tested on different files or with different metrics.
    """
    comparison = compare(sweep)
    text = markdown(comparison)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    (sweep.folder / "table.md").write_text(text, encoding="utf-8")
    if comparison["variants"]:
        _write_csv(sweep.folder / "table.csv", comparison)
        for suffix in ("svg", "png"):
            _draw(sweep.folder / f"figure.{suffix}", comparison)
    return text


def compare(sweep):
    """Compute means, paired differences and sizes of the variants of a sweep.

    Arguments
    ---------
    sweep : Sweep
        Sweep from `sweep.read_sweep`.

    Returns
    -------
    dict
        base (the name of the first variant), metrics, n (number of test files), settings
        (of the scoring), noisy (means of the noisy files), missing (for each variant the
        seeds of unfinished runs) and variants. Each variant has seeds, size (see
        `model_size`), scores and, if the base has finished with one of the seeds,
        difference. Scores and difference hold mean, low and high (None if not defined) for
        each metric. A difference also holds seeds: its mean for each seed.

    Raises
    ------
    InputError
        If runs were tested on different files or with different metrics.
    """
    done = [run for run in sweep.runs if run.is_finished()]
    missing = {}
    for run in sweep.runs:
        if run not in done:
            missing.setdefault(run.variant, []).append(run.seed)
    base = sweep.variants[0]
    comparison = {"base": base, "missing": missing, "variants": {}}
    if not done:
        return comparison
    settings, ids, noisy = _read(done[0], "noisy")
    metrics = settings["metrics"]
    scores = {}  # variant: seed: scores [files, metrics]
    for run in done:
        if not _comparable(_read(run, "noisy"), (settings, ids, noisy)):
            raise InputError(
                f"{done[0].folder} and {run.folder} were tested on different files or with "
                "different metrics, so their scores can't be compared: test both again on the same files"
            )
        scores.setdefault(run.variant, {})[run.seed] = _read(run, "enhanced")[2]
    for name in (name for name in sweep.variants if name in scores):
        by_seed = scores[name]
        run = next(run for run in done if run.variant == name)
        means = [np.nanmean(values, axis=0) for values in by_seed.values()]
        comparison["variants"][name] = {
            "seeds": list(by_seed),
            "size": model_size(run.folder / "model"),
            "scores": _by_metric(metrics, *t_interval(means)),
        }
        shared = [seed for seed in by_seed if seed in scores.get(base, {})]
        if name != base and shared:
            differences = np.stack([by_seed[s] - scores[base][s] for s in shared])
            # The mean over the seeds for each file; NaN if a seed has no score for it.
            entry = _by_metric(metrics, *bootstrap(differences.mean(axis=0)))
            for i, metric in enumerate(metrics):
                entry[metric]["seeds"] = np.nanmean(differences[..., i], 1).tolist()
            comparison["variants"][name]["difference"] = entry
    noisy_means = dict(zip(metrics, np.nanmean(noisy, axis=0).tolist(), strict=True))
    return comparison | {
        "metrics": metrics,
        "n": len(ids),
        "settings": settings,
        "noisy": noisy_means,
    }


def model_size(folder):
    """Count the parameters and the multiply-adds of a trained model.

    Arguments
    ---------
    folder : str or Path
        A model folder.

    Returns
    -------
    dict
        The counts of `complexity.count_parameters`, and multiply_adds for `SECONDS`.
    """
    enhancer = CFFMAEnhancer.from_pretrained(folder)
    return {
        **count_parameters(enhancer),
        "multiply_adds": multiply_adds_per_audio(enhancer, SECONDS),
    }


def markdown(comparison):
    """The tables of a comparison, with a note that explains the figures.

    Arguments
    ---------
    comparison : dict
        Comparison from `compare`.

    Returns
    -------
    str
        Markdown.

    Example
    -------
    >>> print(markdown({"base": "a", "variants": {}, "missing": {"a": [1, 2]}}))
    Not finished: a (seed 1, 2).
    <BLANKLINE>
    """
    sections = []
    if comparison["variants"]:
        sections += [_scores(comparison), _sizes(comparison), _note(comparison)]
        if any("difference" in e for e in comparison["variants"].values()):
            sections.insert(1, _differences(comparison))
    if comparison["missing"]:
        missing = [
            f"{name} (seed {', '.join(map(str, seeds))})"
            for name, seeds in comparison["missing"].items()
        ]
        sections.append(f"Not finished: {'; '.join(missing)}.")
    return "\n\n".join(sections) + "\n"


def _read(run, system):
    """Read the settings, the IDs [N] and the scores [N, K] of a system's test files."""
    folder = run.folder / "test"
    try:
        settings = json.loads((folder / "summary.json").read_text(encoding="utf-8"))[
            "settings"
        ]
        with open(folder / "scores.csv", **CSV) as file:
            rows = [row for row in csv.DictReader(file) if row["system"] == system]
        rows.sort(key=lambda row: row["ID"])
        values = [[float(r[m] or "nan") for m in settings["metrics"]] for r in rows]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} holds no valid report of a run ({error!r}): remove it and run the "
            "sweep again"
        ) from error
    return settings, [row["ID"] for row in rows], np.array(values)


def _comparable(one, other):
    """Whether two runs scored the same files in the same way, as noisy scores show."""
    (settings, ids, scores), (other_settings, other_ids, other_scores) = one, other
    keys = ("metrics", "scale", "sample_rate")
    return (
        all(settings[key] == other_settings[key] for key in keys)
        and ids == other_ids
        and np.allclose(scores, other_scores, rtol=0, atol=1e-3, equal_nan=True)
    )


def _by_metric(metrics, *statistics):
    return {
        metric: {
            key: None if np.isnan(value) else float(value)
            for key, value in zip(("mean", "low", "high"), values, strict=True)
        }
        for metric, *values in zip(metrics, *statistics, strict=True)
    }


def _is_clear(difference):
    """Whether the interval over the test files and all seeds agree on the sign."""
    seeds = difference["seeds"]
    if difference["low"] is None or len(seeds) < 2:
        return False
    signs = {np.sign(x) for x in (difference["low"], difference["high"], *seeds)}
    return signs in ({1}, {-1})


def _scores(comparison):
    metrics = comparison["metrics"]
    header = ["variant", "seeds", *map(heading, metrics)]
    noisy = [f"{comparison['noisy'][m]:.{TABLE[m].digits}f}" for m in metrics]
    rows = [
        [
            name,
            str(len(entry["seeds"])),
            *(cell(entry["scores"][m], TABLE[m].digits) for m in metrics),
        ]
        for name, entry in comparison["variants"].items()
    ]
    return pipes([header, ["(noisy)", "", *noisy], *rows])


def _differences(comparison):
    metrics = comparison["metrics"]
    header = [f"paired difference to {comparison['base']}", *map(heading, metrics)]

    def shown(difference, metric):
        text = cell(difference, TABLE[metric].digits, "+")
        return f"**{text}**" if _is_clear(difference) else text

    rows = [
        [name, *(shown(entry["difference"][m], m) for m in metrics)]
        for name, entry in comparison["variants"].items()
        if "difference" in entry
    ]
    return pipes([header, *rows])


def _sizes(comparison):
    header = [
        "variant",
        "parameters of the head",
        "parameters",
        "trainable",
        f"multiply-adds for {SECONDS} s",
    ]
    rows = [
        [
            name,
            *(f"{entry['size'][key]:,}" for key in ("head", "all", "trainable")),
            f"{entry['size']['multiply_adds'] / 1e9:.2f} G",
        ]
        for name, entry in comparison["variants"].items()
    ]
    return pipes([header, *rows])


def _note(comparison):
    level = f"{100 * LEVEL:g} %"
    settings = comparison["settings"]
    versions = ", ".join(f"{name} {v}" for name, v in settings["versions"].items())
    return (
        f"Scores: means over {comparison['n']} test files and over the seeds, with {level} "
        "t intervals over the seeds (very wide for 2 seeds: 12.7 standard errors to each "
        "side; none for 1 seed). Differences: to the base with the same seed and file, "
        f"averaged over the seeds, with {level} bootstrap intervals ({N_RESAMPLES:,} "
        "resamples over the files). These intervals reflect the choice of test files, not "
        "the choice of seeds. **Bold**: the interval excludes 0, and at least 2 seeds agree "
        "on the sign, without exception; among many comparisons this happens by chance in "
        "some. The head is the network without the SSL model. Multiply-adds: matrix "
        "products, convolutions, attention and LSTMs, including the SSL model. "
        f"Scored at {settings['sample_rate']} Hz, sample scale {settings['scale']}. "
        f"Versions: {versions}."
    )


def _write_csv(path, comparison):
    rows = []
    for name, entry in comparison["variants"].items():
        row = {"variant": name, "seeds": " ".join(map(str, entry["seeds"]))}
        row |= {f"parameters_{k}": entry["size"][k] for k in ("head", "all")}
        row |= {k: entry["size"][k] for k in ("trainable", "multiply_adds")}
        for metric in comparison["metrics"]:
            score = entry["scores"][metric]
            row |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high")}
            # The base has none.
            difference = entry.get("difference", {}).get(metric, {})
            for key in ("mean", "low", "high"):
                row[f"{metric}_difference_{key}"] = difference.get(key)
            seeds = difference.get("seeds", [])
            row[f"{metric}_difference_seeds"] = " ".join(map(str, seeds))
        rows.append(row)
    with open(path, "w", **CSV) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _draw(path, comparison):
    differences = {
        name: entry["difference"]
        for name, entry in comparison["variants"].items()
        if "difference" in entry
    }
    if not differences:
        return

    def panel(metric):
        entries = [difference[metric] for difference in differences.values()]
        ends = [
            np.array([entry[key] for entry in entries], dtype=float)  # None: NaN
            for key in ("low", "mean", "high")
        ]
        return *ends, [entry["seeds"] for entry in entries]

    panels = {heading(metric): panel(metric) for metric in comparison["metrics"]}
    plot_differences(path, comparison["base"], list(differences), panels)
