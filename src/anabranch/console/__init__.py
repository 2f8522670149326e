"""What people and programs meet: the HTTP API, WHEP, metrics and the pages."""
