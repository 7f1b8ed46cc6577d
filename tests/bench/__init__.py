"""Measure tickhub beside its yardsticks on one machine: `python -m tests.bench [NAME] [--quick] [--write]`.

A bench is a module here that has what `running.BenchModule` says, listed in `__main__`.
Every number comes out of a run that was checked: what was sent is in the database, or the bench fails.
"""
