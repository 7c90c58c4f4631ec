"""Other people's networks in our pipeline, each through its own package's code for fetching and loading."""
