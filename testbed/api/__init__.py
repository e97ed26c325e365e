"""The Kubernetes objects: kinds, accessors, selectors, patches, well-known names."""
