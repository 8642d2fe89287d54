"""How far apart two diffs are."""

from agentgolf.patch.similar import changed_tokens, distance

HEAD = "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n"
RATE = HEAD + "-RATE = 0.5\n+RATE = 0.6\n WIDTH = 64\n"


def test_the_same_change_elsewhere_or_with_another_comment_is_no_distance_away() -> None:
    moved = RATE.replace("@@ -1,2 +1,2 @@", "@@ -90,2 +90,2 @@").replace("0.6\n", "0.6  # higher\n")
    assert distance(RATE, moved) == 0.0


def test_another_number_is_a_step_and_another_line_is_far() -> None:
    other = RATE.replace("0.6", "0.7")
    unlike = HEAD + "-    x = self.norm(x)\n+    return torch.zeros(3)\n"
    assert 0.05 < distance(RATE, other) < 0.5 < distance(RATE, unlike) <= 1.0


def test_the_opposite_change_is_not_the_same() -> None:
    assert distance(RATE, HEAD + "-RATE = 0.6\n+RATE = 0.5\n") > 0


def test_nothing_is_like_nothing() -> None:
    assert distance("", HEAD) == 0.0 and changed_tokens(HEAD) == []
