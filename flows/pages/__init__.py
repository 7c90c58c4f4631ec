"""The server that shows pages on this machine's loopback interface."""
