"""The market's own rules, pure: no I/O, no clock, no database, no Flask. Arrays in, arrays out."""
