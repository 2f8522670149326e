"""The SQL store and the event log: SQLite embedded, PostgreSQL by URL."""
