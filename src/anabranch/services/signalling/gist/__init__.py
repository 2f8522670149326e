"""GIST (RFC 5971), path-coupled: finds the next node on a flow's path and carries messages to it.

All of it is sans-IO. Not built: NAT traversal objects (section 7.2), the loose-end routing
method, and SCTP.
"""
