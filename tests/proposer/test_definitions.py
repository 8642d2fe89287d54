"""A model that answers with whole functions: each takes the place of the file's own of that name."""

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgolf.errors import PatchError
from agentgolf.proposer.definitions import put_definitions
from agentgolf.proposer.edits import apply_reply

SOURCE = '''\
"""A script."""
import math
import os

RATE = 0.5


# How batches are drawn.
@cached
def batches(tokens, size):
    """In order."""
    for at in range(0, len(tokens), size):
        yield tokens[at : at + size]


class Attention(Module):
    heads = 2

    def __init__(self, dim):
        self.dim = dim

    def forward(self, x):
        return x


class Block(Module):
    def forward(self, x):
        return self.attention(x)

    def scale(self, x):
        return x * 2


def main():
    print(batches([1], 1))
'''
FILES = {"train.py": SOURCE}


def fenced(code: str, info: str = "python") -> str:
    return f"Here is the improved version:\n\n```{info}\n{code}```\n\nIt should be faster.\n"


def put(code: str) -> str:
    changed = put_definitions(SOURCE, code)
    assert changed is not None
    ast.parse(changed)
    return changed


def test_a_function_takes_the_place_of_the_one_of_its_name() -> None:
    new = 'def batches(tokens, size):\n    """Shuffled."""  # better\n    yield from shuffled(tokens, size)\n'
    old = SOURCE[SOURCE.index("@cached") : SOURCE.index("\n\nclass Attention")]
    assert apply_reply(fenced(new), FILES) == {"train.py": SOURCE.replace(old, new)}


def test_what_is_new_comes_before_and_known_imports_are_not_repeated() -> None:
    changed = put(
        "import math\nimport random\n\nSPREAD = 2\n\ndef shuffled(x):\n    return x\n\n\n"
        "def batches(tokens, size):\n    yield shuffled(tokens)\n\n\ndef later():\n    pass\n"
    )
    assert changed.count("import math") == 1
    names = [node.name for node in ast.parse(changed).body if isinstance(node, ast.FunctionDef)]
    assert names == ["shuffled", "later", "batches", "main"]
    assert "import random\nSPREAD = 2\ndef shuffled(x):" in changed


def test_a_constant_beside_a_function_is_replaced_too() -> None:
    changed = put("RATE = 0.7\ndef main():\n    pass\n")
    assert changed == SOURCE.replace("0.5", "0.7").replace("print(batches([1], 1))", "pass")


@pytest.mark.parametrize("indent", ["", "    "])
def test_a_lone_method_goes_where_its_name_stands_once(indent: str) -> None:
    code = textwrap.indent("def scale(self, x):\n    return x * 3\n", indent)
    assert put(code) == SOURCE.replace("x * 2", "x * 3")


def test_a_method_of_several_classes_is_refused_with_their_lines() -> None:
    with pytest.raises(PatchError, match=r"forward is defined at 2 places \(lines 22, 27\); write its class around it"):
        put("def forward(self, x):\n    return -x\n")


def test_a_class_with_some_of_its_methods_replaces_only_those() -> None:
    code = (
        "class Block(Module):\n    def extra(self):\n        return 1\n\n    def forward(self, x):\n        return -x\n"
    )
    assert put(code) == SOURCE.replace(
        "    def forward(self, x):\n        return self.attention(x)\n",
        "    def extra(self):\n        return 1\n\n    def forward(self, x):\n        return -x\n",
    )


def test_a_class_with_all_of_its_methods_replaces_the_whole() -> None:
    code = "class Block(Other):\n    def forward(self, x):\n        return x\n\n    def scale(self, x):\n        return x\n"
    changed = put(code)
    assert code in changed
    assert "class Block(Module)" not in changed


@pytest.mark.parametrize(
    "line",
    ["# ... rest of the code", "...", "# existing code unchanged", "# The rest of the method", "# same as before"],
)
def test_what_leaves_parts_out_is_refused(line: str) -> None:
    with pytest.raises(PatchError, match="parts are left out where it says .*; write the definition whole"):
        put(f"def main():\n    x = 1\n    {line}\n")


@pytest.mark.parametrize(
    "code",
    [
        "RATE = 0.7\n",
        "batches([1], 2)\n",
        "def unknown():\n    pass\n",
        "def main(:\n",
        "def main():\n    pass\n\nmain()\n",
        "x.y = 1\ndef main():\n    pass\n",
        "",
    ],
)
def test_anything_but_definitions_of_the_file_is_no_edit(code: str) -> None:
    assert put_definitions(SOURCE, code) is None
    with pytest.raises(PatchError, match="has no edit"):
        apply_reply(fenced(code), FILES)


def test_of_two_definitions_of_one_name_the_last_counts() -> None:
    assert put("def main():\n    first()\n\n\ndef main():\n    second()\n") == SOURCE.replace(
        "print(batches([1], 1))", "second()"
    )


def test_a_function_as_it_stands_changes_nothing() -> None:
    with pytest.raises(PatchError, match="changes nothing"):
        apply_reply(fenced("def main():\n    print(batches([1], 1))\n"), FILES)


def test_the_file_is_found_by_what_it_defines() -> None:
    two = {"train.py": SOURCE, "other.py": "def helper():\n    return 1\n", "notes.txt": "def helper(): what\n"}
    changed = apply_reply(fenced("def helper():\n    return 2\n"), two)
    assert changed == {**two, "other.py": "def helper():\n    return 2\n"}


def test_a_name_that_two_files_define_needs_the_file() -> None:
    two = {"a.py": SOURCE, "b.py": SOURCE}
    code = "def main():\n    pass\n"
    with pytest.raises(PatchError, match=r"stands in a.py and b.py; name the file"):
        apply_reply(fenced(code), two)
    assert apply_reply(fenced(code, "python b.py"), two)["a.py"] == SOURCE


CODE = st.sampled_from(
    [
        "def main():\n",
        "class Block(Module):\n",
        "    def forward(self, x):\n",
        "        return x\n",
        "    pass\n",
        "@cached\n",
        "RATE = 1\n",
        "import sys\n",
        "    ...\n",
        '    """Words\nat no indent."""\n',
        "\t\n",
        "def batches(a): return a",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CODE, max_size=8).map("".join))
def test_what_comes_out_is_still_a_script(code: str) -> None:
    try:
        changed = put_definitions(SOURCE, code)
    except PatchError:
        return
    if changed is not None:
        ast.parse(changed)
        assert '"""A script."""' in changed
