// The page's parts without a browser. Run by web_test.go in a folder with the static files.
import assert from "node:assert/strict";
import { Ledger } from "./ledger.js";
import { Outbox } from "./outbox.js";
import { Room } from "./room.js";

const m = (n, over = {}) => ({ id: `m${n}`, room: "r", client: "c", n, seq: n, at: n, user: "u", text: "", ...over });

// The ledger counts holes and repeats, and takes back what came late.
{
  const l = new Ledger();
  for (const n of [3, 4, 7]) l.deliver(m(n));
  assert.equal(l.lost, 2);
  l.note(m(5)); // from the table
  assert.equal(l.lost, 1);
  l.deliver(m(6));
  assert.equal(l.lost, 0);
  assert.equal(l.duplicates, 0);
  l.note(m(6)); // history brings it again: that is none
  assert.equal(l.duplicates, 0);
  l.deliver(m(6));
  assert.equal(l.duplicates, 1);
  l.deliver(m(1, { id: "other room", room: "s" }));
  l.deliver(m(9, { id: "other sender", client: "d" }));
  l.deliver({ id: "no number", room: "r" });
  assert.equal(l.lost, 0);
  l.note(m(1));
  assert.equal(l.lost, 1, "older history without its middle");
}

// A room is in the order of seq, with what is on its way last.
{
  const r = new Room({ id: "r", name: "R" });
  const ids = () => r.sorted.map((x) => x.id).join(" ");
  for (const n of [2, 5, 3]) assert.equal(r.add(m(n)), true);
  const mine = { id: "mine", seq: 0, at: 1, state: "sending" };
  const later = { id: "later", seq: 0, at: 2, state: "sending" };
  r.add(mine);
  r.add(later);
  assert.equal(r.add(m(6)), true);
  assert.equal(ids(), "m2 m3 m5 m6 mine later");
  assert.equal(r.add({ ...m(4), id: "mine" }), false); // the socket is quicker than the answer
  assert.equal(ids(), "m2 m3 mine m5 m6 later");
  assert.equal(mine.state, "");
  assert.equal(r.add(m(4, { id: "mine" })), false);
  assert.equal(r.sorted.length, 6);
  r.remove(later);
  assert.equal(ids(), "m2 m3 mine m5 m6");
  assert.equal(r.oldest, 2);
  assert.equal(r.newest, 6);
  for (let n = 7; n < 5000; n++) r.add(m(n));
  assert.ok(r.sorted.length < 2300 && r.messages.size === r.sorted.length && !r.whole, "old ones are let go");
  assert.equal(r.newest, 4999);
}

// The outbox sends one at a time, repeats with the same ID and number, and stops at a refusal.
{
  const calls = [];
  const answers = [
    () => { throw new TypeError("connection refused"); },
    () => [503, { message: "later" }], () => [201, { seq: 1, at: 1 }],
    () => [400, { message: "too long" }],
    () => [201, { seq: 2, at: 2 }], () => [201, { seq: 3, at: 3 }],
  ];
  globalThis.fetch = async (path, { body }) => {
    calls.push(JSON.parse(body));
    const [status, answer] = answers.shift()();
    return new Response(JSON.stringify(answer), { status, headers: { "Retry-After": "0" } });
  };
  const until = async (what) => {
    for (let i = 0; i < 1000 && !what(); i++) await new Promise((done) => setTimeout(done, 10));
    assert.ok(what());
  };
  const states = [];
  const box = new Outbox("r", "c", "ann", (x) => states.push(x.state));
  const first = box.send("one"), second = box.send("two");
  await until(() => second.state === "failed");
  assert.equal(first.seq, 1);
  assert.equal(second.error, "too long");
  assert.deepEqual(calls.map((c) => [c.text, c.n]), [["one", 1], ["one", 1], ["one", 1], ["two", 2]]);
  assert.equal(new Set(calls.slice(0, 3).map((c) => c.id)).size, 1);
  assert.ok(states.includes("retrying"));
  const third = box.send("three");
  assert.equal(box.waiting, 2, "a refused one holds what follows");
  box.drop(second);
  await until(() => third.state === "");
  assert.equal(calls.at(-1).n, 2, "its number is given to the next");
  const fourth = box.send("four");
  await until(() => fourth.state === "");
  assert.equal(box.waiting, 0);
}
