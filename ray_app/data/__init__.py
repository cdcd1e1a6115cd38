"""Raw logs made into a prepared dataset, and that dataset read back for training."""
