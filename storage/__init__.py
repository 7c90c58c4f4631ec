"""Everything on disk: audio, datasets, catalogs, zarr stores, metrics tables, run records, registry."""
