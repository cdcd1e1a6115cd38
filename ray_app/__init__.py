"""Retail logs in object storage to a deployed, fine-tuned recommender, on Ray."""

__version__ = "0.1.0"
