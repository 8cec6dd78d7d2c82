// What the figures were since the page is open, drawn small.
const kept = 120;
const series = new Map();

export function note(id, value, at) {
  let s = series.get(id);
  if (!s) series.set(id, (s = []));
  if (s.length && s.at(-1)[0] >= at) return;
  s.push([at, value]);
  if (s.length > kept) s.shift();
}

const ns = "http://www.w3.org/2000/svg";

// sparkline returns nothing for what does not move; for what only grows, its rate.
export function sparkline(id) {
  const s = series.get(id) ?? [];
  if (s.length < 3 || s.every(([, v]) => v === s[0][1])) return [];
  const out = [];
  let values = s.map(([, v]) => v);
  const grows = s.every(([, v], i) => i === 0 || v >= s[i - 1][1]);
  if (grows) {
    values = s.slice(1).map(([at, v], i) => (v - s[i][1]) / Math.max(0.001, (at - s[i][0]) / 1000));
    const recent = values.slice(-5);
    const rate = recent.reduce((a, b) => a + b, 0) / recent.length;
    const span = document.createElement("span");
    span.className = "rate";
    span.textContent = `${rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString("en") : rate.toFixed(1)}/s`;
    out.push(span);
  }
  const low = Math.min(...values), high = Math.max(...values);
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 60 14");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(ns, "polyline");
  line.setAttribute("points", values.map((v, i) => `${((i / Math.max(1, values.length - 1)) * 60).toFixed(1)},${(12.5 - (high === low ? 0.5 : (v - low) / (high - low)) * 11).toFixed(1)}`).join(" "));
  svg.append(line);
  out.push(svg);
  return out;
}
