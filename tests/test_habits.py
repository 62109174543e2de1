"""SpeechBrain's habits, where its checks of docstrings and of YAMLs apply.

Its `check_docstrings` wants an example in each public function and class, its
`check_yaml` that scripts and YAMLs name the same keys.
"""

import ast
import inspect
import re

import pytest

from helpers.paths import ROOT
from speechbrain_cffma import __version__, lobes, losses, metrics
from speechbrain_cffma.evaluation.statistics import summarize_systems
from speechbrain_cffma.evaluation.systems import evaluate, pair_systems
from speechbrain_cffma.inference import Windows
from speechbrain_cffma.interface import EnhancerInterface
from speechbrain_cffma.training.experiment import read_defaults

SOURCES = [
    path
    for path in sorted((ROOT / "speechbrain_cffma").rglob("*.py"))
    if path.parent.name != "default"  # a model folder, whose file has two lines
]
#: What other people's recipes are made of; the rest are parts of commands.
PARTS = ("lobes", "metrics", "losses", "noises", "mixing", "rooms", "data", "audio")
PARTS += ("files", "checkpoints", "conditions", "statistics", "spectra", "interface")
PARTS = [path for path in SOURCES if {path.stem, path.parent.name} & set(PARTS)]
#: Made for another one in the same file, whose example shows it.
SHOWN_ELSEWHERE = {
    "wrap_ssl",
    "FastWavLMAttention",
    "FastFeatureEncoder",
    "ConvLayer",
    "MetricError",
    # The parts of an SSLNetwork.
    "FeatureProjection",
    "Encoder",
    "EncoderLayer",
    "PositionalConvolution",
    "SelfAttention",
    "FeedForward",
    "AttentionAdapter",
    "Adapter",
}
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
SCRIPTS = [ROOT / "train.py", ROOT / "sweep.py", *SOURCES, *RECIPES]
EXPERIMENTS = sorted((ROOT / "hparams").glob("*.yaml"))
YAMLS = sorted((ROOT / "hparams").rglob("*.yaml"))
#: Keys that `read_experiment` and SpeechBrain's Brain read themselves.
READ_BY_NAME = {"variant", "pretrained", "__set_seed"}


def public_definitions(path, of_methods=False):
    """Public functions and classes of a file, or their public methods, with their names."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        if not of_methods:
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name[0] != "_":
                    yield f"{node.name}.{method.name}", method


def decorators(node):
    return {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}


def is_command(node):
    """Its docstring is what `--help` shows, or it ends the process."""
    return bool(decorators(node) & {"command", "cffma.command", "click.group"})


def returns_something(node):
    """Whether the function itself, not one inside it, returns or yields a value."""
    inner = {
        part
        for child in ast.walk(node)
        if child is not node and isinstance(child, ast.FunctionDef | ast.Lambda)
        for part in ast.walk(child)
    }
    return any(
        isinstance(part, ast.Return | ast.Yield | ast.YieldFrom)
        and getattr(part, "value", None) is not None
        for part in ast.walk(node)
        if part not in inner
    )


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", SOURCES + RECIPES, ids=ids(SOURCES + RECIPES))
def test_each_module_says_what_it_is_and_by_whom(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text
    assert "Authors" in text


def is_named_tuple(node):
    """Its fields are all there is to it."""
    return "NamedTuple" in [ast.unparse(base) for base in getattr(node, "bases", [])]


@pytest.mark.parametrize("path", PARTS, ids=ids(PARTS))
def test_each_public_function_and_class_has_an_example(path):
    lacking = [
        name
        for name, node in public_definitions(path)
        if ">>>" not in (ast.get_docstring(node) or "")
        and not is_named_tuple(node)
        and name not in SHOWN_ELSEWHERE
    ]
    assert not lacking


def said_of_all(path):
    """What the docstrings of a module and of its package say of all their functions."""
    files = (path, path.with_name("__init__.py"))
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return "\n".join(filter(None, map(ast.get_docstring, trees)))


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_public_functions_say_what_they_take_and_return(path):
    for name, node in public_definitions(path):
        text = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) or is_command(node):
            assert text, name
            continue
        text += "\n" + said_of_all(path)
        takes = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
        for argument in takes:
            assert re.search(rf"^.*\b{argument}\b.* : ", text, re.MULTILINE), (
                f"{name}: {argument}"
            )
        if returns_something(node):
            assert re.search(r"^(Returns|Yields)$", text, re.MULTILINE), name


@pytest.mark.parametrize("path", SOURCES + RECIPES, ids=ids(SOURCES + RECIPES))
def test_each_public_method_has_a_docstring(path):
    lacking = [
        name
        for name, node in public_definitions(path, of_methods=True)
        if not ast.get_docstring(node)
    ]
    assert not lacking


def opens_text(call):
    """Whether a call opens, reads or writes a file as text."""
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    of_other_files = ast.unparse(call.func) in ("av.open", "Image.open", "tarfile.open")
    parts = [part for argument in call.args for part in ast.walk(argument)]
    modes = [part.value for part in parts if isinstance(part, ast.Constant)]
    is_binary = any(re.fullmatch(r"[rwax+]*b[rwax+]*", str(mode)) for mode in modes)
    if name == "open":
        return not (is_binary or of_other_files)
    return name in ("read_text", "write_text")


PROGRAMS = [*SCRIPTS, ROOT / "setup.py", *ROOT.glob("benchmarks/*.py")]
PROGRAMS += ROOT.glob("examples/*.py")


@pytest.mark.parametrize("path", PROGRAMS, ids=ids(PROGRAMS))
def test_text_files_have_an_encoding_whatever_the_system_has(path):
    calls = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = [ast.unparse(c) for c in calls if isinstance(c, ast.Call) and opens_text(c)]
    assert not [c for c in calls if not re.search(r"encoding=|, 'utf-8'|\*\*CSV", c)]


# --- Tests


def test_tests_share_helpers_instead_of_importing_each_other():
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^(from|import) test_", text, re.MULTILINE), path.name


# --- Type hints


def public_interface():
    """What users call, by name: functions, and the methods of models, lobes and losses."""
    for module in (metrics, lobes):
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                yield name, getattr(module, name)
    for module in (lobes, losses):
        for name in module.__all__:
            if hasattr(getattr(module, name), "forward"):
                yield f"{name}.forward", getattr(module, name).forward
    methods = ["from_pretrained", "save_pretrained", "push_to_hub", "pack", "enhance"]
    for name in [*methods, "enhance_stream", "enhance_file"]:
        yield f"CFFMAEnhancer.{name}", getattr(lobes.CFFMAEnhancer, name)
    yield "EnhancerInterface.enhance_batch", EnhancerInterface.enhance_batch
    yield "Windows", Windows.__new__
    for function in (evaluate, pair_systems, summarize_systems):
        yield function.__name__, function


INTERFACE = dict(public_interface())


@pytest.mark.parametrize("name", INTERFACE)
def test_the_public_interface_has_type_hints(name):
    """mypy checks them; see pyproject.toml."""
    signature = inspect.signature(INTERFACE[name])
    hints = {key: p.annotation for key, p in signature.parameters.items()}
    hints["return"] = signature.return_annotation
    for receiver in ("self", "cls", "_cls"):
        hints.pop(receiver, None)
    if name == "Windows":  # a NamedTuple returns itself
        del hints["return"]
    assert not [key for key, hint in hints.items() if hint is inspect.Parameter.empty]


def test_the_package_says_that_it_has_type_hints():
    assert (ROOT / "speechbrain_cffma" / "py.typed").is_file()


# --- YAMLs


@pytest.mark.parametrize("path", EXPERIMENTS, ids=ids(EXPERIMENTS))
def test_an_experiment_begins_with_a_banner(path):
    rule, *comment = path.read_text(encoding="utf-8").splitlines()[:3]
    assert rule.startswith("# ####")
    assert comment[0].startswith("# ")


def test_the_seed_is_set_before_anything_is_made():
    tree = read_defaults(ROOT / "hparams" / "run.yaml")
    assert list(tree)[:2] == ["seed", "__set_seed"]


def keys_in_code():
    """What scripts and Brains read of the hparams."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    found = re.findall(r"hparams\.([a-z_]+)\b", text)
    found += re.findall(r"hparams\[\"([a-z_]+)\"\]", text)
    found += re.findall(r"only=\"([a-z_]+)\"", text)
    # Brain's own options, that a YAML may hold.
    found += ["max_grad_norm", "grad_accumulation_factor", "precision"]
    return set(found) | {"ckpt_interval_minutes"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=ids(EXPERIMENTS))
def test_each_key_of_an_experiment_is_used(path):
    tree = read_defaults(path)
    text = "\n".join(p.read_text(encoding="utf-8") for p in YAMLS)
    referred_to = set(re.findall(r"<([a-z_0-9]+)", text))
    unused = set(tree) - referred_to - keys_in_code() - READ_BY_NAME
    assert not unused


@pytest.mark.parametrize(
    ("module", "files"),
    [("base", ["run"]), ("brain", ["run", "enhancement", "network/cffma"])],
)
def test_each_key_that_training_reads_is_in_its_yaml(module, files):
    trees = [read_defaults(ROOT / "hparams" / f"{file}.yaml") for file in files]
    path = ROOT / "speechbrain_cffma" / "training" / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    read = set(re.findall(r"self\.hparams\.([a-z_]+)\b", text))
    assert read
    assert read <= set().union(*trees)


# --- Releases


def test_the_changelog_tells_what_this_version_changes():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{__version__}] - " in changelog
