"""The one training loop: phases, regularizers, checkpoints, Ray Train around it."""
