"""Where a cluster lives: Docker containers or bare network namespaces, found again by label or name."""
