"""Process entry points: the only place that composes siblings."""
