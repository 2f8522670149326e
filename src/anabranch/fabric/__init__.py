"""Switches: the OpenFlow 1.3 codec and session, flows as rules, the controller, Open vSwitch."""
