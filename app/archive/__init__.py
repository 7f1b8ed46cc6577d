"""Moving ticks between the database and Parquet files (docs/archive.md): `python -m app archive`.

The law here: at every moment `tick_ranges` tells which place is right, and nothing is removed before no reader can look
at it. Blocking; runs in a process of its own, never in a worker. `storage/archive_reader.py` reads archived ticks.
"""
