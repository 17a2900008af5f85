"""Two output folders item by item: how far their pictures differ, a table, JSON, and a page side by side."""
