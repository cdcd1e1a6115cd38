"""What the log and the catalogue say of a pair of user and item, and the ranker that learns what it is worth.

On sparse logs no single kind of evidence wins: the sequence model, transitions between items, users in common, texts,
popularity and habit each find items that the others miss. Candidates come from all of them; a ranker, fitted on the
validation part, orders them.
"""
