"""Layouts of datasets: one reader a file format, one preset a published dataset."""
