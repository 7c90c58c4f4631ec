"""Pages for people: their contents are computed here, their appearance is in `templates/`."""
