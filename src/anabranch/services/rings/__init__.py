"""Packets in and out of a process without a copy to and fro: AF_PACKET from pure Python."""
