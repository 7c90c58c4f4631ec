"""Pages for people: what they show is computed here, how it looks is in `templates/`."""
