// The operator's page: renders status.json, live by server-sent events, by polling where those do not get through.
import { sparkline, note } from "./spark.js";
import { morph, el } from "./dom.js";

const $ = (id) => document.getElementById(id);
const words = (name) => name.replace(/_seconds$/, "").replaceAll("_", " ");

function ago(iso) {
  const at = Date.parse(iso);
  if (!iso || !(at > 0)) return "–";
  const s = Math.max(0, (Date.now() - at) / 1000);
  return s < 2 ? "now" : `${span(s)} ago`;
}

function span(s) {
  if (s === 0) return "0";
  const a = Math.abs(s);
  if (a < 0.001) return `${(s * 1e6).toFixed(0)} µs`;
  if (a < 1) return `${(s * 1e3).toFixed(1)} ms`;
  if (a < 120) return `${s.toFixed(a < 10 ? 1 : 0)} s`;
  if (a < 7200) return `${Math.round(s / 60)} min`;
  if (a < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

function show(name, v) {
  if (v === null || v === undefined || v === "") return "–";
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (v === -1) return "unknown";
  if (typeof v === "number") return name.endsWith("_seconds") ? span(v) : v.toLocaleString("en");
  if (typeof v === "string" && /^\d{4}-\d\d-\d\dT/.test(v)) return ago(v);
  if (typeof v === "string" && /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(v)) return nodeName(v);
  if (Array.isArray(v)) return v.map((x) => show(name, x)).join(", ") || "–";
  if (typeof v === "object") return Object.entries(v).filter(([, x]) => x).map(([k, x]) => `${words(k)} ${show(k, x)}`).join(", ") || "–";
  return String(v);
}

let names = new Map();
const nodeName = (id) => names.get(id) ?? id.slice(0, 13) + "…";
const clock = (iso) => new Date(iso).toLocaleTimeString("en-GB");

const lamp = (level) => el("span", { class: `lamp ${level}`, role: "img", "aria-label": level });
const rank = { green: 0, amber: 1, red: 2 };
const worst = (levels) => levels.sort((a, b) => rank[b] - rank[a])[0];

function why(level, text, remedy) {
  return el("p", { class: `why ${level}` }, el("b", {}, `${level}: `), text, remedy ? el("small", {}, `What to do: ${remedy}`) : null);
}

function list(pairs) {
  const dl = el("dl");
  for (const [k, v] of pairs) if (v !== null) dl.append(el("dt", {}, k), el("dd", {}, v));
  return dl;
}

function configuration(tag) {
  const [version, , hash] = (tag ?? "").split(" ");
  return hash ? `version ${version}, ${hash.slice(0, 12)}…` : null;
}

function nodePanel(n, leader) {
  return el("article", { class: `panel ${n.level}`, "data-key": n.id, "aria-label": `${n.name}, ${n.level}` },
    el("h3", {}, lamp(n.level), n.name || n.id.slice(0, 13) + "…",
      n.id === leader ? el("span", { class: "badge mine" }, "leader") : null,
      n.self ? el("span", { class: "badge" }, "answers this page") : null,
      el("span", { class: "badge" }, n.draining ? "draining" : n.state),
      n.ready === false ? el("span", { class: "badge bad" }, "not ready") : null),
    ...n.reasons.map((r) => why(r.level, r.text, r.remedy)),
    ...n.cards.filter((c) => c.error).map((c) => why(c.level, `${c.name}: ${c.error}`, c.remedy)),
    n.error ? why("amber", `does not answer: ${n.error}`, "look at its log, and at the link to it") : null,
    list([
      ["address", n.addr || "–"], ["version", n.version || "–"], ["schema", n.schema_version ? String(n.schema_version) : null],
      ["configuration", configuration(n.tags?.["nines.config"])],
      ["up since", ago(n.started)], ["last seen", n.self ? "now" : ago(n.last_seen)],
      ["clock offset", n.self ? null : span(n.clock_offset_seconds)], ["log level", n.log_level || null], ["ID", n.id],
    ]));
}

const isTable = (v) => Array.isArray(v) && v.length > 0 && v.every((x) => x && typeof x === "object" && !Array.isArray(x));

function table(rows) {
  const cols = [...new Set(rows.flatMap((r) => Object.keys(r)))];
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...cols.map((c) => el("th", { scope: "col" }, words(c))))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...cols.map((c) => {
      const text = show(c, r[c]);
      return el("td", { class: text.length > 40 ? "long" : "" }, text);
    }))))));
}

// flat puts the fields of an object inside an object beside the others.
function flat(stats) {
  const out = {};
  for (const [k, v] of Object.entries(stats ?? {})) {
    if (v && typeof v === "object" && !Array.isArray(v)) for (const [j, x] of Object.entries(v)) out[`${k}: ${j}`] = x;
    else out[k] = v;
  }
  return out;
}

const slug = (name) => "card-" + name.toLowerCase().replace(/[^a-z0-9]+/g, "-");

// cardSection shows one card of all nodes: figures side by side, lists below each other.
function cardSection(name, nodes, allow) {
  const having = nodes.map((n) => [n, n.cards.find((c) => c.name === name)]).filter(([, c]) => c).map(([n, c]) => [n, { ...c, stats: flat(c.stats) }]);
  const panel = el("article", { class: `panel ${worst(having.map(([, c]) => c.level))}` });
  for (const [n, c] of having) if (c.error) panel.append(why(c.level, `${n.name}: ${c.error}`, c.remedy));
  const scalars = new Set();
  for (const [, c] of having) for (const [k, v] of Object.entries(c.stats)) if (!isTable(v)) scalars.add(k);
  if (scalars.size) {
    panel.append(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th"), ...having.map(([n, c]) => el("th", { scope: "col" }, lamp(c.level), " ", n.name)))),
      el("tbody", {}, ...[...scalars].map((k) => el("tr", {}, el("th", { scope: "row" }, words(k)),
        ...having.map(([n, c]) => el("td", {}, show(k, c.stats[k]), ...sparkline(`${n.id}|${name}|${k}`))))))))); 
  }
  const lists = new Map(); // of all nodes, one below the other
  for (const [n, c] of having) for (const [k, v] of Object.entries(c.stats)) if (isTable(v)) lists.set(k, [...(lists.get(k) ?? []), ...v.map((row) => ({ node: n.name, ...row }))]);
  for (const [k, rows] of lists) panel.append(el("h4", {}, words(k)), table(rows));
  const actions = having[0][1].actions ?? [];
  if (allow && actions.length) {
    panel.append(el("div", { class: "actions" }, ...actions.map((a) =>
      el("button", { type: "button", "data-card": name, "data-action": JSON.stringify(a) }, a.name + (a.every ? " on every node" : "")))));
  }
  return el("section", { "data-key": name, "aria-labelledby": slug(name) }, el("h2", { id: slug(name) }, name), panel);
}

// confirm asks, and returns what was chosen, or null.
async function confirm(question, { ask = "", choose = false } = {}) {
  $("question").textContent = question;
  $("ask").hidden = !ask;
  $("ask-text").textContent = ask;
  $("arg").value = "";
  $("choose").hidden = !choose;
  if (choose) $("target").replaceChildren(...doc.nodes.filter((n) => !n.error && !["dead", "failed"].includes(n.state)).map((n) => el("option", { value: n.id, selected: n.self ? "" : undefined }, n.name)));
  const dialog = $("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes" ? { arg: $("arg").value, node: choose ? $("target").value : "" } : null;
}

async function post(path, body) {
  const res = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!res.ok) throw new Error(await res.text());
  return res;
}

// run posts, and says how it went.
async function run(what, fn) {
  $("meta").textContent = `${what} …`;
  try {
    const failed = await fn();
    $("meta").textContent = failed.length ? `${what}: ${failed.join("; ")}` : `${what}: done`;
  } catch (e) {
    $("meta").textContent = `${what}: ${e.message}`;
  }
}

const failures = async (res) => Object.entries((await res.json()).results).filter(([, e]) => e).map(([id, e]) => `${nodeName(id)}: ${e}`);

document.addEventListener("click", async (e) => {
  const b = e.target.closest("button[data-card]");
  if (!b) return;
  const a = JSON.parse(b.dataset.action);
  const said = await confirm(`${b.dataset.card}: ${a.name}${a.every ? " on every node" : ""}?`, { ask: a.ask, choose: !a.every && doc.nodes.length > 1 });
  if (said) await run(a.name, async () => failures(await post("action", { card: b.dataset.card, action: a.name, ...said })));
});

$("bundle").addEventListener("click", () => run("bundle", async () => {
  $("bundle").disabled = true;
  try {
    const res = await post("bundle", {});
    const link = el("a", { href: URL.createObjectURL(await res.blob()), download: /filename="(.+)"/.exec(res.headers.get("Content-Disposition"))?.[1] ?? "bundle.zip" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    return [];
  } finally {
    $("bundle").disabled = false;
  }
}));

function leaderOf(doc) {
  const states = doc.nodes.flatMap((n) => n.cards).map((c) => c.stats?.state ?? c.stats);
  return states.map((s) => s?.leader_id).find(Boolean);
}

let doc = { nodes: [] };
let last = 0;
function render(next) {
  doc = next;
  last = Date.now();
  names = new Map(doc.nodes.map((n) => [n.id, n.name]));
  for (const n of doc.nodes) for (const c of n.cards) for (const [k, v] of Object.entries(flat(c.stats))) if (typeof v === "number") note(`${n.id}|${c.name}|${k}`, v, Date.parse(doc.at));
  $("top").className = doc.verdict.level;
  const text = `${doc.verdict.level === "green" ? "OK" : doc.verdict.level.toUpperCase()}: ${doc.verdict.text}`;
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
  document.title = text.slice(0, 60);
  const leader = leaderOf(doc);
  morph($("nodes"), doc.nodes.map((n) => nodePanel(n, leader)));
  const cards = [...new Set(doc.nodes.flatMap((n) => n.cards.map((c) => c.name)))];
  morph($("cards"), cards.map((c) => cardSection(c, doc.nodes, doc.allow_actions)));
  const sections = [["nodes-title", "nodes"], ...cards.map((c) => [slug(c), c]), ["events-title", "events"], ...(doc.settings ? [["settings-title", "settings"]] : []), ...(doc.logs ? [["logs-title", "logs"]] : [])];
  morph($("sections"), sections.map(([id, name]) => el("a", { href: `#${id}` }, name)));
  $("bundle").hidden = !doc.allow_actions;
  for (const what of ["settings", "logs"]) $(`${what}-section`).hidden = $(`${what}-link`).hidden = !doc[what];
  showAge();
}

function showAge() {
  const s = (Date.now() - last) / 1000;
  document.querySelector("main").classList.toggle("stale", last > 0 && s > 5);
  $("age").textContent = last ? `${source ? "live" : "polling"}, as of ${s < 2 ? "now" : span(s) + " ago"}` : "";
}
setInterval(showAge, 1000);

// ---- events, settings and logs are asked for apart, and less often

const json = async (path) => {
  const res = await fetch(path);
  if (!res.ok) throw new Error(await res.text());
  return (await res.json()).nodes;
};

const kinds = { joined: "green", back: "green", updated: "", left: "", dead: "red", failed: "red", suspect: "amber", paused: "amber" };

async function loadEvents() {
  const happenings = [];
  for (const [id, a] of Object.entries(await json("history.json"))) for (const h of a.value ?? []) happenings.push({ ...h, by: nodeName(id) });
  happenings.sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
  const merged = []; // what several nodes saw within seconds is one event
  for (const h of happenings) {
    const same = merged.find((m) => m.kind === h.kind && m.id === h.id && Date.parse(m.at) - Date.parse(h.at) < 3000 && !m.by.includes(h.by));
    if (same) same.by.push(h.by);
    else merged.push({ ...h, by: [h.by] });
  }
  const shown = merged.filter((h) => h.kind !== "updated").slice(0, 200);
  morph($("events"), shown.length ? shown.map((h) => el("li", {},
    el("time", { datetime: h.at, title: h.at }, clock(h.at)),
    kinds[h.kind] ? lamp(kinds[h.kind]) : null,
    el("span", { class: "what" }, `${h.name || nodeName(h.id)} ${h.kind}${h.cause ? `: ${h.cause}` : ""}`),
    el("span", { class: "by" }, `seen by ${h.by.sort().join(", ")}`))) : [el("li", {}, "nothing has happened yet")]);
}

let settings = {};
async function loadSettings() {
  if (!doc.settings) return;
  settings = await json("settings.json");
  renderSettings();
}

function renderSettings() {
  const find = $("settings-find").value.toLowerCase();
  const rows = new Map();
  const failed = [];
  for (const [id, a] of Object.entries(settings)) {
    if (a.error) failed.push(why("amber", `${nodeName(id)}: ${a.error}`));
    for (const s of a.value ?? []) {
      if (!rows.has(s.Name)) rows.set(s.Name, []);
      rows.get(s.Name).push([nodeName(id), s]);
    }
  }
  const answered = Object.values(settings).filter((a) => a.value).length;
  const out = [];
  for (const [name, on] of rows) {
    const groups = new Map();
    for (const [node, s] of on) groups.set(s.Value, [...(groups.get(s.Value) ?? []), node]);
    const local = on[0][1].Local;
    const differs = !local && (groups.size > 1 || on.length < answered);
    if (find && !name.toLowerCase().includes(find) && !on.some(([, s]) => s.Value.toLowerCase().includes(find))) continue;
    if ($("settings-differing").checked && !differs) continue;
    if ($("settings-set").checked && on.every(([, s]) => s.Source === "default")) continue;
    const value = groups.size > 1 ? [...groups].map(([v, nodes]) => `${nodes.join(", ")}: ${v}`).join("; ") : on[0][1].Value;
    const sources = [...new Set(on.map(([, s]) => s.Source + (s.Source === "environment" ? ` (${s.Env})` : "")))].join(", ");
    const pending = on.filter(([, s]) => s.Pending).map(([node]) => node);
    const notes = [local ? "of each node alone" : "", differs ? "differs" : "", pending.length ? `in use after a restart of ${pending.join(", ")}` : ""].filter(Boolean).join("; ");
    out.push(el("tr", { class: differs ? "differs" : "", "data-key": name },
      el("th", { scope: "row" }, differs ? lamp("red") : null, " ", name), el("td", { class: value.length > 40 ? "long" : "" }, value), el("td", {}, sources),
      el("td", {}, on[0][1].Live ? "at once" : "at a restart"), el("td", {}, notes)));
  }
  morph($("settings"), [...failed, out.length ? el("table", { class: "settings" },
    el("thead", {}, el("tr", {}, ...["setting", "value", "source", "a change holds", ""].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...out)) : el("p", {}, "none")]);
}
for (const id of ["settings-find", "settings-differing", "settings-set"]) $(id).addEventListener("input", renderSettings);

let logs = {};
async function loadLogs() {
  if (!doc.logs) return;
  const node = $("logs-node").value;
  logs = await json(`logs.json?limit=300&level=${$("logs-level").value}&node=${encodeURIComponent(node)}`);
  const choices = [el("option", { value: "" }, "all"), ...doc.nodes.filter((n) => !["dead", "failed"].includes(n.state)).map((n) => el("option", { value: n.id }, n.name))];
  if (document.activeElement !== $("logs-node")) { morph($("logs-node"), choices); $("logs-node").value = node; }
  renderLogs();
}

function renderLogs() {
  const find = $("logs-find").value.toLowerCase();
  const all = [];
  for (const [id, a] of Object.entries(logs)) for (const r of a.value?.records ?? []) all.push({ ...r, node: nodeName(id), key: `${id}:${r.seq}` });
  all.sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const lines = all.map((r) => {
    const attrs = (r.attrs ?? []).map(([k, v]) => `${k}=${v}`).join(" ");
    return [r, attrs, `${r.node} ${r.level} ${r.message} ${attrs}`.toLowerCase()];
  }).filter(([, , text]) => text.includes(find));
  const box = $("logs");
  const bottom = $("logs-follow").checked;
  morph(box, lines.slice(-500).map(([r, attrs]) => el("div", { class: r.level.replace(/[-+].*/, ""), "data-key": r.key },
    el("time", { datetime: r.at, title: r.at }, clock(r.at)), " ", el("span", { class: "node" }, r.node), " ", el("span", { class: "level" }, r.level), " ", r.message, " ", el("span", { class: "attrs" }, attrs))));
  if (bottom) box.scrollTop = box.scrollHeight;
  morph($("levels"), [
    ...Object.entries(logs).map(([id, a]) => el("span", { "data-key": id }, a.value
      ? `${nodeName(id)} logs from ${a.value.level}${a.value.until ? `, until ${clock(a.value.until)}, then ${a.value.usual}` : ""}` : `${nodeName(id)}: ${a.error}`)),
    doc.allow_actions ? el("button", { type: "button", "data-level": "DEBUG", "data-minutes": "10" }, "log from DEBUG for 10 minutes") : null,
    doc.allow_actions ? el("button", { type: "button", "data-level": "INFO", "data-minutes": "0" }, "log from INFO") : null,
  ].filter(Boolean));
}
$("logs-find").addEventListener("input", renderLogs);
for (const id of ["logs-node", "logs-level"]) $(id).addEventListener("change", () => loadLogs());
document.addEventListener("click", async (e) => {
  const b = e.target.closest("button[data-level]");
  if (!b) return;
  const node = $("logs-node").value;
  const what = `${b.textContent} on ${node ? nodeName(node) : "every node"}`;
  if (await confirm(`${what}?`)) await run(what, async () => failures(await post("level", { node, level: b.dataset.level, minutes: Number(b.dataset.minutes) })));
  loadLogs();
});

// every asks again and again while the page is seen. What fails shows in the age, or the next time.
function every(ms, fn) {
  let busy = false;
  const once = async () => {
    if (busy || document.hidden || !last) return;
    busy = true;
    try { await fn(); } catch { /* asked again */ } finally { busy = false; }
  };
  setInterval(once, ms);
  return once;
}
const rest = [every(3000, loadEvents), every(10000, loadSettings), every(2000, loadLogs)];

// live keeps the page fresh while it is seen.
let source = null, poll;
function fallBack() {
  source?.close();
  source = null;
  clearInterval(poll);
  poll = setInterval(async () => {
    try { took(await (await fetch("status.json")).json()); } catch { /* shown by the age */ }
  }, 2000);
  retry = setTimeout(live, 15000); // the stream may get through again
}
let retry, silence;
function took(d) {
  const first = !last;
  render(d);
  if (first) for (const fn of rest) fn();
}
function live() {
  source?.close();
  source = null;
  clearInterval(poll);
  clearTimeout(retry);
  clearTimeout(silence);
  if (document.hidden) return;
  source = new EventSource("events");
  silence = setTimeout(fallBack, 5000); // a proxy that holds the stream back says nothing
  source.onmessage = (e) => {
    clearInterval(poll);
    clearTimeout(silence);
    silence = setTimeout(fallBack, 8000);
    took(JSON.parse(e.data));
  };
  source.onerror = () => { clearTimeout(silence); clearTimeout(retry); fallBack(); };
}
document.addEventListener("visibilitychange", live);
live();
