"""What a user writes, and what it becomes: YAML to Topology to ClusterSpec."""
