"""Errors in a model or in its input, described in one sentence each."""


class ModelError(Exception):
    """Base of every error this room raises on purpose; its text is shown to the user as it is."""


class CheckpointError(ModelError):
    """A checkpoint's bytes do not match its name or header."""


class PresetError(ModelError):
    """A preset is unknown or does not fit together."""


class DivergedError(ModelError):
    """The loss of a training, or its gradient, is no longer a finite number."""


class InputError(ModelError, ValueError):
    """An array to be separated is not audio, or has a shape or rate that cannot be separated."""


class DeviceLostError(ModelError):
    """A GPU has failed, and nothing that this process computes on it succeeds any more."""
