/** REST: requests with the key, errors as the server says them, a key asked for when there is none. */

const KEY = "tickhub.key";
const TIMEOUT_MS = 20_000;

export class ApiError extends Error {
  constructor(status, code, message, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The key, kept as long as its tab, and the one place where people are asked for it. */
export class Keys {
  #asking = null;
  /** Nobody wanted to give one: it is asked for again when a person wants to. */
  declined = false;

  /** askPerson(why): a promise of a key, null when nobody wants to give one. */
  constructor(storage, askPerson) {
    this.storage = storage;
    this.askPerson = askPerson;
  }

  get current() {
    return this.storage.getItem(KEY) ?? "";
  }

  /** Return whether there is another key than `refused` now; asks at most once at a time. */
  async other(refused, why) {
    if (this.current !== refused) return true;
    if (this.declined) return false;
    this.#asking ??= this.askPerson(why).finally(() => (this.#asking = null));
    const given = await this.#asking;
    this.declined = !given;
    if (!given) return false;
    this.storage.setItem(KEY, given);
    return true;
  }
}

export class Api {
  constructor(keys, clock) {
    this.keys = keys;
    this.clock = clock;
  }

  get(path, params = {}, signal = undefined) {
    const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value != null));
    return this.#send("GET", query.size ? `${path}?${query}` : path, undefined, signal);
  }

  post(path, body) {
    return this.#send("POST", path, JSON.stringify(body));
  }

  async #send(method, path, body, signal) {
    for (;;) {
      const key = this.keys.current;
      const headers = { Accept: "application/json" };
      if (key) headers["X-API-Key"] = key;
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const limit = AbortSignal.timeout(TIMEOUT_MS);
      const asked = this.clock.now();
      let response, answer;
      try {
        response = await fetch(path, {
          method,
          headers,
          body,
          cache: "no-store",
          credentials: "omit",
          signal: signal ? AbortSignal.any([signal, limit]) : limit,
        });
        this.clock.answered(response.headers.get("Date"), asked);
        answer = await response.json();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ApiError(response?.status ?? 0, "unreachable", "The server does not answer");
      }
      if (response.ok) return answer;
      if (response.status === 401 && (await this.keys.other(key, key ? answer.message : ""))) continue;
      const retryAfterMs = 1000 * Number(response.headers.get("Retry-After") ?? 0) || 0;
      throw new ApiError(response.status, answer.code ?? "", answer.message ?? response.statusText, retryAfterMs);
    }
  }
}
