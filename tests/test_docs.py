"""README and documentation: what they name exists. `make docs-check` runs the commands."""

import functools
import json
import pkgutil
import re
import shlex
from collections import Counter

import pytest

import sweep
from docs_check import PAGES, ROOT, TUTORIAL, commands, reason_not_to_run, shortened
from speechbrain_cffma.cli import cffma
from speechbrain_cffma.training.experiment import read_experiment
from speechbrain_cffma.training.overrides import (
    parse_command_line,
    run_options,
    split_overrides,
)

SWEEP_OPTIONS = {"jobs", "devices", "print-commands", "prepare-only", "report-only"}
SWEEP_OPTIONS |= {"engine", "address", "cpus", "gpus"}
#: Of other programs that the pages mention; `--key` stands for any.
OTHER_OPTIONS = {"nproc_per_node", "node_rank", "nnodes", "local-dir", "key"}
by_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


def text_of(path):
    return path.read_text(encoding="utf-8")


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def in_code(page):
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def command_lines(page):
    """All commands of a page, also those within its text."""
    lines = [c.text for c in commands(page) if c.language == "bash"]
    starts = ("python ", "cffma ", "make ", "pytest ", "pip ")
    return lines + [code for code in in_code(page) if code.startswith(starts)]


def options_of(words):
    return {w[2:].partition("=")[0] for w in words if re.match(r"--\w", w)}


def options_of_cffma(verb):
    parameters = cffma.commands[verb].params
    options = {option for p in parameters for option in (*p.opts, *p.secondary_opts)}
    return {option.removeprefix("--") for option in options} | {"help"}


# --- Links and paths


def anchors(page):
    """The headings of a page as links name them."""
    for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@by_page
def test_links_lead_somewhere(page):
    check_links(page, prose(page))


def test_links_of_the_tutorial_lead_somewhere():
    cells = json.loads(text_of(TUTORIAL))["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    check_links(TUTORIAL, "\n".join(texts))


def check_links(page, text):
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@by_page
def test_paths_of_the_repository_exist(page):
    folders = "benchmarks|docs|examples|hparams|recipes|speechbrain_cffma|tests"
    for path in re.findall(rf"(?<![\w/.])(?:{folders})/[\w./]*\w", text_of(page)):
        if not re.search(r"/[A-Z]+(/|$)", path):  # stands for any name
            assert (ROOT / path).exists(), path


@by_page
def test_names_of_the_package_exist(page):
    names = set(re.findall(r"\b(speechbrain_cffma(?:\.\w+)+)", text_of(page)))
    for name in names:
        assert pkgutil.resolve_name(name), name


def test_links_of_the_readme_work_on_a_package_index():
    """Once the metadata names a repository, they begin with its address."""
    found = re.search(r'^Repository = "(.+)"', text_of(ROOT / "pyproject.toml"), re.M)
    if found is None:
        pytest.skip("the metadata names no repository")
    targets = re.findall(r"\]\(([^)#]+)", prose(ROOT / "README.md"))
    assert not [t for t in targets if not t.startswith("https://")]


# --- Commands


@by_page
def test_commands_have_the_options_that_they_are_given(page):
    for line in command_lines(page):
        words = shlex.split(line)
        programs = [w for w in words if w == "cffma" or w.endswith(".py")]
        if "cffma" in programs:
            verb, *words = words[words.index("cffma") + 1 :]
            if not verb.startswith("-"):
                assert options_of(words) <= options_of_cffma(verb), line
        elif "train.py" in programs:
            check_experiment(*words[words.index("train.py") + 1 :])
        elif "sweep.py" in programs:
            check_sweep(words[words.index("sweep.py") + 1 :])
        elif programs and programs[0].startswith(("benchmarks", "examples")):
            program = text_of(ROOT / programs[0])
            assert not {o for o in options_of(words) if f"--{o}" not in program}, line


@functools.cache  # many pages have the same command
def check_experiment(*arguments):
    if "--help" in arguments:
        return
    path, _, overrides = parse_command_line(arguments)
    if path.startswith("hparams/"):
        read_experiment(ROOT / path, overrides)


def check_sweep(arguments):
    rest, overrides = split_overrides(arguments, SWEEP_OPTIONS)
    experiment = re.search(r"^experiment: (.*)$", text_of(ROOT / rest[0]), re.M)[1]
    path = (ROOT / rest[0]).parent / experiment
    overrides.pop("seeds", None)
    read_experiment(path, overrides)


def test_the_options_of_sweeps_are_these():
    assert set(vars(sweep._parser().parse_args(["a.yaml"]))) - {"sweep"} == {
        option.replace("-", "_") for option in SWEEP_OPTIONS
    }


@pytest.fixture(scope="module")
def keys():
    """All keys of the YAMLs."""
    texts = [text_of(path) for path in (ROOT / "hparams").rglob("*.yaml")]
    return set(re.findall(r"^(\w+):", "\n".join(texts), re.M))


@by_page
def test_options_in_the_text_exist(page, keys):
    known = keys | run_options() | SWEEP_OPTIONS | OTHER_OPTIONS
    for verb in cffma.commands:
        known |= options_of_cffma(verb)
    for path in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"--([\w-]+)"', text_of(path)))
    for code in in_code(page):
        if code.startswith("--"):
            assert options_of(shlex.split(code)) <= known, code


@by_page
def test_keys_in_tables_exist(page, keys):
    for header, rows in re.findall(
        r"^\| ((?:YAML )?key) \|.*\n\|[ -:|]*\n((?:\|.*\n)+)", prose(page), re.M
    ):
        for row in rows.splitlines():
            names = re.findall(r"`(\w+)`", row.split("|")[1])
            assert names, (header, row)
            assert set(names) <= keys, row


@by_page
def test_make_and_pytest_find_what_they_are_asked_for(page):
    makefile = text_of(ROOT / "Makefile")
    for line in command_lines(page):
        words = shlex.split(line)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M), line
        if words[0] == "pytest" and "-k" in words:
            tests = text_of(ROOT / words[1])
            name = words[words.index("-k") + 1]
            assert re.search(rf"def test_\w*{name}", tests), line
        for extra in re.findall(r"\.\[(\w+)\]", line):
            assert re.search(rf"^{extra} = \[", text_of(ROOT / "pyproject.toml"), re.M)


# --- Form


def test_the_readme_has_at_most_150_lines():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


def test_no_sentence_is_said_twice():
    said = Counter()
    for page in PAGES:
        text = re.sub(r"\s+", " ", re.sub(r"^\|.*$", "", prose(page), flags=re.M))
        sentences = {s.strip() for s in re.split(r"(?<=[.:])\s", text)}
        said.update(s for s in sentences if len(s.split()) > 7)
    assert not [sentence for sentence, times in said.items() if times > 1]


def test_the_tutorial_is_stored_with_its_outputs():
    cells = json.loads(text_of(TUTORIAL))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    kinds = {out["output_type"] for cell in code for out in cell["outputs"]}
    assert "display_data" in kinds
    assert "error" not in kinds
    assert TUTORIAL.stat().st_size < 1.5e6


def test_no_command_is_skipped_without_a_reason():
    lines = [c for page in PAGES for c in commands(page)]
    assert len([c for c in lines if reason_not_to_run(c) is None]) > 40
    placeholders = r"=(DIR|FOLDER|MODEL)\b"
    for command in lines:
        if command.language == "bash" and reason_not_to_run(command) is None:
            assert not re.search(placeholders, shortened(command.text)), command.text
