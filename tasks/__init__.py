"""One unit of work each: plain functions that run on a worker, from paths to small records."""
