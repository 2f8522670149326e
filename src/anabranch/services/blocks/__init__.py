"""What modules are made of: protocols that many of them speak, sans-IO and for whole batches."""
