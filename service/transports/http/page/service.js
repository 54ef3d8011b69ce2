// Calls of the service that this page came from.

/** @typedef {import("./answers.js").Description} Description */

/** What the service says of a call that it could not serve. */
export class ServiceError extends Error {
  /** @param {number} status @param {string} message @param {string} hint */
  constructor(status, message, hint = "") {
    super([message, hint].filter(Boolean).join(" "));
    this.status = status;
  }
}

/**
 * @typedef {object} Call
 * @property {FormData | object | null} [body]  a form, or what becomes JSON; null for no body
 * @property {Record<string, string | number>} [options]  in the query
 * @property {AbortSignal} [signal]
 * @property {(share: number) => void} [sent]  told of the share of the body that has been sent
 */

const TOKEN_REFUSED = 401;
const BUSY = 429;
const BUSY_SECONDS = 2;

export class Service {
  /** @param {(wasRefused: boolean) => Promise<string | null>} askForToken */
  constructor(askForToken) {
    this.askForToken = askForToken;
    this.token = ""; // kept in this page's memory only
  }

  /**
   * Return the JSON that an endpoint answers. Where the service asks for a token, so does the page; where it is busy,
   * the call is made again later. Throws ServiceError, and an AbortError once the signal says so.
   * @param {string} endpoint
   * @param {Call} call
   * @returns {Promise<any>}
   */
  async call(endpoint, call = {}) {
    for (;;) {
      const { status, text, retryAfter } = await this.#send(endpoint, call);
      if (status === TOKEN_REFUSED) {
        const token = await this.askForToken(Boolean(this.token));
        if (token === null) throw new ServiceError(status, "The service wants a token.");
        this.token = token;
      } else if (status === BUSY) {
        await wait(1000 * (retryAfter || BUSY_SECONDS), call.signal);
      } else if (status >= 200 && status < 300) {
        return JSON.parse(text);
      } else {
        throw readError(status, text);
      }
    }
  }

  /**
   * @param {string} endpoint
   * @param {Call} call
   * @returns {Promise<{status: number, text: string, retryAfter: number}>}
   */
  #send(endpoint, { body = null, options = {}, signal, sent }) {
    return new Promise((resolve, reject) => {
      // Only this interface tells how much of a body has been sent.
      const request = new XMLHttpRequest();
      const url = new URL(endpoint, document.baseURI);
      for (const [name, value] of Object.entries(options)) url.searchParams.set(name, String(value));
      request.open("POST", url);
      request.setRequestHeader("Accept", "application/json");
      if (this.token) request.setRequestHeader("Authorization", `Bearer ${this.token}`);
      const stop = () => request.abort();
      signal?.addEventListener("abort", stop, { once: true });
      const finish = () => signal?.removeEventListener("abort", stop);
      if (sent) request.upload.addEventListener("progress", (event) => sent(event.total ? event.loaded / event.total : 1));
      request.addEventListener("load", () => {
        finish();
        const retryAfter = Number(request.getResponseHeader("Retry-After"));
        resolve({ status: request.status, text: request.responseText, retryAfter });
      });
      request.addEventListener("error", () => {
        finish();
        reject(new ServiceError(0, "The service does not answer.", "Is it running, and reachable from here?"));
      });
      request.addEventListener("abort", () => {
        finish();
        reject(new DOMException("The call was cancelled.", "AbortError"));
      });
      if (signal?.aborted) return request.abort(), reject(new DOMException("The call was cancelled.", "AbortError"));
      if (body === null || body instanceof FormData) request.send(body);
      else {
        request.setRequestHeader("Content-Type", "application/json");
        request.send(JSON.stringify(body));
      }
    });
  }
}

/** @param {number} status @param {string} text */
function readError(status, text) {
  try {
    const { error } = JSON.parse(text);
    return new ServiceError(status, error.message, error.hint);
  } catch {
    return new ServiceError(status, `The service answered with status ${status}.`);
  }
}

/** @param {number} milliseconds @param {AbortSignal} [signal] @returns {Promise<void>} */
function wait(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("The call was cancelled.", "AbortError"));
    });
  });
}
