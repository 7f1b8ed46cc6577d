"""Everything that speaks SQL or runs PostgreSQL. Lane side: pure functions over a connection, no logging."""
