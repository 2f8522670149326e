"""People: who one is, what one may do, and what it is shown by."""
