"""Rows to bytes: one shape of table in, five formats out, with the same values in each. Pure, lane side, no I/O."""
