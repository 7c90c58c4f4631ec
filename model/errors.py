"""What can be wrong with a model or with what it is given, in one sentence each."""


class ModelError(Exception):
    """Base of every error this room raises on purpose; its text is shown to the user as it is."""


class CheckpointError(ModelError):
    """A checkpoint's bytes are not what its name or header says."""


class PresetError(ModelError):
    """A preset is unknown or does not fit together."""


class DivergedError(ModelError):
    """The loss of a training, or its gradient, is no longer a finite number."""


class InputError(ModelError, ValueError):
    """An array that is to be separated is not audio that can be."""
