"""A dataset in little memory."""

from typing import Any

import pyarrow.dataset as ds


class StreamedDataset(ds.FileSystemDataset):
    """A dataset that reads one file at a time and little ahead: by default Arrow holds row groups of four files, which
    is more than all that DuckDB may use.
    """

    def scanner(self, *args: Any, **kwargs: Any) -> ds.Scanner:
        """A scanner as pyarrow's, with little reading ahead where nothing else is given.

        Args:
            *args: Those of `pyarrow.dataset.Dataset.scanner`.
            **kwargs: Those of `pyarrow.dataset.Dataset.scanner`.
        """
        return super().scanner(*args, **{"batch_readahead": 2, "fragment_readahead": 1, "use_threads": False, **kwargs})
