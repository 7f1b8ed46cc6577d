/** The newest quote of each watched symbol, and how late quotes come in. */

const MOST_LAGS = 128;

export class Quotes {
  #bySymbol = new Map();
  #lags = [];

  constructor(clock) {
    this.clock = clock;
  }

  get(symbol) {
    return this.#bySymbol.get(symbol);
  }

  /** Take a message; return the quote with the directions in which bid and ask moved. */
  take(message) {
    const before = this.#bySymbol.get(message.symbol);
    const timeMs = Date.parse(message.timestamp ?? "");
    const quote = {
      ...message,
      timeMs: Number.isFinite(timeMs) ? timeMs : null,
      bidMove: move(before?.bid, message.bid),
      askMove: move(before?.ask, message.ask),
    };
    this.#bySymbol.set(message.symbol, quote);
    if (!message.snapshot && quote.timeMs !== null) {
      this.#lags.push(this.clock.server() - quote.timeMs);
      if (this.#lags.length > MOST_LAGS) this.#lags.splice(0, MOST_LAGS / 2);
    }
    return quote;
  }

  /** Keep nothing of symbols that nobody watches. */
  keepOnly(symbols) {
    const wanted = new Set(symbols);
    for (const symbol of this.#bySymbol.keys()) if (!wanted.has(symbol)) this.#bySymbol.delete(symbol);
  }

  /** Return the median time from tick to page (ms) since the last call; null when none came in. */
  lag() {
    const lags = this.#lags.sort((a, b) => a - b);
    this.#lags = [];
    return lags.length ? lags[lags.length >> 1] : null;
  }
}

const move = (before, now) => (before == null || now == null || before === now ? 0 : now > before ? 1 : -1);
