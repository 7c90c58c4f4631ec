"""What there is to work on: catalogs to separate, multitrack datasets to learn from."""
