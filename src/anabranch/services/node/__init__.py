"""Adapters: sockets, netfilter, HTTP and the event loop beneath signalling and controller."""
