"""What the operating system gives: namespaces, links, supervised children, and their removal."""
