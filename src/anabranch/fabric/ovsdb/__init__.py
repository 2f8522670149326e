"""OVSDB, the configuration database of Open vSwitch: values, JSON-RPC session, asyncio client."""
