/** The symbol's heading, and the legend of the bar under the pointer. */

import { compact, percent, price, signed } from "./format.js";
import { write } from "./frame.js";
import { fullLabel } from "./timescale.js";

const byId = (id) => document.getElementById(id);

export class Heading {
  #cells = {};

  constructor() {
    const legend = byId("legend");
    for (const [name, label] of [
      ["time", "Time"],
      ["open", "O"],
      ["high", "H"],
      ["low", "L"],
      ["close", "C"],
      ["move", "Change"],
      ["volume", "Vol"],
      ["buy", "Buy"],
      ["sell", "Sell"],
    ]) {
      const group = document.createElement("div");
      group.className = name;
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = label;
      group.append(term, value);
      legend.append(group);
      this.#cells[name] = { group, term, value };
    }
  }

  symbol(symbol, name) {
    write(byId("symbol"), symbol ?? "–");
    write(byId("name"), name);
  }

  quote(quote, digits) {
    write(byId("price"), price(quote?.price ?? quote?.bid, digits));
    const change = byId("change");
    const none = quote?.change == null;
    write(change, none ? "" : `${signed(quote.change, digits)} (${percent(quote.change_percent)})`);
    change.dataset.sign = none ? 0 : Math.sign(quote.change);
  }

  /** before: the bar before it, for its change. */
  bar(bar, before, { digits, interval, utc, byTicks }) {
    byId("legend").hidden = !bar;
    if (!bar) return;
    const days = /[dwM]$/.test(interval);
    const cells = this.#cells;
    write(cells.time.value, fullLabel(bar.time, { utc: utc || days, days, seconds: interval.endsWith("s") }));
    for (const name of ["open", "high", "low", "close"]) write(cells[name].value, price(bar[name], digits));
    const base = before?.close ?? bar.open;
    write(cells.move.value, base > 0 ? percent((100 * (bar.close - base)) / base) : "–");
    cells.move.value.dataset.sign = Math.sign(bar.close - base);
    write(cells.volume.term, byTicks ? "Ticks" : "Vol");
    write(cells.volume.value, compact(byTicks ? bar.ticks : bar.volume));
    for (const name of ["buy", "sell"]) {
      cells[name].group.hidden = byTicks || bar[name] === null;
      write(cells[name].value, compact(bar[name]));
    }
  }
}
