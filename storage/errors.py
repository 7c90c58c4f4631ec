"""What can be wrong with files on disk, each stated in one sentence a user can act on."""


class StorageError(Exception):
    """Base of every error this package raises on purpose; its text is shown to the user as it is."""


class AudioError(StorageError):
    """An audio file cannot be read or written completely."""


class OutputError(StorageError):
    """The output cannot be written: its disk is full, read-only or gone. It ends a run, as every track would fail."""


class DatasetError(StorageError):
    """A folder is not the dataset it was said to be, or its splits leak."""


class CatalogError(StorageError):
    """A catalog (folder, file or manifest) cannot be listed."""


class StoreError(StorageError):
    """A zarr store is missing, of another version, or damaged."""


class MetricsError(StorageError):
    """A metrics table or a query over it is wrong."""


class OutputInUse(MetricsError):
    """Another run is writing to the same output."""


class RegistryError(StorageError):
    """A model id is unknown, or its file is not what its name says."""


class ModelLost(RegistryError):
    """The model of a run is no longer there, or no longer the same. It ends the run, as every track would fail."""
