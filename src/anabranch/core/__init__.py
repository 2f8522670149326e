"""What every package shares: errors, names and events. Keep it tiny."""
