"""The pod network: how a pod is wired to its node, and one file per way to carry packets between nodes."""
