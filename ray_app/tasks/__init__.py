"""Each task joins data, model, loss, metric and baselines; the only place where a domain word meets the loop."""
