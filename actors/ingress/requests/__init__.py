"""What all requests have in common: bodies and their bounds, parameters, identity, refusals, problems, metrics."""
