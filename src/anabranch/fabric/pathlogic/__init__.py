"""How a path from a root to a leaf is carried: the seed's logic, and a place for others."""
