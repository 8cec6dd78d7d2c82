// Run by go test: node --test, with the hubs and their control in the environment.
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, Cursor, pause } from "./client.js";

const { HUBS, CONTROL } = process.env;
const control = async (path) => {
  const r = await fetch(CONTROL + path);
  assert.equal(r.status, 200, await r.text());
};
const until = async (what, ok) => {
  for (let i = 0; i < 4000; i++) {
    if (ok()) return;
    await new Promise((r) => setTimeout(r, 5));
  }
  assert.fail(what);
};

test("resumes on another node: everything once, in order, no gap", { skip: !HUBS }, async () => {
  const ids = [], gaps = [], states = [];
  let node;
  const c = connect(HUBS.split(","), {
    topics: ["js"], minRetry: 20, maxRetry: 200,
    onmessage: (m) => ids.push(m.id), ongap: (g) => gaps.push(g), onstate: (s) => states.push(s), onhello: (h) => (node = h.node),
  });
  const want = [];
  const publish = async (from, n) => {
    await control(`/publish?from=${from}&n=${n}`);
    for (let i = from; i < from + n; i++) want.push(`m${i}`);
  };
  await until("subscribed", () => c.stats.fresh === 1);
  await publish(0, 20);
  await until("first messages", () => ids.length >= 20);
  await control("/drop"); // every socket is cut
  await publish(20, 20);
  await until("messages after the cut", () => ids.length >= 40);
  await control(`/kill?node=${node}`);
  await publish(40, 20);
  await until("messages after the death of the node", () => ids.length >= 60);
  assert.deepEqual(ids, want);
  assert.deepEqual(gaps, []);
  assert.ok(c.stats.resumed >= 2, JSON.stringify(c.stats));
  assert.ok(states.includes("connected"));

  // A page that stored its cursors goes on where it was.
  const cursors = c.cursors();
  c.close();
  assert.equal(c.state, "closed");
  await publish(60, 5);
  const late = [];
  const d = connect(HUBS.split(","), { cursors, minRetry: 20, maxRetry: 200, onmessage: (m) => late.push(m.id) });
  await until("messages for the stored cursor", () => late.length >= 5);
  assert.deepEqual(late, want.slice(60));

  // What the server does not take.
  await assert.rejects(d.publish("js", { no: 1 }), /not allowed/);
  // What it does.
  d.subscribe("echo", (m) => late.push(m.data));
  await until("echo subscribed", () => d.stats.fresh === 1);
  await d.publish("echo", { "ä\u2028": [1, "x"] });
  await until("echo", () => late.length >= 6);
  assert.deepEqual(late[5], { "ä\u2028": [1, "x"] });
  d.close();
});

test("a refused client does not come back", { skip: !HUBS }, async () => {
  const states = [];
  const c = connect(HUBS.split(","), { topics: ["js"], minRetry: 5, maxRetry: 20, onstate: (s, d) => states.push([s, d?.code]) });
  await until("connected", () => c.stats.connects === 1);
  await control("/revoke");
  await until("closed", () => c.state === "closed");
  assert.deepEqual(states.at(-1), ["closed", 4003]);
});

test("pauses double and are cut short at random", () => {
  assert.equal(pause(1, 3000, 300000, () => 1), 3000);
  assert.equal(pause(4, 3000, 300000, () => 0.5), 12000);
  assert.equal(pause(40, 3000, 300000, () => 1), 300000);
});

test("cursors that are none", () => {
  for (const s of ["x", "1|", "2|1.A:1||", "1|1.A:-1||", "1|1.A:1||%zz", "1|1.A:1|" + "1.A:1,".repeat(8) + "1.A:1|", "1|1.a b:1||", "1|1A:1||"])
    assert.throws(() => Cursor.parse(s), undefined, s);
  const c = Cursor.parse("1|2.%3A:7|2.%3A:7,1.A:3|id%7C");
  assert.equal(c.last, "id|");
  assert.equal(c.toString(), "1|2.%3A:7|2.%3A:7,1.A:3|id%7C");
});

const vectors = JSON.parse(readFileSync(new URL("../internal/cursor/testdata/vectors.json", import.meta.url)));

test("the rule of the Go package cursor", () => {
  const position = (text) => {
    const i = text.lastIndexOf(":");
    return { epoch: text.slice(0, i), offset: Number(text.slice(i + 1)) };
  };
  assert.ok(vectors.stories.length > 0);
  for (const story of vectors.stories) {
    const c = Cursor.parse(story.cursor);
    assert.equal(c.toString(), story.cursor, story.name);
    for (const [i, step] of story.steps.entries()) {
      const what = `${story.name}, step ${i}`;
      if (step.start) c.start(position(step.start));
      else assert.equal(c.take(position(step.at), !!step.gap, step.id ?? ""), step.hole ? "hole" : step.show ? "show" : "old", what);
      assert.equal(c.toString(), step.cursor, what);
    }
  }
});

test("what the Go package cursor refuses", () => {
  assert.ok(vectors.malformed.length > 0);
  for (const { why, text } of vectors.malformed) assert.throws(() => Cursor.parse(text), undefined, why);
});

test("what was published again behind a gap is shown once", async () => {
  let socket;
  class Script { // a hub by hand
    readyState = 1;
    bufferedAmount = 0;
    constructor() {
      socket = this;
      queueMicrotask(() => { this.onopen?.({}); this.say({ type: "hello", conn: "1", node: "A" }); });
    }
    say(f) { this.onmessage?.({ data: JSON.stringify(f) }); }
    send(raw) { this.asked = JSON.parse(raw); }
    close() {}
    addEventListener(type, fn) { this["on" + type] = fn; }
    removeEventListener() {}
  }
  const ids = [];
  const c = connect("ws://hub.test/", { topics: ["t"], WebSocket: Script, onmessage: (m) => ids.push(m.id) });
  await until("asked", () => socket.asked);
  socket.say({ type: "subscribed", topic: "t", ref: socket.asked.ref, kind: "fresh", epoch: "1.A" });
  socket.say({ type: "message", topic: "t", epoch: "1.A", offset: 1, id: "a", data: 1 });
  socket.say({ type: "gap", topic: "t", epoch: "2.B", offset: 0, filled: true });
  socket.say({ type: "fill", topic: "t", id: "b", data: 1 });
  socket.say({ type: "message", topic: "t", epoch: "2.B", offset: 1, id: "a", data: 1 });
  socket.say({ type: "message", topic: "t", epoch: "2.B", offset: 2, id: "b", data: 1 });
  socket.say({ type: "message", topic: "t", epoch: "2.B", offset: 3, id: "c", data: 1 });
  c.close();
  assert.deepEqual(ids, ["a", "b", "c"]);
  assert.equal(c.stats.duplicates, 2);
});
