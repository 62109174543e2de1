"""Experiments: a YAML that includes others, read with overrides into objects.

HyperPyYAML's `!include` nests what it includes, so that it can't be overridden from the
command line. Here the files of `include:` are merged key by key: a later file replaces
keys of an earlier one, the file that includes them replaces both, and variants and the
command line replace them all.

Authors
 * The speechbrain-cffma developers 2026
"""

import difflib
import io
import json
import os
import pydoc
import re
from dataclasses import fields
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.scalarstring import LiteralScalarString

from speechbrain_cffma.errors import CFFMAError, InputError, one_line
from speechbrain_cffma.files import of_project

#: Keys that hold a path, in addition to those with `_PATH_ENDINGS`.
_PATHS = {"corpus", "metadata", "pretrained"}
_PATH_ENDINGS = ("_folder", "_manifest", "_source", "_path")
#: Keys that hold a folder or a list of folders.
_LIST_ENDINGS = ("speech_folder", "noise_folder", "rir_folder")
#: Keys that hold text even if their default is null.
_TEXTS = {"experiment", "license", "pair_by", "test_data", "training_data"}
#: Parts of names in experiments and runs of 0.1.0, and what they are now.
MOVED = {
    "cffma.brain.EnhancementBrain": "cffma.training.brain.EnhancementBrain",
    "cffma.checkpoints.AtomicCheckpointer": "cffma.training.checkpoints.AtomicCheckpointer",
    "cffma.data.RecordedPairs": "cffma.data.datasets.RecordedPairs",
    "cffma.data.TrainingCrops": "cffma.data.datasets.TrainingCrops",
    "cffma.mixing.DynamicMixer": "cffma.data.mixing.DynamicMixer",
    "heard_weight": "unmasked_weight",
    "DynamicMix.prepare.said_of_bundled": "DynamicMix.prepare.if_only_bundled",
}
#: Keys that runs of 0.1.0 lack, and the values that go on with them as before.
ADDED = {"best_metric": "pesq", "loss_weights": None, "target_transform": None}
#: Replaces "<" in texts while references, which begin with "<", are resolved.
_LESS_THAN = "\ue000"
#: Characters that YAML can't hold (YAML 1.2, section 5.1), and bytes that are not UTF-8.
_NOT_IN_YAML = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]"
)


def parse_command_line(argv):
    """Split a command line of `train.py`, as `speechbrain.parse_arguments` does.

    SpeechBrain turns the overrides into YAML, and each `=` in them into a space. Here the
    value of an override is the text after the first `=`, unchanged.

    Arguments
    ---------
    argv : list of str
        The experiment's YAML, options of SpeechBrain, and overrides: `--key=value`,
        `--key value`, or only `--key` to switch a boolean on.

    Returns
    -------
    path : str
        The YAML.
    options : speechbrain.RunOptions
        SpeechBrain's options.
    overrides : dict
        Texts by their keys, for `read_experiment`; True for a key without a value.

    Raises
    ------
    InputError
        If an argument has another form.

    Example
    -------
    >>> path, _, overrides = parse_command_line(["a.yaml", "--device=cpu", "--folder=lr=1"])
    >>> path, overrides
    ('a.yaml', {'folder': 'lr=1'})
    """
    import speechbrain as sb

    rest, overrides = split_overrides(argv, run_options() | {"help"})
    path, options, unknown = sb.parse_arguments(rest)
    if unknown:
        raise InputError(f"options have the form --key=value, unlike {unknown}")
    return path, options, overrides


def run_options():
    """The names of SpeechBrain's options, which are not overrides.

    Returns
    -------
    set of str
        Such as "device".

    Example
    -------
    >>> "device" in run_options()
    True
    """
    import speechbrain as sb

    return {field.name for field in fields(sb.RunOptions)}


def split_overrides(argv, options):
    """Separate the overrides of an experiment from the rest of a command line.

    Arguments
    ---------
    argv : list of str
        Arguments of the command line.
    options : set of str
        Names, without dashes, of options that are not overrides.

    Returns
    -------
    rest : list of str
        The other arguments.
    overrides : dict
        Texts by their keys; True for a key without a value.

    Example
    -------
    >>> split_overrides(["a.yaml", "--jobs", "2", "--lr", "0.1", "--download"], {"jobs"})
    (['a.yaml', '--jobs', '2'], {'lr': '0.1', 'download': True})
    """
    rest, overrides = [], {}
    waiting = list(argv)[::-1]
    while waiting:
        argument = waiting.pop()
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or key in options:
            rest.append(argument)
        elif equals:
            overrides[key] = value
        # Before the YAML, the next argument may be the YAML.
        elif rest and waiting and not waiting[-1].startswith("--"):
            overrides[key] = waiting.pop()
        else:
            overrides[key] = True
    return rest, overrides


def read_experiment(path, overrides=None):
    """Read an experiment's YAML with what it includes, variants and overrides.

    `include:` holds the path of another YAML, relative to the file that includes it, or
    a list of paths. A variant is a YAML in a folder `variants` next to the experiment or
    to a file that it includes. The key `variant` holds its name, or a list of names of
    variants that replace different keys. The key `pretrained` replaces the network, which
    is all keys of the files in a folder `network`, by `network/pretrained.yaml`. The
    names of the variants, and `pretrained`, are appended to `experiment`, so that the run
    gets its own output_folder.

    A `~` in a path stands for the home folder. A default in `recipes/` is found from
    any working directory.

    Arguments
    ---------
    path : str or Path
        The YAML.
    overrides : dict, str or None
        Texts by their keys, as `parse_command_line` returns them, or YAML with these
        keys, as `speechbrain.parse_arguments` returns it. If the default of a key is
        text or a path, the text is taken as it stands, except for `null`, which unsets
        the key, and for lists of folders; otherwise the text is YAML. If the default does
        not tell, the name of the key decides. True switches a boolean on.

    Returns
    -------
    str
        HyperPyYAML text without references, for `load_experiment`.

    Raises
    ------
    InputError
        If a file is missing or is not valid, a required key is not given, an override
        matches no key or has no valid value, or a variant does not exist.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "run.yaml").write_text("lr: 0.1\\nsteps: 10\\ndouble: !ref <steps> * 2")
    >>> _ = (folder / "mine.yaml").write_text("include: [run.yaml]\\nsteps: 20")
    >>> print(read_experiment(folder / "mine.yaml", {"lr": "0.5"}))
    lr: 0.5
    steps: 20
    double: 40
    <BLANKLINE>
    """
    overrides = _texts(overrides) if isinstance(overrides, str) else overrides or {}
    files = _with_included(Path(path))
    tree = _merge(files)
    if (
        _tag(tree.get("brain"))
        == "!name:speechbrain_cffma.training.brain.EnhancementBrain"
    ):
        tree = {**ADDED, **tree}

    def chosen(key):
        if key in overrides and key in tree:
            return _value(key, overrides[key], tree)
        return tree.get(key)

    names = _listed(chosen("variant"))
    network = {}
    if chosen("pretrained") is not None:
        network = _replace_network(tree, files, path)
    _add_variants(tree, names, files, network)
    if network:
        names = [*names, "pretrained"]
    for key in overrides:
        if key in network:
            raise InputError(
                f"--{key} can't be combined with --pretrained, which replaces the network"
            )
        if key not in tree:
            close = difflib.get_close_matches(key, tree)
            hint = f"did you mean --{close[0]}?" if close else "see its keys there"
            raise InputError(f"{path} has no key {key!r} to override: {hint}")
    tree.update({key: _value(key, text, tree) for key, text in overrides.items()})
    tree.pop("variant", None)  # merged, like included files
    if names and "experiment" in tree:
        suffix = "".join(f"-{name}" for name in names)
        tree["experiment"] = _with_suffix(tree["experiment"], suffix)
    for key, node in tree.items():
        if _tag(node) == "!PLACEHOLDER":
            raise InputError(f"{path}: {key!r} is a !PLACEHOLDER: give --{key}=...")
    text = _dump(_in_order_of_use(tree, path))
    try:
        text = resolve_references(text).getvalue()
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error
    return text.replace(_LESS_THAN, "<")


def load_experiment(text, only=None):
    """Make the objects of an experiment.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    only : str or None
        Make only the object of this key, and what it needs.

    Returns
    -------
    dict or object
        Objects by their keys, or the one object.

    Raises
    ------
    InputError
        If there is no such key, or a name in the YAML can't be imported.

    Example
    -------
    >>> load_experiment("a: 1\\nb: !new:no.such.Class", only="a")
    1
    """
    if only is not None:
        tree = YAML().load(text)
        if only not in tree:
            raise InputError(f"the experiment has no key {only!r}")
        text = _dump({only: tree[only]})
    try:
        loaded = load_hyperpyyaml(text)
    except CFFMAError:
        raise
    except pydoc.ErrorDuringImport as error:  # whatever ended the import
        if isinstance(error.value, KeyboardInterrupt | ModuleNotFoundError):
            raise error.value from None
        raise InputError(f"the experiment: {one_line(error)}") from error
    except ImportError as error:
        raise InputError(
            f"the experiment names what can't be imported: {one_line(error)}"
        ) from error
    return loaded if only is None else loaded[only]


def prepare_data(text):
    """Run the preparation of an experiment: its key `prepare`, a function or a list.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.

    Example
    -------
    >>> prepare_data("prepare: [!name:builtins.print [one], !name:builtins.print [two]]")
    one
    two
    """
    for step in _listed(load_experiment(text, only="prepare")):
        step()


def differing_keys(text, other, given=()):
    """Compare two experiments, which different releases may have read.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    other : str
        Likewise.
    given : iterable of str
        Keys that count even if only one experiment has them. Others were added or removed
        by a release, which changes nothing by default.

    Returns
    -------
    list of str
        Top-level keys with different values.

    Example
    -------
    >>> differing_keys("a: 1\\nb: 2", "b: 3  # more\\na: 1\\nc: 4")
    ['b']
    """
    trees = [YAML().load(_with_current_names(t)) for t in (text, other)]
    of_one = (trees[0].keys() ^ trees[1].keys()) - set(given)
    if len({isinstance(tree.get("prepare"), list) for tree in trees}) > 1:
        of_one.add("prepare")  # 0.1.0 had one function for what are several steps now
    plain = [_plain(tree, without=of_one)[1] for tree in trees]
    keys = dict.fromkeys(key for tree in plain for key in tree)
    return [key for key in keys if plain[0].get(key) != plain[1].get(key)]


def _plain(node, without):
    """The content of a node with its tags, but without comments and some keys at any
    depth: objects have arguments of these names, too."""
    if isinstance(node, dict):
        content = {k: _plain(v, without) for k, v in node.items() if k not in without}
    elif isinstance(node, list):
        content = [_plain(item, without) for item in node]
    else:
        content = node.value if isinstance(node, TaggedScalar) else node
    return _tag(node), content


def read_defaults(path):
    """Read an experiment's YAML with what it includes, without variants.

    Arguments
    ---------
    path : str or Path
        The YAML.

    Returns
    -------
    dict
        Values by their keys, with references.

    Raises
    ------
    InputError
        If a file is missing or no YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.5")
    >>> dict(read_defaults(path))
    {'lr': 0.5}
    """
    return _merge(_with_included(Path(path)))


def override(key, value, defaults):
    """The option of the command line that gives a key a value of any type.

    Arguments
    ---------
    key : str
        The key.
    value : object
        A value that JSON can hold.
    defaults : dict
        What `read_defaults` returns.

    Returns
    -------
    str
        --key=text

    Raises
    ------
    InputError
        If JSON can't hold the value.

    Example
    -------
    >>> [override(key, "1", {"name": "x", "level": None}) for key in ("name", "level")]
    ['--name=1', '--level="1"']
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise InputError(f"{key} can't hold a YAML tag: {value}") from error
    if isinstance(value, str) and (_holds_text(key, defaults) or _is_own_yaml(value)):
        text = value
    return f"--{key}={text}"


def _with_included(path, above=()):
    """A YAML after all that it includes: a list of (path, tree)."""
    if path.resolve() in above:
        raise InputError(f"the experiment {path} includes itself")
    tree = read_yaml(path)
    _refuse_former_keys(path, tree)
    files = []
    for name in _listed(tree.pop("include", None)):
        included = path.parent / os.path.expanduser(str(name))
        if not included.is_file():
            raise InputError(f"{path} includes {included}, which is not a file")
        files += _with_included(included, (*above, path.resolve()))
    return [*files, (path, tree)]


def _refuse_former_keys(path, tree):
    """Say what to write instead of the keys `base` and `without` of version 0.1.0."""
    if "base" in tree:
        base = Path(str(tree["base"]))
        parts = ("run.yaml", "enhancement.yaml", "network/cffma.yaml")
        names = parts if base.name == "base.yaml" else [base.name]
        names = ", ".join(str(base.parent / name) for name in names)
        raise InputError(
            f"{path}: instead of `base: {base}` write `include: [{names}]`"
        )
    if "without" in tree:
        raise InputError(
            f"{path}: instead of `without:` give `include:` a list of files without the "
            "one that has these keys"
        )


def read_yaml(path):
    """Read a YAML of keys and values as it stands, without what it includes.

    Arguments
    ---------
    path : str or Path
        The YAML.

    Returns
    -------
    dict
        Values by their keys.

    Raises
    ------
    InputError
        If it is missing, or is no such YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.5")
    >>> read_yaml(path)["lr"]
    0.5
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = YAML().load(_with_current_names(text))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a YAML of keys and values")
    return tree


def _with_current_names(text):
    """YAML text with the new names of what has moved since 0.1.0."""
    for old, new in MOVED.items():
        text = text.replace(old, new)
    return text


def _merge(files):
    """The keys of all files; those of a later file replace those of an earlier one."""
    merged = {}
    for _, tree in files:
        merged.update(tree)
    for key, value in merged.items():
        if isinstance(value, str) and _is_path(key):
            is_ours = value.startswith("recipes/")
            merged[key] = of_project(value) if is_ours else os.path.expanduser(value)
    return merged


def _is_path(key):
    return key in _PATHS or key.endswith(_PATH_ENDINGS)


def _tag(node):
    """The tag of a node such as !ref, or None."""
    return node.tag.value if hasattr(node, "tag") else None


def _holds_text(key, tree):
    """Whether a key holds text or a path: its default tells, or else its name."""
    default = tree.get(key)
    if _tag(default) == "!ref":
        # Text with references, or arithmetic, or a reference alone.
        if re.search(r"[^\d\s.+*/%()-]", re.sub(r"<[^>]*>", "", default.value)):
            return True
        others = {k: v for k, v in tree.items() if k != key}
        if any(_holds_text(name, others) for name in _references(default)):
            return True
    if default is None or _tag(default):
        return key in _TEXTS or _is_path(key)
    is_folders = isinstance(default, list) and key.endswith(_LIST_ENDINGS)
    return isinstance(default, str) or is_folders


def _texts(overrides):
    """The texts of overrides in YAML, as `speechbrain.parse_arguments` returns them."""
    try:
        root = YAML().compose(overrides)
    except YAMLError as error:
        raise InputError(
            f"the overrides are not valid YAML: {one_line(error)}"
        ) from error
    if root is None:
        return {}
    if not isinstance(root, MappingNode):
        raise InputError(f"the overrides are not of the form --key=value: {overrides}")
    texts = {}
    for key, node in root.value:
        text = overrides[node.start_mark.index : node.end_mark.index]
        if isinstance(node, ScalarNode):
            text = node.value if node.value or node.style else True
        texts[key.value] = text
    return texts


def _value(key, text, tree):
    """The value of a key that is overridden by a text."""
    if text is True:
        if not isinstance(tree[key], bool):
            raise InputError(f"--{key} needs a value: --{key}=...")
        return True
    if not text:
        raise InputError(f"--{key}= needs a value; --{key}=null unsets it")
    if _NOT_IN_YAML.search(text):
        raise InputError(
            f"--{key}={text}: YAML can't hold names that are not UTF-8 or have control "
            "characters: rename the file or folder, or pass a link to it"
        )
    if text == "null":
        return None
    if _holds_text(key, tree):
        return [_as_text(key, item) for item in _folders(key, text)] or _as_text(
            key, text
        )
    try:
        value = YAML().load(text)
    except YAMLError as error:
        raise InputError(
            f"--{key}={text} is not valid YAML: {one_line(error)}"
        ) from error
    if isinstance(tree[key], bool) and not isinstance(value, bool):
        raise InputError(f"--{key} must be true or false, not {text}")
    if value is None or _tag(value):  # such as !ref, which becomes a value later
        return value
    if _is_number(tree[key]) and not _is_number(value):
        raise InputError(f"--{key} must be a number, not {text}")
    is_list = isinstance(tree[key], list) and any(map(_is_number, tree[key]))
    if is_list and not isinstance(value, list):  # a single name needs no list
        raise InputError(f"--{key} must be a list such as {tree[key]}, not {text}")
    if key.endswith("seed") and not (isinstance(value, int) and value >= 0):
        raise InputError(f"--{key} must be a whole number of at least 0, not {text}")
    return value


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _folders(key, text):
    """The folders in a list [a, b], if the key takes several; a folder may be named so."""
    if not (key.endswith(_LIST_ENDINGS) and re.fullmatch(r"\[.*\]", text)):
        return []
    if os.path.exists(text):
        return []
    try:
        return YAML(typ="base").load(text)
    except YAMLError as error:
        raise InputError(
            f"--{key}={text} is not a valid list: {one_line(error)}"
        ) from error


def _as_text(key, text):
    """Text that stays text in YAML, as a literal block if necessary."""
    text = os.path.expanduser(text) if _is_path(key) else text
    text = text.replace("<", _LESS_THAN)
    return text if _is_own_yaml(text) else LiteralScalarString(text)


def _is_own_yaml(text):
    """Whether YAML reads a text as itself; (1, 2) is a tuple in HyperPyYAML."""
    try:
        return YAML().load(f"key: {text}") == {"key": text} and text[:1] != "("
    except YAMLError:
        return False


def _listed(value):
    """A value, a list of values or None, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _replace_network(tree, files, experiment):
    """Replace the network by that of `pretrained`; return the keys that are taken."""
    network = _merge((file, t) for file, t in files if file.parent.name == "network")
    if not network:
        raise InputError(
            f"{experiment} includes no file of a folder network/, which --pretrained replaces"
        )
    for key in network:
        tree.pop(key)
    pretrained = read_yaml(of_project("hparams/network/pretrained.yaml"))
    tree.update(pretrained)
    # What it leaves open, such as a refiner, can be chosen beside it.
    return [
        key for key in network if key not in pretrained or pretrained[key] is not None
    ]


def _add_variants(tree, names, files, network):
    """Replace keys of the tree by those of variants; `network` are keys that are gone."""
    # Of two variants of the same name, the one nearer to the experiment counts.
    paths = {
        path.stem: path
        for file, _ in files
        for path in sorted((file.parent / "variants").glob("*.yaml"))
    }
    set_by = dict.fromkeys(network, "--pretrained")
    for name in map(str, names):
        if name not in paths:
            known = ", ".join(sorted(paths)) or "none"
            hint = (
                f"did you mean --{name}=...?" if name in tree else f"there are {known}"
            )
            raise InputError(f"{files[-1][0]} has no variant {name!r}: {hint}")
        variant = _merge(_with_included(paths[name]))
        for key in variant:
            if key in set_by:
                raise InputError(
                    f"--variant={name} can't be combined with {set_by[key]}: both "
                    f"replace {key!r}"
                )
            set_by[key] = f"--variant={name}"
        tree.update(variant)


def _with_suffix(value, suffix):
    """A text, a `!ref` or a `!PLACEHOLDER` with a suffix."""
    if not isinstance(value, TaggedScalar):
        return f"{value}{suffix}"
    value.value += suffix
    return value


def _in_order_of_use(tree, path):
    """The same keys, each after those that it refers to, as HyperPyYAML needs them."""
    ordered = CommentedMap()

    def place(key, above=()):
        if key in ordered:
            return
        if key not in tree:
            raise InputError(
                f"{path}: {above[-1]!r} refers to {key!r}, which is no key"
            )
        if key in above:
            circle = " -> ".join([*above, key])
            raise InputError(f"{path}: {circle} is a circle of references")
        for used in _references(tree[key]):
            place(used, (*above, key))
        ordered[key] = tree[key]

    seeding = [key for key in tree if key == "__set_seed"]  # before anything random
    for key in [*seeding, *tree]:
        place(key)
    return ordered


def _references(node):
    """The top-level keys that a node refers to."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [name for child in node for name in _references(child)]
    if isinstance(node, TaggedScalar):
        return re.findall(r"<([^>\[.]+)", node.value)
    return []


def _dump(tree):
    stream = io.StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()
