"""Sources that a program gives as objects: lists of mappings, iterators, tables, and pictures in memory."""
