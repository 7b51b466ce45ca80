"""Defending deepfakes by saliency-aware attack: the paper's method, attackers and figures."""

__version__ = "0.1.0"
