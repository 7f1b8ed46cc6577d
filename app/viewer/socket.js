/** The connection to /ws: kept up for ever, and what it should be told again after every reconnect.

States: "connecting", "open", "waiting" (until `retryAt`), "paused" (the page is hidden for long). */

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const STEADY_MS = 10_000;
const CONNECT_MS = 10_000;
const QUIET_MS = 10_000;
const PONG_MS = 5_000;
const LOOK_MS = 1_000;
const HIDDEN_MS = 60_000;
const CONFLATE_MS = 100;
const POLICY = 1008;

/** Return how long to wait before try number `tries` (from 0): doubled each time, and never all clients at once. */
export function backoffMs(tries, random = Math.random) {
  const most = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(tries, 10));
  return most * (0.5 + random() / 2);
}

export class Live {
  state = "connecting";
  retryAt = 0;
  #socket = null;
  #tries = 0;
  #openedAt = 0;
  #heardAt = 0;
  #pingedAt = 0;
  #timer = 0;
  #hiddenTimer = 0;
  #refused = "";
  #quotes = new Set();
  #bars = null;

  /** on: {state(), message(object), opened(), refused(why): a promise whether to try again}. */
  constructor(url, keys, on, { Socket = WebSocket, now = () => performance.now() } = {}) {
    this.url = url;
    this.keys = keys;
    this.on = on;
    this.Socket = Socket;
    this.now = now;
  }

  start() {
    window.addEventListener("online", () => this.retryNow());
    // A page that is left and comes back from the browser's cache has a dead socket.
    window.addEventListener("pageshow", (event) => event.persisted && this.retryNow());
    document.addEventListener("visibilitychange", () => this.#seen());
    setInterval(() => this.#look(), LOOK_MS);
    this.#connect();
  }

  /** Connect at once if there is no connection. */
  retryNow() {
    if (this.state === "open" || this.state === "connecting") return;
    this.#tries = 0;
    this.#connect();
  }

  /** Watch the quotes of exactly these symbols. */
  watch(symbols) {
    const wanted = new Set(symbols);
    const added = [...wanted].filter((name) => !this.#quotes.has(name));
    const gone = [...this.#quotes].filter((name) => !wanted.has(name));
    this.#quotes = wanted;
    if (gone.length) this.#say({ action: "unsubscribe", symbols: gone, channels: ["quotes"] });
    if (added.length) this.#subscribeQuotes(added);
  }

  /** Watch the bars of one symbol and interval. */
  watchBars(symbol, interval) {
    const before = this.#bars;
    if (before?.symbol === symbol && before.interval === interval) return;
    this.#bars = { symbol, interval };
    if (before) this.#sayBars("unsubscribe", before);
    this.#sayBars("subscribe", this.#bars);
  }

  #subscribeQuotes(symbols) {
    this.#say({ action: "subscribe", symbols, channels: ["quotes"], conflate_ms: CONFLATE_MS, batch: true });
  }

  #sayBars(action, { symbol, interval }) {
    this.#say({ action, symbols: [symbol], channels: ["bars"], interval });
  }

  #say(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#drop();
    const socket = new this.Socket(this.url);
    this.#socket = socket;
    this.#refused = "";
    this.#openedAt = 0;
    this.#pingedAt = 0;
    this.#heardAt = this.now();
    const key = this.keys.current;
    socket.onopen = () => {
      this.#openedAt = this.#heardAt = this.now();
      if (key) this.#say({ action: "auth", key });
      if (this.#quotes.size) this.#subscribeQuotes([...this.#quotes]);
      if (this.#bars) this.#sayBars("subscribe", this.#bars);
      this.#enter("open");
      this.on.opened();
    };
    socket.onmessage = ({ data }) => {
      this.#heardAt = this.now();
      this.#pingedAt = 0;
      let said;
      try {
        said = JSON.parse(data);
      } catch {
        return; // not ours; the next frame may be
      }
      for (const message of Array.isArray(said) ? said : [said]) {
        if (message?.type === "error" && ["unauthorized", "forbidden"].includes(message.code)) {
          this.#refused = message.message || message.code;
        }
        if (message?.type) this.on.message(message);
      }
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason, key);
    this.#enter("connecting");
  }

  async #closed(code, reason, key) {
    this.#drop();
    if (document.hidden && this.state === "paused") return;
    if (code === POLICY && this.#refused) {
      this.#enter("waiting");
      const other = await this.keys.other(key, key ? this.#refused || reason : "");
      if (this.state !== "waiting") return;
      this.#tries = 0;
      if (!other) {
        this.#enter("waiting"); // for whoever gives one: `retryNow`
        return;
      }
    } else if (this.#openedAt && this.now() - this.#openedAt > STEADY_MS) {
      this.#tries = 0;
    }
    const waitMs = backoffMs(this.#tries);
    this.#tries += 1;
    this.retryAt = this.now() + waitMs;
    this.#timer = setTimeout(() => this.#connect(), waitMs);
    this.#enter("waiting");
  }

  /** Forget the socket at once: closing one that is dead can take the browser a minute. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (socket.readyState < 2) socket.close();
  }

  #look() {
    const quietMs = this.now() - this.#heardAt;
    if (this.state === "connecting" && this.#socket && quietMs > CONNECT_MS) {
      this.#closed(0, "", this.keys.current);
    } else if (this.state === "open") {
      if (this.#pingedAt && this.now() - this.#pingedAt > PONG_MS) {
        this.#closed(0, "", this.keys.current);
      } else if (!this.#pingedAt && quietMs > QUIET_MS) {
        this.#pingedAt = this.now();
        this.#say({ action: "ping" });
      }
    }
  }

  #seen() {
    clearTimeout(this.#hiddenTimer);
    if (!document.hidden) {
      this.retryNow();
      return;
    }
    this.#hiddenTimer = setTimeout(() => {
      clearTimeout(this.#timer);
      this.#enter("paused");
      this.#drop();
    }, HIDDEN_MS);
  }

  #enter(state) {
    this.state = state;
    this.on.state();
  }
}
