/** The watch list: a row a symbol, written once a frame at most. */

import { age, percent, points, price, signed } from "./format.js";
import { write } from "./frame.js";

const FLASH_MS = 250;
/** A cell that moves all the time flashes twice a second: more would be a light that is on. */
const REST_MS = 500;
const SWEEP_MS = 80;
const OLD_MS = 60_000;

const CELLS = ["symbol", "bid", "ask", "spread", "change", "age", "remove"];

export class WatchList {
  #rows = new Map();
  #dirty = new Set();
  #flashing = new Map();
  #sweeping = 0;
  #write = () => this.#writeDirty();
  #sweep = () => this.#endFlashes();

  /** on: {choose(symbol), remove(symbol), move(symbol, by)}. */
  constructor({ body, empty, frames, quotes, instruments, clock, on }) {
    Object.assign(this, { body, empty, frames, quotes, instruments, clock, on });
    this.chosen = null;
    body.addEventListener("click", (event) => this.#click(event));
    body.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show these symbols in this order. */
  show(symbols) {
    const wanted = new Set(symbols);
    for (const [symbol, row] of this.#rows) {
      if (wanted.has(symbol)) continue;
      this.#rows.delete(symbol);
      this.#dirty.delete(symbol);
      for (const side of ["bid", "ask"]) this.#flashing.delete(row.cells[side]);
      row.line.remove();
    }
    symbols.forEach((symbol, at) => {
      let row = this.#rows.get(symbol);
      if (!row) {
        row = this.#make(symbol);
        this.#rows.set(symbol, row);
      }
      if (this.body.children[at] !== row.line) this.body.insertBefore(row.line, this.body.children[at] ?? null);
      this.changed(symbol);
    });
    this.choose(this.chosen);
  }

  /** Say why there is nothing to see; "" when there is. */
  explain(text) {
    this.empty.hidden = !text;
    write(this.empty, text);
  }

  choose(symbol) {
    this.chosen = symbol;
    const rows = [...this.#rows.values()];
    for (const { line } of rows) {
      const chosen = line.dataset.symbol === symbol;
      line.setAttribute("aria-selected", String(chosen));
      line.tabIndex = chosen ? 0 : -1;
    }
    if (!this.#rows.has(symbol) && rows.length) rows[0].line.tabIndex = 0;
  }

  focus(symbol) {
    const line = this.#rows.get(symbol)?.line;
    line?.focus({ preventScroll: true });
    line?.scrollIntoView({ block: "nearest" });
  }

  /** Write the symbol's row in the next frame. */
  changed(symbol) {
    if (!this.#rows.has(symbol)) return;
    this.#dirty.add(symbol);
    this.frames.mark(this.#write);
  }

  /** Say of symbols why the server gives no quotes of them. */
  refused(reasons) {
    for (const [symbol, row] of this.#rows) {
      const { code, message: why = "" } = reasons.get(symbol) ?? {};
      if (row.line.title === why) continue;
      row.line.title = why;
      row.why = code === "unknown_symbol" ? "unknown" : why;
      row.line.classList.toggle("refused", Boolean(why));
      this.changed(symbol);
    }
  }

  /** Write all ages; to be called every second. */
  ages() {
    const now = this.clock.server();
    for (const [symbol, { cells, line }] of this.#rows) {
      const quote = this.quotes.get(symbol);
      const ageMs = quote?.timeMs == null ? null : now - quote.timeMs;
      this.#age(line, cells.age, ageMs);
    }
  }

  #age(line, cell, ageMs) {
    write(cell, age(ageMs));
    const old = ageMs !== null && ageMs > OLD_MS;
    if (line.classList.toggle("old", old) !== (cell.title !== "")) cell.title = old ? "No tick for over a minute" : "";
  }

  #make(symbol) {
    const line = document.createElement("tr");
    line.dataset.symbol = symbol;
    const cells = {};
    for (const name of CELLS) {
      const cell = document.createElement(name === "symbol" ? "th" : "td");
      cell.className = name;
      line.append(cell);
      cells[name] = cell;
    }
    cells.symbol.scope = "row";
    const name = document.createElement("small");
    cells.symbol.append(symbol, name);
    cells.name = name;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.tabIndex = -1;
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Take ${symbol} off the list`);
    cells.remove.append(remove);
    return { line, cells, why: "" };
  }

  #writeDirty() {
    const now = this.clock.server();
    for (const symbol of this.#dirty) {
      const { cells, line, why } = this.#rows.get(symbol);
      const quote = this.quotes.get(symbol);
      const digits = this.instruments.digits(symbol);
      write(cells.name, why || this.instruments.nameOf(symbol));
      if (!quote) {
        for (const name of ["bid", "ask", "spread", "change", "age"]) write(cells[name], "–");
        continue;
      }
      this.#side(cells.bid, price(quote.bid, digits), quote.bidMove);
      this.#side(cells.ask, price(quote.ask, digits), quote.askMove);
      quote.bidMove = quote.askMove = 0;
      write(cells.spread, points(quote.spread));
      const change = quote.change ?? null;
      const text = quote.change_percent == null ? signed(change, digits) : percent(quote.change_percent);
      write(cells.change, text);
      cells.change.title = change === null ? "" : signed(change, digits);
      cells.change.dataset.sign = change === null ? 0 : Math.sign(change);
      const ageMs = quote.timeMs === null ? null : now - quote.timeMs;
      this.#age(line, cells.age, ageMs);
    }
    this.#dirty.clear();
  }

  #side(cell, text, move) {
    write(cell, text);
    if (!move) return;
    if (this.#flashing.has(cell)) return;
    cell.dataset.move = move > 0 ? "up" : "down";
    cell.classList.add("flash");
    this.#flashing.set(cell, performance.now());
    this.#sweeping ||= this.#sweepSoon();
  }

  /** End flashes that are over: one timer for all cells. */
  #endFlashes() {
    const now = performance.now();
    for (const [cell, since] of this.#flashing) {
      if (now - since >= FLASH_MS) cell.classList.remove("flash");
      if (now - since >= REST_MS) this.#flashing.delete(cell);
    }
    this.#sweeping = this.#flashing.size ? this.#sweepSoon() : 0;
  }

  #sweepSoon() {
    return setTimeout(() => this.frames.now(this.#sweep), SWEEP_MS);
  }

  #click(event) {
    const line = event.target.closest("tr");
    if (!line) return;
    if (event.target.closest("button")) this.on.remove(line.dataset.symbol);
    else this.on.choose(line.dataset.symbol);
  }

  #key(event) {
    const line = event.target.closest("tr");
    if (!line || event.ctrlKey || event.metaKey) return;
    const symbol = line.dataset.symbol;
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const to = { Home: this.body.firstElementChild, End: this.body.lastElementChild }[event.key];
    if (by && event.altKey) {
      this.on.move(symbol, by);
      this.focus(symbol);
    } else if (by || to) {
      const next = to ?? (by < 0 ? line.previousElementSibling : line.nextElementSibling);
      if (next) {
        this.on.choose(next.dataset.symbol);
        this.focus(next.dataset.symbol);
      }
    } else if (event.key === "Enter" || event.key === " ") {
      this.on.choose(symbol);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      const next = line.nextElementSibling ?? line.previousElementSibling;
      this.on.remove(symbol);
      if (next) this.focus(next.dataset.symbol);
    } else {
      return;
    }
    event.preventDefault();
  }
}
