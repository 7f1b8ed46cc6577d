"""What runs by schedule: each job a process of its own, at low priority, started by the elected process alone.

`schedule.py` says what is due and is pure, `child.py` is the process between the server and a job, `runner.py` starts
and ends them.
"""
