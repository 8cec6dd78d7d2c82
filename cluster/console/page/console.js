// The operator's page: renders status.json, live by server-sent events, by polling where those do not get through.
const $ = (id) => document.getElementById(id);

// el makes an element; text is never parsed as HTML.
function el(tag, attrs = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) if (v !== undefined && v !== "") e.setAttribute(k, v);
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

const words = (name) => name.replace(/_seconds$/, "").replaceAll("_", " ");

function ago(iso) {
  const at = Date.parse(iso);
  if (!iso || at <= 0) return "–";
  const s = Math.max(0, (Date.now() - at) / 1000);
  if (s < 2) return "now";
  return `${span(s)} ago`;
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

const lamp = (level) => el("span", { class: `lamp ${level}`, role: "img", "aria-label": level });

function why(level, text, remedy) {
  return el("p", { class: `why ${level}` }, text, remedy ? el("small", {}, remedy) : null);
}

function list(pairs) {
  const dl = el("dl");
  for (const [k, v] of pairs) dl.append(el("dt", {}, k), el("dd", {}, v));
  return dl;
}

function nodePanel(n, leader) {
  return el("article", { class: `panel ${n.level}` },
    el("h3", {}, lamp(n.level), n.name,
      n.id === leader ? el("span", { class: "badge mine" }, "leader") : null,
      n.self ? el("span", { class: "badge" }, "answers this page") : null,
      el("span", { class: "badge" }, n.draining ? "draining" : n.state)),
    ...n.reasons.map((r) => why(n.level, r.text, r.remedy)),
    n.error ? why("amber", `does not answer: ${n.error}`) : null,
    list([
      ["address", n.addr || "–"], ["version", n.version || "–"], ["up since", ago(n.started)], ["last seen", n.self ? "now" : ago(n.last_seen)],
      ["clock offset", span(n.clock_offset_seconds)], ["ID", n.id],
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

// cardSection shows one card of all nodes: figures side by side, lists below each other.
function cardSection(name, nodes, allow) {
  const having = nodes.map((n) => [n, n.cards.find((c) => c.name === name)]).filter(([, c]) => c).map(([n, c]) => [n, { ...c, stats: flat(c.stats) }]);
  const rank = { green: 0, amber: 1, red: 2 };
  const level = having.map(([, c]) => c.level).sort((a, b) => rank[b] - rank[a])[0];
  const panel = el("article", { class: `panel ${level}` });
  for (const [n, c] of having) if (c.error) panel.append(why(c.level, `${n.name}: ${c.error}`, c.remedy));
  const scalars = new Set();
  for (const [, c] of having) for (const [k, v] of Object.entries(c.stats ?? {})) if (!isTable(v)) scalars.add(k);
  if (scalars.size) {
    panel.append(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th"), ...having.map(([n, c]) => el("th", { scope: "col" }, lamp(c.level), " ", n.name)))),
      el("tbody", {}, ...[...scalars].map((k) => el("tr", {}, el("th", { scope: "row" }, words(k)), ...having.map(([, c]) => el("td", {}, show(k, c.stats?.[k])))))))));
  }
  for (const [n, c] of having) {
    for (const [k, v] of Object.entries(c.stats ?? {})) if (isTable(v)) panel.append(el("h4", {}, `${n.name}: ${words(k)}`), table(v));
  }
  const actions = having[0][1].actions ?? [];
  if (allow && actions.length) {
    panel.append(el("div", { class: "actions" }, ...actions.map((a) => {
      const b = el("button", { type: "button" }, a.name + (a.every ? " on every node" : ""));
      b.addEventListener("click", () => press(name, a));
      return b;
    })));
  }
  return el("section", {}, el("h2", {}, name), panel);
}

async function press(card, a) {
  $("question").textContent = `${card}: ${a.name}${a.every ? " on every node" : ""}?`;
  const dialog = $("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return;
  let text;
  try {
    const res = await fetch("action", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ card, action: a.name }) });
    if (!res.ok) throw new Error(await res.text());
    const failed = Object.entries((await res.json()).results).filter(([, e]) => e);
    text = failed.length ? failed.map(([id, e]) => `${nodeName(id)}: ${e}`).join("; ") : `${a.name}: done`;
  } catch (e) {
    text = e.message;
  }
  $("meta").textContent = text;
}

function leaderOf(doc) {
  const states = doc.nodes.flatMap((n) => n.cards).map((c) => c.stats?.state ?? c.stats);
  return states.map((s) => s?.leader_id).find(Boolean);
}

let last = 0;
function render(doc) {
  last = Date.now();
  names = new Map(doc.nodes.map((n) => [n.id, n.name]));
  const h1 = document.querySelector("h1");
  h1.className = doc.verdict.level;
  const text = `${doc.verdict.level === "green" ? "OK" : doc.verdict.level.toUpperCase()}: ${doc.verdict.text}`;
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
  document.title = text.slice(0, 60);
  const leader = leaderOf(doc);
  $("nodes").replaceChildren(...doc.nodes.map((n) => nodePanel(n, leader)));
  const cards = [...new Set(doc.nodes.flatMap((n) => n.cards.map((c) => c.name)))];
  if (document.activeElement?.tagName !== "BUTTON") $("cards").replaceChildren(...cards.map((c) => cardSection(c, doc.nodes, doc.allow_actions)));
}

setInterval(() => {
  const s = (Date.now() - last) / 1000;
  document.querySelector("main").classList.toggle("stale", last > 0 && s > 5);
  $("age").textContent = last ? `as of ${s < 2 ? "now" : span(s) + " ago"}` : "";
}, 1000);

// live keeps the page fresh while it is visible.
let source, poll;
function live() {
  source?.close();
  clearInterval(poll);
  if (document.hidden) return;
  source = new EventSource("events");
  source.onmessage = (e) => { clearInterval(poll); render(JSON.parse(e.data)); };
  source.onerror = () => {
    clearInterval(poll);
    poll = setInterval(async () => {
      try { render(await (await fetch("status.json")).json()); } catch { /* shown by the age */ }
    }, 2000);
  };
}
document.addEventListener("visibilitychange", live);
live();
