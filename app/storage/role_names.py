"""The names of the database's roles, for whoever only names them; what each may do is in `roles.py`."""

from __future__ import annotations

READ = "tickhub_read"
"""Reads everything but keys; made in migration 0005."""
WRITE = "tickhub_write"
"""The server's: stores and changes rows, makes partitions by functions of the owner, changes no table."""
BACKUP = "tickhub_backup"
"""pg_dump, and pg_basebackup and pg_receivewal where the role that migrates may make such a role."""
