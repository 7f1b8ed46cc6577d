/** Writes to the page, once an animation frame however often they are asked for; none while the page is hidden. */
export class Frames {
  #writes = new Set();
  #asked = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  /** Run `write` in the next frame. It is known by its identity: pass the same function each time. */
  mark(write) {
    this.#writes.add(write);
    this.#ask();
  }

  /** Run `write` at once; when the page is hidden, in the frame in which it is seen again. */
  now(write) {
    if (document.hidden) this.mark(write);
    else write();
  }

  #ask() {
    if (this.#asked || document.hidden || !this.#writes.size) return;
    this.#asked = requestAnimationFrame(() => {
      this.#asked = 0;
      if (document.hidden) return; // asked for before; what is marked waits
      const writes = [...this.#writes];
      this.#writes.clear();
      for (const write of writes) write();
    });
  }
}

/** Call `work` every `periodMs` while the page is seen, and at once when it is seen again. */
export function whileSeen(periodMs, work) {
  let timer = 0;
  const look = () => {
    clearInterval(timer);
    if (document.hidden) return;
    work();
    timer = setInterval(work, periodMs);
  };
  document.addEventListener("visibilitychange", look);
  look();
}

/** Set the text of a node, if it is another one: what does not change costs no layout. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
