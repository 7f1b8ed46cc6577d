"""Backups as files, made, checked and put back by PostgreSQL's own programs.

One law: everything here blocks, so it runs in processes of its own (`python -m app backup ...`), never in a worker.
"""
