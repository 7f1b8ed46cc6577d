"""What may be wrong with a server, its host, its database and its files: a check a function.

One law: a check only looks. It starts, makes, changes and removes nothing, holds no lock that others wait for, and ends
by itself when what it asks hangs. What it finds is a line with a remedy, never a secret. Blocking; for a process of its
own.
"""
