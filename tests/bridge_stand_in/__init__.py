"""Stand-ins for what the bridge talks to: a MetaTrader 5 terminal, and a tickhub that can misbehave.

The terminal cannot run in tests; these keep to its documented behaviour and to docs of POST /tick/batch.
This folder is also put on a subprocess's path, where `import MetaTrader5` then finds the stand-in.
"""
