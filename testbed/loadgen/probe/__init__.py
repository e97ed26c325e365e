"""The probe pod: reads a node's devices, packets and connections. Imports no Locust; starts in milliseconds."""
