// Messages on their way to a room: one at a time, in order, each repeated with its ID until the server has taken it.

import { persist, newID } from "./api.js";

export class Outbox {
  #queue = [];
  #busy = false;
  #taken = 0; // number of the last message that the server took

  constructor(room, client, user, changed) {
    Object.assign(this, { room, client, user, changed });
  }

  /** Puts a message in and returns it as it is shown meanwhile. */
  send(text, file = "") {
    const m = { id: newID(), room: this.room, user: this.user, client: this.client, text, file, at: Date.now(), seq: 0, state: "sending" };
    this.#queue.push(m);
    this.changed(m);
    this.#work();
    return m;
  }

  get waiting() {
    return this.#queue.length;
  }

  /** Takes a refused message out. */
  drop(m) {
    this.#queue = this.#queue.filter((q) => q !== m);
    this.#work();
  }

  /** Tries a refused message again. */
  again(m) {
    m.state = "sending";
    this.changed(m);
    this.#work();
  }

  async #work() {
    if (this.#busy || this.#queue.length === 0 || this.#queue[0].state === "failed") return;
    this.#busy = true;
    const m = this.#queue[0];
    m.n = this.#taken + 1;
    try {
      const { id, room, text, file, client, n } = m;
      const taken = await persist("POST", "/api/v4/posts", { id, room, text, file, client, n }, () => {
        m.state = "retrying";
        this.changed(m);
      });
      this.#taken = n;
      Object.assign(m, { seq: taken.seq, at: taken.at, state: "" });
      this.#queue.shift();
    } catch (e) {
      m.state = "failed";
      m.error = e.message;
    }
    this.#busy = false;
    this.changed(m);
    this.#work();
  }
}
