"""Two evaluations of one protocol on the same images: what differs, and whether chance alone could do it."""

from eval.comparing.comparison import Change, Comparison, compare

__all__ = ["Change", "Comparison", "compare"]
