"""What a run may leave out to be faster: which parts, how much of each, and what that loses. No torch here."""
