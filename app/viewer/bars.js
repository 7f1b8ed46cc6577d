/** The bars of one symbol, interval and price side: a bounded run of them that ends with the running one.

History and what was missed come from /api/bars, the running bar from the socket. The socket tells bars of bids, without
their buy and sell volume; where that is not enough, it only says that it is time to read. */

const PAGE = 1000;
const MOST_BARS = 20_000;
const SPARE_BARS = 1_000;
const MOST_PAGES_BEHIND = 3;
const READ_EVERY_MS = 1_000;
const SILENT_MS = 3_000;
const RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 30_000;
/** Who goes through a list with a key held down asks for the bars where they stop. */
const SETTLE_MS = 150;

const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, M: 2_592_000 };

/** Length of an interval in seconds, of a month nearly. */
export const secondsOf = (interval) => Number(interval.slice(0, -1)) * SECONDS[interval.at(-1)];

/** Return the bar of an answer or a message; buy and sell are null where they are not told. */
export function barOf(row) {
  return {
    time: Date.parse(row.timestamp) / 1000,
    open: row.open,
    high: row.high,
    low: row.low,
    close: row.close,
    volume: row.volume ?? 0,
    buy: row.buy_volume ?? null,
    sell: row.sell_volume ?? null,
    ticks: row.ticks ?? 0,
  };
}

/** Return where in ascending bars a time is or would be. */
export function placeOf(bars, time) {
  let low = 0;
  let high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars[middle].time < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

const NAMES = ["open", "high", "low", "close", "volume", "buy", "sell", "ticks"];
const equal = (a, b) => NAMES.every((name) => a[name] === b[name]);

export class Bars {
  all = [];
  complete = false;
  symbol = "";
  /** "loading", "ready", "empty", or what is wrong. */
  state = "loading";
  #abort = new AbortController();
  #loading = false;
  #reading = false;
  #again = false;
  #timer = 0;
  #retry = 0;
  #readAt = 0;
  #openedAt = -Infinity;
  #heardAt = 0;
  #tries = 0;
  #resting = false;
  /** Time of the oldest bar that is known to have changed and was not read since. */
  #from = Infinity;

  /** view: {reset(bars), update(bar, older), anew(): other bars come, state(): it changed}. */
  constructor(api, view) {
    this.api = api;
    this.view = view;
  }

  /** Show other bars. */
  open(symbol, interval, side) {
    this.#abort.abort();
    this.#abort = new AbortController();
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
    Object.assign(this, { symbol, interval, side, all: [], complete: false });
    this.#loading = this.#reading = this.#again = false;
    this.#timer = this.#retry = this.#tries = 0;
    this.#from = Infinity;
    this.view.reset(this.all);
    const now = performance.now();
    if (now - this.#openedAt < SETTLE_MS) this.#loadAfter(SETTLE_MS);
    this.#openedAt = now;
    if (symbol) this.older();
    else this.#say("ready");
  }

  #loadAfter(waitMs) {
    this.#retry = setTimeout(() => {
      if (this.#resting) return; // still owed: `refresh` loads it
      this.#retry = 0;
      this.older();
    }, waitMs);
  }

  /** Load the page before the first bar, or the newest one. */
  async older() {
    if (this.#loading || this.#retry || this.complete || !this.symbol || this.all.length >= MOST_BARS) return;
    this.#loading = true;
    const { signal } = this.#abort;
    const first = this.all[0];
    if (!first) this.#say("loading");
    try {
      const end = first && new Date(first.time * 1000).toISOString();
      const page = await this.#page({ end, order: "desc" }, signal);
      const bars = page.bars.map(barOf).sort((a, b) => a.time - b.time);
      // What came over the socket meanwhile is newer than the answer.
      const kept = this.all;
      const cut = kept.length ? placeOf(bars, kept[0].time) : bars.length;
      this.all = [...bars.slice(0, cut), ...kept];
      this.complete = page.next_page_token === null;
      this.#tries = 0;
      this.#readAt = performance.now();
      this.#loading = false;
      this.view.reset(this.all);
      this.#say(this.all.length ? "ready" : "empty");
    } catch (error) {
      if (signal.aborted) return;
      this.#loading = false;
      this.#say(error.message);
      const waitMs = Math.min(LONGEST_RETRY_MS, RETRY_MS * 2 ** this.#tries);
      this.#tries += 1;
      this.#loadAfter(Math.max(waitMs, error.retryAfterMs ?? 0));
    }
  }

  /** Nobody sees them: ask for nothing more by itself until `refresh`. */
  rest() {
    this.#resting = true;
  }

  /** The server is there again, or the page seen: read what was missed, and what failed without waiting longer. */
  refresh() {
    this.#resting = false;
    const failed = Boolean(this.#retry);
    clearTimeout(this.#retry);
    this.#retry = this.#tries = 0;
    if (failed && this.all.length) this.older();
    this.catchUp();
  }

  /** Take a bar that the socket told. */
  told(message) {
    if (message.symbol !== this.symbol || message.interval !== this.interval) return;
    this.#heardAt = performance.now();
    const bar = barOf(message);
    const before = this.all.at(-1);
    const sides = bar.buy !== null;
    if (bar.open != null && (message.price ?? "bid") === this.side && this.all.length && bar.time >= before.time) {
      const same = bar.time === before.time;
      if (!sides) [bar.buy, bar.sell] = same ? [before.buy, before.sell] : [0, 0];
      const traded = bar.volume !== (same ? before.volume : 0);
      this.#put(bar);
      // What is being read may be older than what was told: it is read again.
      this.#again ||= this.#reading;
      if (sides || !traded) return;
    }
    this.#from = Math.min(this.#from, bar.time);
    this.#readSoon();
  }

  /** Say that the symbol's quote changed: if the socket then tells no bar, they are read. */
  moved() {
    const now = performance.now();
    if (now - this.#heardAt > SILENT_MS && now - this.#readAt > SILENT_MS) this.#readSoon();
  }

  /** Read what is newer than the last bar but one, and than what is known to have changed (a page back at most), once;
      what is asked for meanwhile is done after it. */
  async catchUp() {
    if (!this.all.length) {
      this.complete = false;
      this.older();
      return;
    }
    if (this.#reading) {
      this.#again = true;
      return;
    }
    const { signal } = this.#abort;
    const behind = (this.all.at(-2) ?? this.all[0]).time;
    const start = Math.max(this.all[Math.max(0, this.all.length - PAGE)].time, Math.min(behind, this.#from));
    this.#reading = true;
    this.#from = Infinity;
    try {
      let token = null;
      for (let pages = 0; pages === 0 || token !== null; pages += 1) {
        if (pages === MOST_PAGES_BEHIND) {
          this.view.anew();
          this.open(this.symbol, this.interval, this.side);
          return;
        }
        const page = await this.#page(
          { start: new Date(start * 1000).toISOString(), order: "asc", page_token: token },
          signal,
        );
        for (const row of page.bars) this.#put(barOf(row));
        token = page.next_page_token;
      }
      this.#say("ready");
    } catch {
      // The next bar, quote or reconnect asks again; what is shown stays.
      if (!signal.aborted) this.#from = Math.min(this.#from, start);
    }
    if (signal.aborted) return;
    this.#reading = false;
    this.#readAt = performance.now();
    if (this.#again) {
      this.#again = false;
      this.#readSoon();
    }
  }

  #say(state) {
    this.state = state;
    this.view.state();
  }

  #readSoon() {
    if (this.#timer || !this.symbol) return;
    const waitMs = Math.max(0, READ_EVERY_MS - (performance.now() - this.#readAt));
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (!this.#resting) this.catchUp();
    }, waitMs);
  }

  #page(params, signal) {
    const path = `/api/bars/${encodeURIComponent(this.symbol)}`;
    return this.api.get(path, { interval: this.interval, price: this.side, limit: PAGE, ...params }, signal);
  }

  #put(bar) {
    const bars = this.all;
    const place = placeOf(bars, bar.time);
    const there = bars[place]?.time === bar.time;
    if (there && equal(bars[place], bar)) return;
    if (there) {
      bars[place] = bar;
      this.view.update(bar, place < bars.length - 1);
    } else if (place === bars.length) {
      bars.push(bar);
      if (bars.length > MOST_BARS + SPARE_BARS) {
        bars.splice(0, SPARE_BARS);
        this.complete = false;
        this.view.reset(bars);
      } else {
        this.view.update(bar, false);
      }
    } else if (place > 0) {
      bars.splice(place, 0, bar);
      this.view.reset(bars);
    }
  }
}
