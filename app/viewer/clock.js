/** The server's clock, as far as it is known here: what people see of ages and lag is counted by it.

Every time that the server tells bounds the offset between the clocks: it was told before it came in, and not before it
was asked for. While no bound says otherwise the offset is taken for zero, so two good clocks are not made worse. */

const FORGET_MS = 10 * 60_000;

export class Clock {
  #low = -Infinity;
  #high = Infinity;
  #since = 0;

  constructor(now = Date.now) {
    this.now = now;
  }

  /** The server's time, ms since the epoch. */
  server() {
    return this.now() + this.offset();
  }

  offset() {
    return Math.min(Math.max(0, this.#low), this.#high);
  }

  /** Take a time that the server told unasked (ms). */
  told(serverMs) {
    this.#bound(serverMs - this.now(), Infinity);
  }

  /** Take a Date header, whole seconds cut off, of a request that was sent at `askedMs` of our clock. */
  answered(dateHeader, askedMs) {
    const serverMs = Date.parse(dateHeader ?? "");
    if (Number.isFinite(serverMs)) this.#bound(serverMs - this.now(), serverMs + 1000 - askedMs);
  }

  #bound(low, high) {
    const now = this.now();
    const low2 = Math.max(low, this.#low);
    const high2 = Math.min(high, this.#high);
    // A clock was set, or drifted for long: what was known is of another time.
    if (low2 > high2 || now - this.#since > FORGET_MS || now < this.#since) {
      [this.#low, this.#high, this.#since] = [low, high, now];
    } else {
      [this.#low, this.#high] = [low2, high2];
    }
  }
}
