"""The network of Kubernetes, rebuilt from real parts, so that its cost can be measured."""
