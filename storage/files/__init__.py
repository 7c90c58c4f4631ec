"""Files and objects: where they are, what every path is called, atomic writes, and whether a source has changed."""
