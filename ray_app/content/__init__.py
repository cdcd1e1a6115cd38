"""What items are, as vectors that a pretrained encoder makes of their texts."""
