"""`joyedit bench`: the stages of an edit on one device, and whole edits by several."""
