"""Sandboxes: one process a tenant, forked warm and shut in, in which its modules run."""
