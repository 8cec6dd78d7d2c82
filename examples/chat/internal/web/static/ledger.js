// Counts what this page lost and what it got twice, from the messages alone: each sender numbers its messages to a room from 1, and each
// message has an ID. It knows nothing of positions and resuming, so it would tell when those are wrong.

export class Ledger {
  #senders = new Map(); // "room client" → {numbers, low, high}
  #delivered = new Set(); // IDs that the socket brought
  duplicates = 0;

  /** Notes a message from any source: it is not lost. */
  note(m) {
    if (!m.client || !m.n) return;
    const key = `${m.room} ${m.client}`;
    let s = this.#senders.get(key);
    if (!s) this.#senders.set(key, (s = { numbers: new Set(), low: m.n, high: m.n }));
    s.numbers.add(m.n);
    s.low = Math.min(s.low, m.n);
    s.high = Math.max(s.high, m.n);
  }

  /** Notes a message that the socket brought. */
  deliver(m) {
    if (this.#delivered.has(m.id)) this.duplicates++;
    this.#delivered.add(m.id);
    this.note(m);
  }

  /** How many messages are missing between those that are here. */
  get lost() {
    let n = 0;
    for (const s of this.#senders.values()) n += s.high - s.low + 1 - s.numbers.size;
    return n;
  }
}
