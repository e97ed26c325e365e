"""The host agent: wires switch, nodes and pods, runs containers, reports status, serves logs and exec."""
