"use strict";

/** A client of UDF, as the protocol describes it. Times in epoch seconds. */
class UdfDatafeed {
  constructor(url, headers = {}) {
    this.url = url;
    this.headers = headers;
  }

  async _ask(name, params = {}) {
    const response = await fetch(`${this.url}/${name}?${new URLSearchParams(params)}`, { headers: this.headers });
    return response.text();
  }

  /** Return a decoded answer. Throws what the feed says is wrong. */
  async _askJson(name, params) {
    const answer = JSON.parse(await this._ask(name, params));
    if (answer.s === "error") throw new Error(answer.errmsg);
    return answer;
  }

  config() {
    return this._askJson("config");
  }

  symbol(name) {
    return this._askJson("symbols", { symbol: name });
  }

  async time() {
    return parseInt(await this._ask("time"), 10);
  }

  /** Return { bars, nextTime, noData }. `from` is a hint when `countback` is given. */
  async bars(symbol, resolution, { from, to, countback }) {
    const params = { symbol: symbol.ticker, resolution, from, to };
    if (countback !== undefined) params.countback = countback;
    // As the library does it, with whatever the symbol said.
    if (symbol.currency_code !== undefined) params.currencyCode = symbol.currency_code;
    if (symbol.unit_id !== undefined) params.unitId = symbol.unit_id;
    const answer = await this._askJson("history", params);
    if (answer.s === "no_data") return { bars: [], noData: true, nextTime: answer.nextTime };
    const bars = answer.t.map((time, i) => ({
      time,
      open: answer.o[i],
      high: answer.h[i],
      low: answer.l[i],
      close: answer.c[i],
      volume: answer.v[i],
    }));
    return { bars, noData: false };
  }

  async quote(name) {
    const answer = await this._askJson("quotes", { symbols: name });
    return answer.d.find((quote) => quote.n === name);
  }
}

/** Length of a bar, at most, in seconds. */
function lengthOf(resolution) {
  const count = parseInt(resolution, 10) || 1;
  const units = { S: 1, D: 86400, W: 7 * 86400, M: 31 * 86400 };
  return count * (units[resolution.slice(-1)] || 60);
}
