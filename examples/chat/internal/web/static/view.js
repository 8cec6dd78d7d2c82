// Makes elements of messages, rooms and people.

/** el("li", {class: "x"}, child, …): text children are text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

function hue(name) {
  let h = 0;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) % 360;
  return String((h * 137) % 360);
}

export function tint(e, name) {
  e.style.setProperty("--hue", hue(name));
  return e;
}

export function face(name) {
  const letters = name.split(/[._-]+/).filter(Boolean);
  const text = (letters.length > 1 ? letters[0][0] + letters[1][0] : name.slice(0, 2)).toUpperCase();
  return tint(el("span", { class: "face", "aria-hidden": "true" }, text), name);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export const dayOf = (at) => new Date(at).toDateString();
export const dayText = (at) => (dayOf(at) === dayOf(Date.now()) ? "Today" : day.format(at));

const picture = /\.(png|jpe?g|gif|webp)$/i;

function attachment(key) {
  const url = "/api/v4/files/" + key.split("/").map(encodeURIComponent).join("/");
  const name = key.slice(key.lastIndexOf("/") + 1);
  if (picture.test(name)) return el("a", { href: url, target: "_blank", rel: "noopener" }, el("img", { src: url, alt: name, loading: "lazy" }));
  return el("a", { class: "file", href: url, download: name }, icon("M7 3h7l5 5v13H7zM14 3v5h5"), name);
}

function icon(path) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(ns, "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

const address = /(https?:\/\/[^\s<>"]+[^\s<>".,:;!?)\]}'])/;

// Text with its addresses as links; odd parts of the split are those.
const linked = (text) => text.split(address).map((part, i) => (i % 2 ? el("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part));

/** One message. first: the sender's name stands above it. */
export function message(m, first, actions) {
  const body = el("div", { class: "body" }, ...linked(m.text));
  if (m.file) body.append(attachment(m.file));
  const e = tint(el("li", { class: `msg${first ? " first" : ""}${m.state ? " sending" : ""}${m.state === "failed" ? " failed" : ""}` }), m.user);
  if (first) {
    const at = el("time", { datetime: new Date(m.at).toISOString(), title: full.format(m.at) }, clock.format(m.at));
    e.append(face(m.user), el("div", { class: "by" }, el("b", {}, m.user), at, m.where ? el("span", { class: "state" }, `in ${m.where}`) : null));
  }
  e.append(body);
  if (m.state === "retrying") body.append(el("span", { class: "state" }, "  · not taken yet, trying again"));
  if (m.state === "failed") {
    body.append(el("div", { class: "state" }, `not sent: ${m.error} `,
      el("button", { type: "button", class: "plain", onclick: () => actions.again(m) }, "Try again"),
      el("button", { type: "button", class: "plain", onclick: () => actions.drop(m) }, "Remove")));
  }
  return e;
}

/** Makes the children of parent those of list, [{key, sign, make}]: what has the same key and sign is left alone. */
export function reconcile(parent, list) {
  const old = new Map();
  for (const e of parent.children) old.set(e.dataset.key, e);
  let at = parent.firstElementChild;
  for (const { key, sign, make } of list) {
    let e = old.get(key);
    old.delete(key);
    if (!e || e.dataset.sign !== sign) {
      const fresh = make();
      fresh.dataset.key = key;
      fresh.dataset.sign = sign;
      if (e) {
        if (e === at) at = fresh;
        e.replaceWith(fresh);
      }
      e = fresh;
    }
    if (e === at) at = at.nextElementSibling;
    else parent.insertBefore(e, at);
  }
  for (const e of old.values()) e.remove();
}
