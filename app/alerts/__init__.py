"""Rules of alerts, pure: what is looked at, when it alerts, and in which words. No I/O, no clock, any side."""
