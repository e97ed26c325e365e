"""What runs inside load and probe pods; the only package that imports Locust."""
