"""The search for a schedule: what may be chosen, who proposes, trials and their results, Ray Tune around it."""
