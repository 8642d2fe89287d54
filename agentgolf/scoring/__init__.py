"""Measures a candidate: the text, the targets, the softmax and the byte count are ours."""
