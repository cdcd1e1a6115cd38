"""Answers over HTTP: the version in production, what happened since it was trained, and a page to look at both."""
