"""Networks and losses: plain torch, no Ray, no data access."""
