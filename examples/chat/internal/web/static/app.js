// The page: signs in, keeps one WebSocket for all rooms, and shows what comes.

import { connect } from "/ws.js";
import { call, persist, upload, newID } from "./api.js";
import { Ledger } from "./ledger.js";
import { Outbox } from "./outbox.js";
import { Room } from "./room.js";
import { dayOf, dayText, el, face, message, reconcile } from "./view.js";

const $ = (id) => document.getElementById(id);
const client = newID(); // of this page; its numbers begin at 1
const ledger = new Ledger();
const rooms = new Map();
const outboxes = new Map();
let me = null, demo = false, live = null, node = "", current = null, found = null, drawing = false;

// Signing in.

async function start() {
  const config = await persist("GET", "/api/v4/config");
  demo = config.demo;
  if (config.user) await enter(config.user).catch((e) => showDoor(e.message));
  else showDoor("");
}

function showDoor(error) {
  live?.close();
  live = null;
  $("app").hidden = true;
  $("door").hidden = false;
  $("sign-error").textContent = error;
  $("sign-secret").hidden = demo;
  $("sign-up").hidden = demo;
  $("sign-password").required = !demo;
  $("sign-in").textContent = demo ? "Join" : "Sign in";
  if (demo) $("sign-hint").textContent = "A demo: any name lets you in. Open a second window with another name.";
  $("sign-name").focus();
}

async function sign(path) {
  $("sign-error").textContent = "";
  try {
    await enter(await call("POST", path, { username: $("sign-name").value, password: $("sign-password").value }));
    $("sign-password").value = "";
  } catch (e) {
    $("sign-error").textContent = e.message;
  }
}

$("sign").addEventListener("submit", (e) => {
  e.preventDefault();
  sign(demo ? "/api/v4/demo/login" : "/api/v4/users/login");
});
$("sign-up").addEventListener("click", () => $("sign").reportValidity() && sign("/api/v4/users"));
$("sign-out").addEventListener("click", async () => {
  await call("POST", "/api/v4/users/logout").catch(() => {});
  location.reload();
});

async function enter(user) {
  me = user;
  $("door").hidden = true;
  $("app").hidden = false;
  $("me").textContent = user.username;
  $("load-box").hidden = !demo;
  for (const r of await persist("GET", "/api/v4/rooms")) addRoom(r);
  live = connect("/ws", {
    topics: ["rooms", ...[...rooms.values()].map((r) => r.topic)],
    onmessage: take, ongap: gap, onstate: state, onhello: hello, onframe: frame,
  });
  open(rooms.get(decodeURIComponent(location.hash.slice(1))) ?? rooms.values().next().value);
}

// The socket.

function hello(h) {
  node = h.node;
  draw();
}

function state(s, detail) {
  const banner = $("banner");
  if (s === "closed" && detail?.code === 4009) banner.textContent = "This page was opened elsewhere.";
  else if (s === "closed" && detail?.code !== 1000) return showDoor("You have been signed out.");
  else if (s === "waiting" || (s === "connecting" && node)) banner.textContent = "Reconnecting… what you write is kept and sent.";
  banner.hidden = s === "connected" || !banner.textContent;
  $("lamp").className = s === "connected" ? "lamp on" : "lamp off";
  if (s === "connected") {
    banner.textContent = "";
    listRooms();
    presence();
  }
  draw();
}

// History is read when the subscription stands: what comes after it, the socket brings.
function frame(raw) {
  if (!raw.startsWith('{"type":"subscribed"')) return;
  const room = byTopic(JSON.parse(raw).topic);
  if (room && !room.loaded) history(room);
}

const byTopic = (topic) => (topic.startsWith("room:") ? rooms.get(topic.slice(5)) : undefined);

function take(m) {
  if (m.topic === "rooms") return addRoom(m.data);
  const room = byTopic(m.topic);
  if (!room) return;
  if (m.ephemeral) {
    if (m.data.type === "typing" && m.data.user !== me.username) {
      room.typing.set(m.data.user, Date.now() + 5000);
      setTimeout(draw, 5100);
    }
    return draw();
  }
  if (m.filled) ledger.note(m.data);
  else ledger.deliver(m.data);
  room.typing.delete(m.data.user);
  if (room.add({ ...m.data }) && room !== current && m.data.user !== me.username) room.unread++;
  draw();
}

function gap(g) {
  const room = byTopic(g.topic);
  if (!room) return listRooms();
  if (!g.filled) history(room);
  room.notes.push({ after: room.newest, text: g.filled ? "The connection was lost here; what was missed follows." : "Something may be missing here; history is read again." });
  draw();
}

// Rooms.

function addRoom(r) {
  if (rooms.has(r.id)) return;
  const room = new Room(r);
  rooms.set(r.id, room);
  live?.subscribe(room.topic);
  draw();
}

async function listRooms() {
  const list = await call("GET", "/api/v4/rooms").catch(() => []);
  for (const r of list) addRoom(r);
}

async function history(room, before = 0) {
  room.loaded = true;
  try {
    const limit = before ? 100 : 200;
    const list = await call("GET", `/api/v4/rooms/${room.id}/messages?limit=${limit}${before ? `&before=${before}` : ""}`);
    for (const m of list) {
      ledger.note(m);
      room.add(m);
    }
    if (list.length < limit) room.whole = true;
    if (before) room.show += list.length;
  } catch {
    room.loaded = before > 0;
    if (!room.loaded) setTimeout(() => room.loaded || history(room), 1000);
  }
  draw();
}

function open(room) {
  if (!room) return;
  current = room;
  found = null;
  room.unread = 0;
  window.history.replaceState(null, "", `#${encodeURIComponent(room.id)}`);
  menu(false);
  draw(true);
  presence();
  if (matchMedia("(min-width: 721px)").matches) $("text").focus();
}

async function presence() {
  const room = current;
  if (!room || document.hidden) return;
  room.here = await call("GET", `/api/v4/rooms/${room.id}/presence`).catch(() => room.here);
  draw();
}
setInterval(presence, 4000);
document.addEventListener("visibilitychange", presence);

function menu(on) {
  $("side").classList.toggle("open", on);
  $("menu").setAttribute("aria-expanded", String(on));
}
$("menu").addEventListener("click", () => menu(!$("side").classList.contains("open")));
document.addEventListener("keydown", (e) => e.key === "Escape" && (menu(false), closeFound()));
document.querySelector(".talk").addEventListener("click", () => menu(false));

$("new-room").addEventListener("click", () => {
  $("room-error").textContent = "";
  $("room-input").value = "";
  $("room-dialog").showModal();
});
$("room-cancel").addEventListener("click", () => $("room-dialog").close());
$("room-form").addEventListener("submit", async (e) => {
  e.preventDefault();
  try {
    const r = await call("POST", "/api/v4/rooms", { name: $("room-input").value });
    $("room-dialog").close();
    addRoom(r);
    open(rooms.get(r.id));
  } catch (err) {
    $("room-error").textContent = err.message;
  }
});

// Writing.

function outbox(room) {
  let o = outboxes.get(room.id);
  if (!o) {
    o = new Outbox(room.id, client, me.username, (m) => {
      if (!room.add(m) && m.state === "") room.settle(m);
      if (m.state === "") ledger.note(m);
      draw();
    });
    outboxes.set(room.id, o);
  }
  return o;
}

const text = $("text");
let typed = 0; // when others were last told
const fit = () => {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
};

function submit() {
  const t = text.value.trim();
  if (!t || !current) return;
  closeFound();
  outbox(current).send(t);
  text.value = "";
  typed = 0;
  fit();
  draw(true);
}
$("write").addEventListener("submit", (e) => (e.preventDefault(), submit()));
text.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    submit();
  }
});

text.addEventListener("input", () => {
  fit();
  if (!text.value || Date.now() - typed < 2500 || live?.state !== "connected") return;
  typed = Date.now();
  live.publish(current.topic, { type: "typing" }).catch(() => {});
});

async function sendFiles(files) {
  const room = current;
  for (const f of files) {
    $("typing").textContent = `Sending ${f.name}…`;
    try {
      const { key } = await upload(f);
      outbox(room).send("", key);
      draw(true);
    } catch (e) {
      room.notes.push({ after: room.newest, text: `${f.name} was not sent: ${e.message}` });
      draw();
    }
  }
}
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (e) => sendFiles([...e.target.files]).then(() => (e.target.value = "")));
const log = $("log");
for (const type of ["dragenter", "dragover"]) log.addEventListener(type, (e) => (e.preventDefault(), log.classList.add("drop")));
for (const type of ["dragleave", "drop"]) log.addEventListener(type, () => log.classList.remove("drop"));
log.addEventListener("drop", (e) => (e.preventDefault(), sendFiles([...e.dataTransfer.files])));

let loading = null, loaded = 0;
$("load").addEventListener("change", (e) => {
  clearInterval(loading);
  if (!e.target.checked) return;
  const o = outbox(current);
  loading = setInterval(() => o.waiting < 100 && o.send(`load ${++loaded}`), 50);
});

window.addEventListener("beforeunload", (e) => {
  if ([...outboxes.values()].some((o) => o.waiting > 0)) e.preventDefault();
});

// Searching.

$("find").addEventListener("submit", async (e) => {
  e.preventDefault();
  const q = $("query").value.trim();
  if (!q) return closeFound();
  try {
    found = { q, list: await call("GET", `/api/v4/search?q=${encodeURIComponent(q)}`) };
  } catch (err) {
    found = { q, list: [], error: err.message };
  }
  draw();
  log.focus();
});
function closeFound() {
  if (!found) return;
  found = null;
  $("query").value = "";
  $("write").hidden = false; // or it cannot have the focus
  draw(true);
  text.focus();
}
$("found-close").addEventListener("click", closeFound);

// Drawing, once a frame.

let toEnd = false;
let stuck = true; // the newest message is in view, and stays so
log.addEventListener("scroll", () => (stuck = log.scrollHeight - log.scrollTop - log.clientHeight < 80));
log.addEventListener("load", () => stuck && !found && (log.scrollTop = log.scrollHeight), true); // of pictures
function draw(end = false) {
  toEnd ||= end === true;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (me && current) paint();
  });
}

function paint() {
  const lost = ledger.lost;
  $("where-text").textContent = node ? `you are on ${node} · lost ${lost} · duplicates ${ledger.duplicates}` : "connecting";
  $("where").classList.toggle("bad", lost + ledger.duplicates > 0);
  reconcile($("rooms"), [...rooms.values()].map((r) => ({
    key: r.id, sign: `${r.name} ${r.unread} ${r === current}`,
    make: () => el("li", {}, el("button", { type: "button", "aria-current": r === current ? "true" : undefined, onclick: () => open(r) },
      el("span", { class: "name" }, r.name), r.unread ? el("span", { class: "badge", "aria-label": `${r.unread} unread` }, String(r.unread)) : null)),
  })));
  reconcile($("here"), current.here.map((u) => ({ key: u, sign: u, make: () => el("li", {}, face(u), u) })));
  $("here-count").textContent = current.here.length || "";
  $("room-name").textContent = found ? `Found for “${found.q}”` : `# ${current.name}`;
  document.title = `${current.name} · nines chat`;
  $("found-close").hidden = !found;
  $("write").hidden = $("typing").hidden = !!found;
  const now = Date.now();
  const typing = [...current.typing].filter(([, until]) => until > now).map(([u]) => u);
  $("typing").textContent = typing.length === 0 ? "" : typing.length < 4 ? `${typing.join(", ")} ${typing.length > 1 ? "are" : "is"} typing…` : "several people are typing…";

  const height = log.scrollHeight, top = log.scrollTop;
  const first = log.querySelector(".msg")?.dataset.key;
  reconcile(log, found ? foundItems() : roomItems(current));
  if (found) log.scrollTop = 0;
  else if (stuck || toEnd) log.scrollTop = log.scrollHeight;
  else if (log.querySelector(".msg")?.dataset.key !== first) log.scrollTop = top + log.scrollHeight - height;
  toEnd = false;
}

const actions = {
  again: (m) => outbox(rooms.get(m.room)).again(m),
  drop: (m) => {
    rooms.get(m.room).remove(m);
    outbox(rooms.get(m.room)).drop(m);
    draw();
  },
};

function item(m, first) {
  return { key: m.id, sign: `${m.state ?? ""} ${first} ${m.at}`, make: () => message(m, first, actions) };
}

function roomItems(room) {
  const items = [];
  const list = room.sorted.slice(-room.show);
  if (room.loaded && (!room.whole || list.length < room.sorted.length) && list.length > 0) {
    items.push({ key: "older", sign: "", make: () => el("li", {}, el("button", { type: "button", class: "older", onclick: () => older(room) }, "Older messages")) });
  }
  if (room.loaded && list.length === 0) items.push({ key: "empty", sign: "", make: () => el("li", { class: "empty" }, "Nothing has been said here yet. Begin!") });
  let before = null;
  const days = new Set();
  const notes = room.notes.slice(-5);
  for (const m of list) {
    if (!before || dayOf(before.at) !== dayOf(m.at)) {
      const key = `day ${dayOf(m.at)}`;
      if (!days.has(key)) items.push({ key, sign: "", make: () => el("li", { class: "day" }, dayText(m.at)) });
      days.add(key);
    }
    items.push(item(m, !before || before.user !== m.user || m.at - before.at > 300000 || dayOf(before.at) !== dayOf(m.at)));
    for (const [i, n] of notes.entries()) if (n.after === m.seq && m.seq) items.push({ key: `note ${m.seq} ${i}`, sign: n.text, make: () => el("li", { class: "note" }, n.text) });
    before = m;
  }
  return items;
}

function foundItems() {
  if (found.list.length === 0) return [{ key: "none", sign: found.q, make: () => el("li", { class: "empty" }, found.error ?? "Nothing was found.") }];
  return found.list.map((m) => {
    const where = rooms.get(m.room)?.name;
    return { key: `found ${m.id}`, sign: where ?? "", make: () => message({ ...m, where }, true, actions) };
  });
}

function older(room) {
  if (room.show < room.sorted.length) room.show += 100;
  else history(room, room.oldest);
  draw();
}

start();
