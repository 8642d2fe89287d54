"""The order of stages: the only place that knows them all."""
