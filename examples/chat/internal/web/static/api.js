// Calls of the server. A call that may be repeated is, until the server has answered it.

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function once(method, path, body) {
  const o = { method, headers: {}, signal: AbortSignal.timeout(15000) };
  if (body !== undefined) {
    o.headers["Content-Type"] = "application/json";
    o.body = JSON.stringify(body);
  }
  const r = await fetch(path, o);
  const answer = r.status === 204 ? null : await r.json().catch(() => null);
  if (!r.ok) {
    const f = new Failure(r.status, answer?.message ?? `the server answered ${r.status}`);
    f.after = Number(r.headers.get("Retry-After")) * 1000;
    throw f;
  }
  return answer;
}

/** Calls once. */
export const call = once;

const passing = (e) => !(e instanceof Failure) || e.status >= 500;

/** Calls until there is an answer other than "not now". Only for what may be carried out twice. */
export async function persist(method, path, body, onretry = () => {}) {
  for (let n = 0; ; n++) {
    try {
      return await once(method, path, body);
    } catch (e) {
      if (!passing(e)) throw e;
      onretry(e);
      await wait(Math.min(e.after || 200 * 2 ** Math.min(n, 4), 3000) * (0.5 + Math.random() / 2));
    }
  }
}

/** Sends a file and returns what the server calls it. */
export async function upload(file) {
  const r = await fetch(`/api/v4/files?name=${encodeURIComponent(file.name)}`, {
    method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" },
  });
  const answer = await r.json().catch(() => null);
  if (!r.ok) throw new Failure(r.status, answer?.message ?? `the server answered ${r.status}`);
  return answer;
}

/** A random ID; crypto.randomUUID is not there without HTTPS. */
export function newID() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
}
