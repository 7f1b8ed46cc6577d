"""`python -m app COMMAND`: one module a command; each has `add_arguments(parser)` and `run(args, settings) -> int`."""
