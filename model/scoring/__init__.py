"""How near estimates are to references, and how loud signals are."""
