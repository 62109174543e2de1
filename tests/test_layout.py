"""The folders of the package: what may import what, and the names that stay."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import speechbrain_cffma
from speechbrain_cffma import lobes, metrics
from speechbrain_cffma.training.experiment import MOVED, read_experiment

PACKAGE = Path(speechbrain_cffma.__file__).parent
#: What YAMLs, saved model folders, custom.py and users' code name.
NAMES = [
    *(f"lobes.{name}" for name in lobes.__all__),
    *(f"metrics.{name}" for name in metrics.__all__),
    "cli.main",
    "inference.WINDOWS",
    "inference.Windows",
    "interface.EnhancerInterface",
    "losses.MultiResolutionLoss",
    "losses.PESQLoss",
    "losses.SISDRLoss",
    "losses.STOILoss",
    "metrics.stats.EnhancementStats",
    "pretrained.WeightsPretrainer",
    "pretrained.from_config",
    *(n.removeprefix("cffma.") for n in MOVED.values() if n.startswith("cffma.")),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_others_use_leads_somewhere(name):
    module, attribute = f"speechbrain_cffma.{name}".rsplit(".", 1)
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("old", [n for n in MOVED if n.startswith("cffma.")])
def test_an_experiment_of_0_1_0_names_what_has_moved(old, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(f"part: !name:speechbrain_{old}")
    assert f"!name:speechbrain_{MOVED[old]}" in read_experiment(path)


@pytest.mark.parametrize("old", ["measures", "ratings"])
def test_an_old_name_of_a_metric_says_the_new_one(old):
    with pytest.warns(DeprecationWarning, match=f"metrics.{old} is now "):
        assert callable(getattr(metrics, old))


def imports_of(path):
    """The modules of the package that a file imports when it is imported itself."""
    names = []
    # What functions import comes later.
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for part in ast.walk(node) if isinstance(node, ast.Try) else [node]:
            if isinstance(part, ast.ImportFrom) and part.module:
                names += [part.module, *(f"{part.module}.{a.name}" for a in part.names)]
            elif isinstance(part, ast.Import):
                names += [alias.name for alias in part.names]
    prefix = "speechbrain_cffma."
    return [n.removeprefix(prefix) for n in names if n.startswith(prefix)]


def rooms():
    """Which folders, and modules beside them, each of them imports."""
    edges = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room in ("__init__", "__main__"):
            continue
        found = {name.split(".")[0] for name in imports_of(path)}
        edges.setdefault(room, set()).update(found - {room, "__version__"})
    return edges


def test_no_folders_import_each_other():
    edges, above = rooms(), {}

    def visit(room, path):
        assert room not in path, " -> ".join([*path[path.index(room) :], room])
        if room not in above:
            for other in sorted(edges.get(room, ())):
                visit(other, [*path, room])
            above[room] = True

    for room in sorted(edges):
        visit(room, [])


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_lobes_load_neither_scores_nor_reports():
    loaded = loaded_by("import speechbrain_cffma.lobes")
    folders = {n.split(".")[1] for n in loaded if n.startswith("speechbrain_cffma.")}
    assert not folders & {"app", "data", "evaluation", "metrics", "training"}


def test_handing_files_to_workers_loads_no_torch():
    handing = "speechbrain_cffma.inference.enhance"
    loaded = loaded_by(f"import speechbrain_cffma.cli, {handing}")
    assert handing in loaded
    assert "torch" not in loaded


def test_scoring_loads_no_torch():
    scoring = "speechbrain_cffma.metrics.scoring"
    loaded = loaded_by(f"import speechbrain_cffma.evaluation.systems, {scoring}")
    assert scoring in loaded
    assert "torch" not in loaded
