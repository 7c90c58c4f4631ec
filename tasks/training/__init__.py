"""Training on a worker: spans, examples, runs, searches, the gate."""
