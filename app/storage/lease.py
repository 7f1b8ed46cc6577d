"""A leased row: who is elected. Lane side.

Times are the database's, so that clocks of hosts need not agree. Nothing is kept in a session: it works behind a
transaction pooler. A term of office has a number that only rises; what is done in it checks that number (`is_held`) in
the transaction that writes, so that a holder who was frozen writes nothing after another one took over.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

# A term that has ended is not renewed, not even by who had it: what it did meanwhile was not covered. Who cannot have
# the lease sees so without a lock on the row.
_CLAIM = """
    INSERT INTO leases AS l (name, holder, term, held_until, taken_at)
    SELECT %(name)s, %(holder)s, 1, c.at + %(for_s)s * interval '1 second', c.at
    FROM (SELECT clock_timestamp() AS at) c
    WHERE NOT EXISTS
        (SELECT FROM leases WHERE name = %(name)s AND holder <> %(holder)s AND held_until > clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET
        holder = excluded.holder,
        term = CASE WHEN l.held_until > clock_timestamp() THEN l.term ELSE l.term + 1 END,
        taken_at = CASE WHEN l.held_until > clock_timestamp() THEN l.taken_at ELSE excluded.taken_at END,
        held_until = clock_timestamp() + %(for_s)s * interval '1 second'
    WHERE l.holder = excluded.holder OR l.held_until <= clock_timestamp()
    RETURNING term
"""
_RELEASE = """
    UPDATE leases SET held_until = clock_timestamp()
    WHERE name = %(name)s AND holder = %(holder)s AND term = %(term)s AND held_until > clock_timestamp()
"""
_TAKEN = "SELECT FROM leases WHERE name = %s AND held_until > clock_timestamp()"
# FOR SHARE: nobody can take over between this look and the commit, which is to follow at once.
_CHECK = "SELECT 1 FROM leases WHERE name = %(name)s AND holder = %(holder)s AND term = %(term)s FOR SHARE"

DESK = "desk"
"""Of the worker that is elected among all that serve a database (app/desk.py)."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of office: whose, and which one."""

    name: str
    holder: str
    number: int


def claim(cur: Cursor, name: str, holder: str, for_s: float) -> Term | None:
    """Take the lease for so long from now on, or renew it; None: somebody else has it.

    Waits for a transaction that is just checking it.
    """
    cur.execute(_CLAIM, {"name": name, "holder": holder, "for_s": for_s})
    row = cur.fetchone()
    return None if row is None else Term(name, holder, int(row[0]))


def release(cur: Cursor, term: Term) -> bool:
    """End a term before its time, so that the next one can begin at once; tell whether it went on until now."""
    cur.execute(_RELEASE, {"name": term.name, "holder": term.holder, "term": term.number})
    return cur.rowcount == 1


def is_held(cur: Cursor, term: Term) -> bool:
    """Tell whether nobody took over, and keep it so until the end of the transaction: the last thing in it.

    A term that is over by the clock counts as held until then: whatever the next one does, it will see this.
    """
    cur.execute(_CHECK, {"name": term.name, "holder": term.holder, "term": term.number})
    return cur.fetchone() is not None


def is_taken(cur: Cursor, name: str) -> bool:
    """Tell whether anybody has the lease at this moment."""
    cur.execute(_TAKEN, (name,))
    return cur.fetchone() is not None
