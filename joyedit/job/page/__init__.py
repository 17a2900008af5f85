"""The page of an output folder: before and after of every item, as plain files that a browser opens from the disk."""
