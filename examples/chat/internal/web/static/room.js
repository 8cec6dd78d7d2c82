// What this page knows of one room.

const KEEP = 2000; // messages beyond those in view

export class Room {
  constructor({ id, name }) {
    Object.assign(this, { id, name });
    this.messages = new Map(); // by ID
    this.sorted = []; // by seq; those on their way last
    this.notes = []; // {after: seq, text}
    this.loaded = false; // history has been read
    this.whole = false; // up to its beginning
    this.show = 200; // newest messages in view
    this.unread = 0;
    this.typing = new Map(); // user → when it ends
    this.here = [];
  }

  get topic() {
    return `room:${this.id}`;
  }

  /** Adds or completes a message; reports whether it is new. */
  add(m) {
    const old = this.messages.get(m.id);
    if (!old) {
      this.messages.set(m.id, m);
      this.#place(m);
      this.#trim();
      return true;
    }
    if (m !== old && m.seq && !old.seq) {
      Object.assign(old, m, { state: "" });
      this.settle(old);
    }
    return false;
  }

  remove(m) {
    this.messages.delete(m.id);
    const i = this.sorted.lastIndexOf(m);
    if (i >= 0) this.sorted.splice(i, 1);
  }

  /** Puts a message in its place after its seq has become known. */
  settle(m) {
    const i = this.sorted.lastIndexOf(m);
    if (i >= 0) this.sorted.splice(i, 1);
    this.#place(m);
  }

  // Mostly at the end or near it.
  #place(m) {
    let i = this.sorted.length;
    while (i > 0 && (rank(this.sorted[i - 1]) > rank(m) || (rank(this.sorted[i - 1]) === rank(m) && this.sorted[i - 1].at > m.at))) i--;
    this.sorted.splice(i, 0, m);
  }

  #trim() {
    if (this.sorted.length < this.show + KEEP) return;
    for (const m of this.sorted.splice(0, KEEP / 2)) this.messages.delete(m.id);
    this.whole = false;
  }

  get newest() {
    for (let i = this.sorted.length - 1; i >= 0; i--) if (this.sorted[i].seq) return this.sorted[i].seq;
    return 0;
  }

  get oldest() {
    return this.sorted.find((m) => m.seq)?.seq ?? 0;
  }
}

const rank = (m) => m.seq || Number.MAX_SAFE_INTEGER;
