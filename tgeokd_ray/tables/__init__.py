"""From raw files to an encoded table: cards, readers, row ids, splits, encoders."""
