"""The node daemon: pod network and service rules of one node."""
