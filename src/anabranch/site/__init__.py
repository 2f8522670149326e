"""The brain of a site: its plan, who is served where, and wish made reality."""
