"""From an accepted batch to a committed one: journal, buffer, flusher, recovery. It knows batches, not ticks."""
