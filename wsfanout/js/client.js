// Receives topics from hubs of nines/wsfanout, over as many connections as it takes. One file, no dependencies.
//
//   import { connect } from "/wsfanout.js";
//   const live = connect("/ws", { topics: ["room"], onmessage: m => show(m.data), ongap: g => reload(g.topic) });
//
// For each topic the client keeps a cursor. After a lost connection it resumes all topics from there, on whichever node answers; the hub says for
// each that nothing was missed, or that something was (ongap). A message that comes twice on the way is shown once.

const MAX_SEEN = 8;
const CONNECT = 15000; // milliseconds from handshake to hello
const SUBSCRIBE_BYTES = 24 << 10; // a hub reads frames of up to 32 KiB
const wellFormed = (s) => (s.toWellFormed ? s.toWellFormed() : s);
const escapeText = (s) => encodeURIComponent(wellFormed(s));

/** Where a client stands in a topic. The same rule as the Go package cursor. */
export class Cursor {
  constructor() {
    this.pos = { epoch: "", offset: 0 };
    this.seen = []; // {epoch, offset}: highest offset shown of each epoch, newest epoch first
    this.last = ""; // ID of the newest message shown
  }

  /** Reads what toString wrote; throws for anything else. */
  static parse(text) {
    const c = new Cursor();
    if (text === "") return c;
    const f = String(text).split("|");
    if (text.length > 4096 || f.length !== 4 || f[0] !== "1") throw new Error("malformed cursor");
    c.pos = parsePosition(f[1]);
    c.seen = f[2] === "" ? [] : f[2].split(",").map(parsePosition);
    if (c.seen.length > MAX_SEEN) throw new Error("malformed cursor");
    c.last = unescapeText(f[3]);
    return c;
  }

  get isZero() {
    return this.pos.epoch === "" && this.pos.offset === 0 && this.seen.length === 0 && this.last === "";
  }

  /** The resume cursor as hubs read it. */
  toString() {
    if (this.isZero) return "";
    const p = (x) => `${x.epoch}:${x.offset}`;
    return `1|${p(this.pos)}|${this.seen.map(p).join(",")}|${escapeText(this.last)}`;
  }

  /** Applies the start of an answer to a subscription. */
  start(at) {
    this.pos = { epoch: at.epoch, offset: at.offset };
  }

  /** Applies a record: "show", "old" (seen before), or "hole" (it does not follow: nothing has changed, subscribe again). */
  take(at, gap, id) {
    if (at.offset !== this.pos.offset + 1) return "hole";
    this.pos = { epoch: at.epoch, offset: at.offset };
    const i = this.seen.findIndex((s) => s.epoch === at.epoch);
    if (i >= 0) {
      if (at.offset <= this.seen[i].offset) return "old";
      this.seen.splice(i, 1);
    }
    this.seen.unshift({ epoch: at.epoch, offset: at.offset });
    this.seen.length = Math.min(this.seen.length, MAX_SEEN);
    if (!gap) this.last = id;
    return "show";
  }
}

function parsePosition(text) {
  const m = /^((?:\d+\.[A-Za-z0-9\-_.!~*'()%]*)?):(\d+)$/.exec(text);
  if (!m) throw new Error("malformed cursor");
  const dot = m[1].indexOf(".");
  let epoch = "";
  if (m[1] !== "") {
    const n = number(m[1].slice(0, dot));
    const node = unescapeText(m[1].slice(dot + 1));
    epoch = n === 0 && node === "" ? "" : `${n}.${escapeText(node)}`;
  }
  return { epoch, offset: number(m[2]) };
}

function number(text) {
  const n = Number(text);
  if (!Number.isSafeInteger(n)) throw new Error("malformed cursor");
  return n;
}

function unescapeText(text) {
  if (!/^(?:[A-Za-z0-9\-_.!~*'()]|%[0-9A-Fa-f]{2})*$/.test(text)) throw new Error("malformed cursor");
  return decodeURIComponent(text);
}

/** The pause before attempt n after a failure (1 is the first), in milliseconds: anywhere in a span that doubles. */
export function pause(fails, low, high, random = Math.random) {
  return random() * Math.min(high, low * 2 ** Math.min(fails - 1, 30));
}

/** Connects, and stays connected until close. */
export function connect(urls, options = {}) {
  return new Client(urls, options);
}

const FINAL = new Set([4001, 4003, 4009]); // not authenticated, revoked, replaced: coming back is of no use

class Client {
  #urls;
  #o;
  #id;
  #WebSocket;
  #topics = new Map(); // name → {cursor, ref, live, handler}
  #ws = null;
  #greeted = false;
  #at;
  #count = 0;
  #fails = 0;
  #since = 0;
  #hint = 0;
  #ref = 0;
  #pending = new Map(); // ref → {resolve, reject}
  #timer = null;
  #watch = null;
  #heard = 0;
  #config = null;
  #online = () => this.#state === "waiting" && this.#open();
  #state = "waiting";

  constructor(urls, options) {
    const base = globalThis.location ? globalThis.location.href : undefined;
    this.#urls = [urls].flat().map((u) => {
      const url = new URL(u, base);
      url.protocol = url.protocol.replace(/^http/, "ws");
      return url;
    });
    if (this.#urls.length === 0) throw new TypeError("connect: no URL");
    this.#o = {
      minRetry: 3000, maxRetry: 300000, silence: 80000,
      onmessage() {}, ongap() {}, onstate() {}, onhello() {}, ondenied() {}, onconfig() {}, onpresence() {}, onframe() {},
      ...options,
    };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#id = options.client ?? randomID();
    this.#at = Math.floor(Math.random() * this.#urls.length);
    this.stats = { connects: 0, messages: 0, filled: 0, ephemeral: 0, duplicates: 0, ignored: 0, holes: 0, gaps: 0, fresh: 0, resumed: 0 };
    for (const [name, text] of Object.entries(options.cursors ?? {})) this.#add(name, text);
    for (const name of options.topics ?? []) if (!this.#topics.has(name)) this.#add(name, "");
    globalThis.addEventListener?.("online", this.#online);
    this.#watch = setInterval(() => this.#silent(), Math.min(10000, this.#o.silence / 4));
    this.#open();
  }

  get state() {
    return this.#state;
  }

  /** Where each topic stands, to be stored and given to another connect as cursors. */
  cursors() {
    return Object.fromEntries([...this.#topics].map(([name, t]) => [name, t.cursor.toString()]));
  }

  /** Adds a topic: from now on, or from a cursor. The handler gets its messages before onmessage does. */
  subscribe(name, handler, cursor = "") {
    const t = this.#topics.get(name);
    if (t) {
      t.handler = handler ?? t.handler;
      return;
    }
    this.#add(name, cursor, handler);
    if (this.#greeted) this.#resume([name]);
  }

  /** Ends a topic and forgets where it stood. */
  unsubscribe(name) {
    if (this.#topics.delete(name) && this.#greeted) this.#send({ type: "unsubscribe", names: [name] });
  }

  /** Sends a message, if the hub takes messages of clients. Resolves when the hub has taken it. */
  publish(topic, data) {
    if (!this.#greeted) return Promise.reject(new Error("not connected"));
    const ref = ++this.#ref;
    return new Promise((resolve, reject) => {
      this.#pending.set(ref, { resolve, reject });
      this.#send({ type: "publish", ref, topic, data });
    });
  }

  /** Ends for good. */
  close() {
    this.#end(1000, "");
  }

  #add(name, text, handler) {
    this.#topics.set(name, { cursor: Cursor.parse(text), ref: 0, live: false, handler });
  }

  #set(state, detail) {
    this.#state = state;
    this.#o.onstate(state, detail);
  }

  #end(code, reason) {
    if (this.#state === "closed") return;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    globalThis.removeEventListener?.("online", this.#online);
    const ws = this.#ws;
    this.#lost();
    ws?.close(1000);
    this.#set("closed", { code, reason });
  }

  #open() {
    clearTimeout(this.#timer);
    const url = new URL(this.#urls[this.#at++ % this.#urls.length]);
    url.searchParams.set("client", this.#id);
    url.searchParams.set("count", String(++this.#count));
    this.#set("connecting");
    this.#since = this.#heard = Date.now();
    this.#hint = 0;
    const ws = new this.#WebSocket(url);
    this.#ws = ws;
    ws.onopen = () => this.#o.first && ws === this.#ws && ws.send(this.#o.first());
    ws.onmessage = (e) => ws === this.#ws && this.#take(e.data);
    ws.onclose = (e) => ws === this.#ws && this.#closed(e.code, e.reason);
    // A close follows at once in browsers; node 20 forgets it when the handshake was refused.
    ws.onerror = () => setTimeout(() => ws === this.#ws && this.#closed(1006, ""), 100);
  }

  #silent() {
    if (this.#ws && Date.now() - this.#heard > (this.#greeted ? this.#o.silence : Math.min(this.#o.silence, CONNECT))) {
      const ws = this.#ws;
      this.#closed(4000, "no word from the server");
      ws.close(4000);
    }
  }

  #lost() {
    this.#ws = null;
    this.#greeted = false;
    for (const t of this.#topics.values()) {
      t.ref = 0;
      t.live = false;
    }
    for (const p of this.#pending.values()) p.reject(new Error("connection lost: the message may or may not have been taken"));
    this.#pending.clear();
  }

  #closed(code, reason) {
    const lasted = this.#greeted && Date.now() - this.#since > 1000;
    this.#lost();
    if (FINAL.has(code)) {
      this.#end(code, reason);
      return;
    }
    let wait = this.#hint;
    if (wait > 0 || lasted) this.#fails = 0;
    else wait = pause(++this.#fails, this.#o.minRetry, this.#o.maxRetry);
    this.#set("waiting", { code, reason, wait });
    if (this.#state === "waiting") this.#timer = setTimeout(() => this.#open(), wait);
  }

  #send(f) {
    this.#ws.send(JSON.stringify(f));
  }

  // Few frames for all topics, each small enough for a hub.
  #resume(names) {
    const ref = ++this.#ref;
    let topics = {}, size = 0;
    const flush = () => {
      if (size > 0) this.#send({ type: "subscribe", ref, topics });
      topics = {};
      size = 0;
    };
    for (const name of names) {
      const t = this.#topics.get(name);
      t.ref = ref;
      t.live = false;
      const text = t.cursor.toString();
      const n = 3 * name.length + text.length + 8;
      if (size + n > SUBSCRIBE_BYTES) flush();
      Object.defineProperty(topics, name, { value: text, enumerable: true }); // also for a topic named __proto__
      size += n;
    }
    flush();
  }

  #take(raw) {
    this.#heard = Date.now();
    this.#o.onframe(raw);
    const f = JSON.parse(raw);
    switch (f.type) {
      case "hello":
        return this.#hello(f);
      case "bye":
        this.#hint = f.retry ?? 0;
        return;
      case "done": {
        const p = this.#pending.get(f.ref);
        this.#pending.delete(f.ref);
        if (f.error) p?.reject(new Error(f.error));
        else p?.resolve();
        return;
      }
      case "denied":
        if (this.#topics.get(f.topic)?.ref === (f.ref ?? 0)) {
          this.#topics.delete(f.topic);
          this.#o.ondenied(f.topic, f.error);
        }
        return;
      case "presence":
        return this.#o.onpresence({ topic: f.topic, full: !!f.full, users: f.users ?? [], join: f.join ?? [], leave: f.leave ?? [], count: f.count ?? 0 });
      case "subscribed":
        return this.#subscribed(f);
      case "message":
      case "skip":
      case "gap":
      case "fill":
      case "ephemeral":
        return this.#record(f);
    }
  }

  #hello(f) {
    this.#greeted = true;
    this.stats.connects++;
    this.#o.onhello({ conn: f.conn, node: f.node, version: f.version, config: f.config, count: this.#count });
    if (f.config) {
      if (this.#config !== null && this.#config !== f.config) this.#o.onconfig(f.config, this.#config);
      this.#config = f.config;
    }
    if (!this.#greeted) return; // closed by one of them
    this.#resume([...this.#topics.keys()]);
    this.#set("connected");
  }

  // An answer to anything but the last request means nothing any more.
  #subscribed(f) {
    const ref = f.ref ?? 0;
    let t = this.#topics.get(f.topic);
    if (ref !== 0 ? t?.ref !== ref : t && (t.ref !== 0 || t.live || !t.cursor.isZero)) return;
    if (!t) { // the hub subscribed it
      this.#add(f.topic, "");
      t = this.#topics.get(f.topic);
    }
    t.ref = 0;
    t.live = true;
    t.cursor.start({ epoch: f.epoch ?? "", offset: f.offset ?? 0 });
    if (f.kind === "fresh") this.stats.fresh++;
    else if (f.kind === "resumed") this.stats.resumed++;
    else {
      t.gapped = true;
      this.#gap(f);
    }
  }

  #gap(f) {
    this.stats.gaps++;
    this.#o.ongap({ topic: f.topic, reason: f.reason ?? "", after: f.after ?? "", epoch: f.epoch ?? "", offset: f.offset ?? 0, filled: !!f.filled });
  }

  #record(f) {
    const t = this.#topics.get(f.topic);
    if (!t?.live) {
      this.stats.ignored++;
      return;
    }
    const at = { epoch: f.epoch ?? "", offset: f.offset ?? 0 };
    if (f.type === "skip" && f.n > 1 && t.cursor.pos.offset + f.n === at.offset) { // the last of n records that are not shown
      t.cursor.pos.offset = at.offset - 1;
      t.cursor.take(at, true, "");
    } else if (f.type === "message" || f.type === "skip" || (f.type === "gap" && f.n === 1)) {
      switch (t.cursor.take(at, f.type !== "message", f.id ?? "")) {
        case "hole":
          this.stats.holes++;
          this.#resume([f.topic]);
          return;
        case "old":
          if (f.type !== "skip") this.stats.duplicates++;
          return;
      }
    } else if (f.type === "gap") {
      t.cursor.start(at);
    } else if (f.type === "fill" && f.id) {
      t.cursor.last = f.id;
    }
    if (f.type === "skip") return;
    if (f.type === "gap") {
      t.gapped = true;
      return this.#gap(f);
    }
    if (f.type !== "ephemeral" && f.id) {
      // What was published when a home and its replica died may come again behind the gap, and so may what filled it.
      t.recent ??= new Set();
      if (t.gapped && t.recent.has(f.id)) {
        this.stats.duplicates++;
        return;
      }
      t.recent.delete(f.id);
      t.recent.add(f.id);
      if (t.recent.size > remembered) t.recent.delete(t.recent.values().next().value);
    }
    this.stats[f.type === "message" ? "messages" : f.type === "fill" ? "filled" : "ephemeral"]++;
    const m = {
      topic: f.topic, id: f.id ?? "", epoch: at.epoch, offset: at.offset,
      data: f.base64 ? Uint8Array.from(atob(f.data), (c) => c.charCodeAt(0)) : f.data,
      ephemeral: f.type === "ephemeral", filled: f.type === "fill",
    };
    t.handler?.(m);
    this.#o.onmessage(m);
  }
}

// How many publish IDs of a topic are remembered.
const remembered = 128;

function randomID() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
}
