"""What a model writes as an edit: three formats, repaired where the meaning is clear, refused with the nearest miss."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgolf.errors import PatchError
from agentgolf.proposer.answers import read_answer
from agentgolf.proposer.edits import apply_reply

SOURCE = """\
RATE = 0.5
WIDTH = 64


class Model:
    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)

        return self.head(h)

    def other(self, x):
        return x
"""
FILES = {"train.py": SOURCE}


def block(old: str, new: str) -> str:
    return f"Some words.\n\ntrain.py\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\nMore words.\n"


def edited(reply: str, files: dict[str, str] | None = None) -> str:
    return apply_reply(reply, files or FILES)["train.py"]


def test_a_block_that_fits_exactly() -> None:
    assert edited(block("RATE = 0.5\n", "RATE = 0.7\n")) == SOURCE.replace("0.5", "0.7")


def test_several_blocks_are_applied_in_order() -> None:
    reply = block("RATE = 0.5\n", "RATE = 0.7\n") + block("WIDTH = 64\n", "WIDTH = 80\nDEPTH = 2\n")
    assert edited(reply) == SOURCE.replace("0.5", "0.7").replace("64", "80\nDEPTH = 2")


def test_a_block_may_delete() -> None:
    assert edited(block("WIDTH = 64\n", "")) == SOURCE.replace("WIDTH = 64\n", "")


def test_lost_indentation_is_put_back() -> None:
    reply = block("for block in self.blocks:\n    h = block(h)\n", "for block in self.blocks:\n    h = h + block(h)\n")
    assert edited(reply) == SOURCE.replace("h = block(h)", "h = h + block(h)")


def test_white_space_and_blank_lines_do_not_matter() -> None:
    reply = block(
        "            h  =  block(h)\n        return self.head(h)\n", "            h = block(h)\n        return h\n"
    )
    assert "            h = block(h)\n        return h\n\n    def other" in edited(reply)


def test_a_place_that_is_not_unique_is_refused() -> None:
    twice = {"train.py": SOURCE + "RATE = 0.5\n"}
    with pytest.raises(PatchError, match=r"stand at 2 places \(lines 1, 15\); quote more"):
        edited(block("RATE = 0.5\n", "RATE = 1\n"), twice)


def test_the_nearest_miss_is_shown() -> None:
    with pytest.raises(
        PatchError, match=r"(?s)not there:\n\| +h = self.embedding\(x\).*from line 7:\n\| +h = self.embed\(x\)"
    ):
        edited(block("        h = self.embedding(x)\n", "        h = x\n"))


@pytest.mark.parametrize("fence", ["", "```diff\n"])
def test_a_diff_with_wrong_numbers_and_counts(fence: str) -> None:
    diff = "--- a/train.py\n+++ b/train.py\n@@ -40,9 +40,7 @@ class Model:\n         for block in self.blocks:\n-            h = block(h)\n+            h = h + block(h)\n \n         return self.head(h)\n"
    assert edited(f"Here it is:\n{fence}{diff}{'```' if fence else ''}\nDone.\n") == SOURCE.replace(
        "h = block(h)", "h = h + block(h)"
    )


def test_a_diff_of_two_hunks_uses_its_line_numbers_where_lines_repeat() -> None:
    files = {"train.py": "a = 1\nb = 2\na = 1\nb = 2\n"}
    assert edited("+++ b/train.py\n@@ -3,1 +3,1 @@\n-a = 1\n+a = 9\n", files) == "a = 1\nb = 2\na = 9\nb = 2\n"


def test_a_whole_file() -> None:
    new = SOURCE.replace("64", "96")
    assert edited(f"The new file:\n```python\n{new}```\n") == new
    two = {"train.py": SOURCE, "other.py": "X = 1\n"}
    assert apply_reply("```python other.py\nX = 2\n```", two) == {"train.py": SOURCE, "other.py": "X = 2\n"}


@pytest.mark.parametrize(
    "opening", ["<<<<<<< HEAD", "<<< HEAD\n\ntrain.py\n<<<<<<< ORIGINAL", "<<<<<<< SEARCH\n<<<<<<<"]
)
def test_markers_may_have_other_names(opening: str) -> None:
    assert edited(f"{opening}\nRATE = 0.5\n=======\nRATE = 0.7\n>>>>>>> main\n") == SOURCE.replace("0.5", "0.7")


def test_a_submission_that_is_written_down_instead_of_made_counts() -> None:
    edits = [{"path": "train.py", "search": "RATE = 0.5", "replace": "RATE = 0.7"}]
    call = {"name": "submit", "arguments": {"hypothesis": "faster", "predicted_gain_bpb": 0.1, "edits": edits}}
    answer = read_answer(f"```json\n{json.dumps(call, indent=1)}\n```", FILES)
    assert (answer.hypothesis, answer.files["train.py"]) == ("faster", SOURCE.replace("0.5", "0.7"))


def test_constants_below_a_hypothesis_are_an_edit() -> None:
    assert edited("HYPOTHESIS: faster\n\n```\nRATE = 0.7\n```\n") == SOURCE.replace("0.5", "0.7")


def test_a_short_snippet_is_no_whole_file() -> None:
    with pytest.raises(PatchError, match="has no edit"):
        edited("For example:\n```python\nRATE = 0.7\n```\n")


def test_an_edit_that_changes_nothing_is_no_edit() -> None:
    with pytest.raises(PatchError, match="changes nothing"):
        edited(block("RATE = 0.5\n", "RATE = 0.5\n"))


def test_an_unknown_file_is_named() -> None:
    with pytest.raises(PatchError, match="'evil.py' is none of the files that may be edited: train.py, other.py"):
        apply_reply(
            block("RATE = 0.5\n", "RATE = 1\n").replace("train.py", "evil.py"), {**FILES, "other.py": "X = 1\n"}
        )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["<<<<<<< S\na\n=======\n", "```a\nx\n", "```\n", "<<<<<<<\n", "@@ -1,1 +1,1 @@\n"])
def test_a_reply_of_markers_alone_does_not_take_for_ever(part: str) -> None:
    with pytest.raises(PatchError):
        edited(part * (399_000 // len(part)))


PARTS = st.sampled_from(
    [
        "<<<<<<< SEARCH\n",
        "=======\n",
        ">>>>>>> REPLACE\n",
        "@@ -1,2 +1,2 @@\n",
        "+++ b/train.py\n",
        "--- a/train.py\n",
        "```\n",
        "```python\n",
        "-RATE = 0.5\n",
        "+RATE = 1\n",
        " WIDTH = 64\n",
        "RATE = 0.5\n",
        "\n",
        "\\ No newline\n",
        SOURCE,
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(PARTS, max_size=10).map("".join), st.text(max_size=200)))
def test_any_reply_is_an_edit_or_one_sentence(reply: str) -> None:
    try:
        assert apply_reply(reply, FILES) != FILES
    except PatchError as error:
        assert str(error)
