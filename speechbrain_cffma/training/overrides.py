"""Overrides of an experiment: from an option of the command line to the value of a key.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import os
import re
from dataclasses import fields

from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.scalarstring import LiteralScalarString

from speechbrain_cffma.errors import InputError, one_line

#: Keys that hold a path, in addition to those with `_PATH_ENDINGS`.
_PATHS = {"corpus", "metadata", "pretrained"}
_PATH_ENDINGS = ("_folder", "_manifest", "_source", "_path")
#: Keys that hold a folder or a list of folders.
_LIST_ENDINGS = ("speech_folder", "noise_folder", "rir_folder")
#: Keys that hold text even if their default is null.
_TEXTS = {"experiment", "license", "pair_by", "test_data", "training_data"}
#: Replaces "<" in texts while references, which begin with "<", are resolved.
LESS_THAN = "\ue000"
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


def _holds_text(key, tree):
    """Whether a key holds text or a path: its default tells, or else its name."""
    default = tree.get(key)
    if tag_of(default) == "!ref":
        # Text with references, or arithmetic, or a reference alone.
        if re.search(r"[^\d\s.+*/%()-]", re.sub(r"<[^>]*>", "", default.value)):
            return True
        others = {k: v for k, v in tree.items() if k != key}
        if any(_holds_text(name, others) for name in references(default)):
            return True
    if default is None or tag_of(default):
        return key in _TEXTS or is_path(key)
    is_folders = isinstance(default, list) and key.endswith(_LIST_ENDINGS)
    return isinstance(default, str) or is_folders


def texts_of(overrides):
    """Take the texts of overrides out of YAML.

    Arguments
    ---------
    overrides : str
        YAML, as `speechbrain.parse_arguments` returns it.

    Returns
    -------
    dict
        Texts by their keys; True for a key without a value.

    Raises
    ------
    InputError
        If it is not valid.

    Example
    -------
    >>> texts_of("gain: [1, 2]\\ndownload:")
    {'gain': '[1, 2]', 'download': True}
    """
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


def value_of(key, text, tree):
    """The value of a key that is overridden by a text.

    Arguments
    ---------
    key : str
        The key.
    text : str or True
        The text; True if there is none.
    tree : dict
        The experiment, with the default of the key.

    Returns
    -------
    object
        A value for YAML, with `LESS_THAN` instead of "<" in texts.

    Raises
    ------
    InputError
        If the text does not fit the default.

    Example
    -------
    >>> [value_of(key, "1", {"name": "x", "level": 0}) for key in ("name", "level")]
    ['1', 1]
    """
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
    if value is None or tag_of(value):  # such as !ref, which becomes a value later
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
    text = os.path.expanduser(text) if is_path(key) else text
    text = text.replace("<", LESS_THAN)
    return text if _is_own_yaml(text) else LiteralScalarString(text)


def _is_own_yaml(text):
    """Whether YAML reads a text as itself; (1, 2) is a tuple in HyperPyYAML."""
    try:
        return YAML().load(f"key: {text}") == {"key": text} and text[:1] != "("
    except YAMLError:
        return False


def is_path(key):
    """Whether a key holds a path.

    Arguments
    ---------
    key : str
        The key.

    Returns
    -------
    bool
        Its name tells.

    Example
    -------
    >>> is_path("output_folder")
    True
    """
    return key in _PATHS or key.endswith(_PATH_ENDINGS)


def tag_of(node):
    """The tag of a YAML node.

    Arguments
    ---------
    node : object
        A value in a tree of ruamel.yaml.

    Returns
    -------
    str or None
        Such as !ref.

    Example
    -------
    >>> tag_of(YAML().load("a: !ref <b>")["a"])
    '!ref'
    """
    return node.tag.value if hasattr(node, "tag") else None


def references(node):
    """The top-level keys that a YAML node refers to.

    Arguments
    ---------
    node : object
        A value in a tree of ruamel.yaml.

    Returns
    -------
    list of str
        The keys, in the order of their use.

    Example
    -------
    >>> references(YAML().load("- !ref <b>/<c[d]>"))
    ['b', 'c']
    """
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [name for child in node for name in references(child)]
    if isinstance(node, TaggedScalar):
        return re.findall(r"<([^>\[.]+)", node.value)
    return []
