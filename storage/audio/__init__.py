"""Audio files in and out, block by block, with their tags."""
