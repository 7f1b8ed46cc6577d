"""The desk's datasets beside ticks, each declared once, in one file: its record type says all there is to say.

Pure but for SQL texts: no connection, no Flask, no greenlet. A file of a dataset has its record type and `DATASET`.
"""
