// What this page knows of one room.

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
    if (old) {
      const settled = m.seq && !old.seq;
      if (m.seq) Object.assign(old, m, { state: "" });
      if (settled) this.#sort();
      return false;
    }
    this.messages.set(m.id, m);
    this.sorted.push(m);
    const n = this.sorted.length;
    if (n > 1 && rank(this.sorted[n - 2]) > rank(m)) this.#sort();
    return true;
  }

  remove(m) {
    this.messages.delete(m.id);
    this.sorted = this.sorted.filter((x) => x !== m);
  }

  /** Puts a message in its place after its seq has become known. */
  settle() {
    this.#sort();
  }

  #sort() {
    this.sorted.sort((a, b) => rank(a) - rank(b) || a.at - b.at);
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
