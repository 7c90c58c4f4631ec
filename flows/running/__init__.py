"""How runs run: workers, the bounded window, commits, progress, what must be set beforehand."""
