"""OpenFlow: records, codec, and one switch's session from the controller's side."""
