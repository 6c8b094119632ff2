"""Errors of models.

ModelError (ValueError)
├── Rejected: a model that must not be used: its hash, its contents or its features are not what the manifest says
└── TooLittle: not enough data to train or to judge a model
"""

__all__ = ["ModelError", "Rejected", "TooLittle"]


class ModelError(ValueError):
    """Something is wrong with a model or with what it is made of; the message says what."""


class Rejected(ModelError):
    """The model is not used, the last good one stays."""


class TooLittle(ModelError):
    """Train with more devices, more time or more labels; the message says which."""
