"""Trilateral-geometry knowledge distillation on Ray: from a raw table to a small, fast student."""

__version__ = "0.1.0"
