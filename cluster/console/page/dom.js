// el makes an element; text is never parsed as HTML.
export function el(tag, attrs = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) if (v !== undefined && (v !== "" || k === "value" || k === "selected")) e.setAttribute(k, v);
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

const key = (n) => (n.nodeType === 1 ? n.getAttribute("data-key") : null);
const fits = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

// morph makes the children of parent like those given, and keeps what is the same: focus, selection and scrolling stay.
export function morph(parent, wanted) {
  const keyed = new Map();
  for (const c of parent.childNodes) if (key(c)) keyed.set(key(c), c);
  let at = parent.firstChild;
  for (const w of wanted) {
    let have = at;
    if (key(w) && keyed.has(key(w)) && keyed.get(key(w)) !== at) {
      have = keyed.get(key(w));
      parent.insertBefore(have, at);
      at = have;
    }
    if (have && fits(have, w)) {
      at = have.nextSibling;
      patch(have, w);
    } else {
      parent.insertBefore(w, at);
      if (have && !key(have)) { at = have.nextSibling; have.remove(); }
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function patch(a, b) {
  if (a.nodeType === 3) {
    if (a.data !== b.data) a.data = b.data;
    return;
  }
  for (const { name } of [...a.attributes]) if (!b.hasAttribute(name)) a.removeAttribute(name);
  for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
  morph(a, [...b.childNodes]);
}
