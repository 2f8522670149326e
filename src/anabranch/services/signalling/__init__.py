"""The message that travels the path: NetServ's requests and responses, and GIST beneath.

Seed 003, section 6.1.1; docs/protocols/services.md has both protocols.
"""
