/** The search field: a combobox over the server's instruments (https://www.w3.org/WAI/ARIA/apg/patterns/combobox). */

import { isName } from "./instruments.js";

export class Search {
  #options = [];
  #active = -1;

  /** on: {choose(symbol), add(name): for a name that no instrument has, watched(symbol)}. */
  constructor({ input, list, instruments, on }) {
    Object.assign(this, { input, list, instruments, on });
    input.addEventListener("focus", () => this.#open());
    input.addEventListener("input", () => this.#fill());
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("blur", () => this.close());
    // Before the blur that a press would cause.
    list.addEventListener("pointerdown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#take(Number(option.dataset.at));
    });
  }

  close() {
    this.list.hidden = true;
    this.list.replaceChildren();
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  async #open() {
    this.#fill();
    await this.instruments.freshen();
    if (document.activeElement !== this.input) return;
    const chosen = this.#options[this.#active]?.symbol;
    this.#fill();
    const at = this.#options.findIndex(({ symbol }) => symbol === chosen);
    if (chosen && at >= 0) this.#activate(at);
  }

  #fill() {
    const text = this.input.value.trim();
    this.#options = this.instruments.search(text).map((row) => ({ row, symbol: row.symbol }));
    const unknown = text && this.instruments.loaded && !this.instruments.exact(text);
    if (unknown && isName(text)) this.#options.push({ add: /[A-Z]/.test(text) ? text : text.toUpperCase() });
    this.list.replaceChildren(...this.#options.map((option, at) => this.#line(option, at)));
    if (text && !this.#options.length) this.list.append(this.#none());
    this.list.hidden = !this.list.children.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    this.#activate(text && this.#options.length ? 0 : -1);
  }

  #none() {
    const line = document.createElement("li");
    line.className = "none";
    line.textContent = this.instruments.loaded
      ? "No such symbol, and none may have this name"
      : "The server’s symbols cannot be read yet";
    return line;
  }

  #line({ row, add }, at) {
    const line = document.createElement("li");
    line.id = `found-${at}`;
    line.setAttribute("role", "option");
    line.dataset.at = at;
    const strong = document.createElement("b");
    const small = document.createElement("small");
    if (add) {
      strong.textContent = `Add “${add}” …`;
      small.textContent = "unknown to the server: a new instrument";
    } else {
      strong.textContent = row.symbol;
      small.textContent = row.name ?? row.aliases.join(", ");
    }
    line.append(strong, small);
    if (row && this.on.watched(row.symbol)) line.append(mark());
    return line;
  }

  #activate(at) {
    this.#active = at;
    for (const line of this.list.children) {
      line.setAttribute("aria-selected", String(Number(line.dataset.at) === at));
    }
    const line = this.list.children[at];
    if (line) this.input.setAttribute("aria-activedescendant", line.id);
    else this.input.removeAttribute("aria-activedescendant");
    line?.scrollIntoView({ block: "nearest" });
  }

  #take(at) {
    const option = this.#options[at];
    if (!option) return;
    this.input.value = "";
    this.close();
    this.input.blur();
    if (option.add) this.on.add(option.add);
    else this.on.choose(option.symbol);
  }

  #key(event) {
    const count = this.#options.length;
    if (event.key === "ArrowDown" && count) this.#activate((this.#active + 1) % count);
    else if (event.key === "ArrowUp" && count) this.#activate((this.#active - 1 + count) % count);
    else if (event.key === "Enter") this.#take(Math.max(0, this.#active));
    else if (event.key === "Escape") {
      this.input.value = "";
      this.input.blur();
    } else return;
    event.preventDefault();
  }
}

function mark() {
  const watched = document.createElement("span");
  watched.textContent = "✓";
  watched.title = "On the watch list";
  return watched;
}
