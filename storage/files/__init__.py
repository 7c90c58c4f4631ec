"""Files and objects: where they lie, what every path is called, whole or not at all, changed or not."""
