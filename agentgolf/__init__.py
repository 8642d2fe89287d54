"""agentgolf plays Parameter Golf unattended: it proposes, trains, scores, decides and remembers."""

__version__ = "0.1.0"
