"""The SOLEIL protocol (seed 000, section 3.1): messages, their XML, and where they are routed."""
