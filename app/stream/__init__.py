"""Live updates: who watches what, and how it reaches them.

The law here: no Flask, no SQL, no pipeline. What happened is told to the `Hub`; what the hub needs to know it asks
through callables that the Runtime gives it.
"""
