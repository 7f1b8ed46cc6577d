"""How good the stored ticks of a day are: arithmetic over arrays, pure, may run on a lane.

The law: nothing here reads or writes anything. Times are UTC microseconds in int64, prices float64 with NaN for none;
figures are exact functions of the ticks that are handed in, whatever the pieces they come in.
"""
