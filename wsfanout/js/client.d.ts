/** A message of a topic. Data is the JSON that was published, a string, or bytes. */
export interface Message {
  topic: string;
  id: string;
  /** With offset the position; "" for one without. */
  epoch: string;
  offset: number;
  data: unknown;
  ephemeral: boolean;
  /** From the application after a gap, not from the topic's log. */
  filled: boolean;
}

/** Something was missed. filled: all of it follows as messages. */
export interface Gap {
  topic: string;
  reason: string;
  /** ID of the last message before it. */
  after: string;
  epoch: string;
  offset: number;
  filled: boolean;
}

export interface Hello {
  conn: string;
  node: string;
  version?: string;
  config?: string;
  /** Connections of this client so far. */
  count: number;
}

/** Who is subscribed to a topic, or how that has changed. With full, users are all there are, or none are named because they are too many. */
export interface Presence {
  topic: string;
  full: boolean;
  users: string[];
  join: string[];
  leave: string[];
  /** Always right. */
  count: number;
}

export type State = "connecting" | "connected" | "waiting" | "closed";

export interface Stats {
  connects: number;
  messages: number;
  filled: number;
  ephemeral: number;
  /** Came again and were not shown. */
  duplicates: number;
  /** Of a subscription that was being renewed; they come again. */
  ignored: number;
  /** Messages that did not follow, after each of which the topic was resumed. */
  holes: number;
  gaps: number;
  fresh: number;
  resumed: number;
}

export interface Options {
  /** To subscribe to from now on. */
  topics?: string[];
  /** To resume: what cursors() returned. */
  cursors?: Record<string, string>;
  onmessage?(m: Message): void;
  ongap?(g: Gap): void;
  onstate?(s: State, detail?: { code: number; reason: string; wait?: number }): void;
  onhello?(h: Hello): void;
  ondenied?(topic: string, error: string): void;
  /** The version of the application's configuration has changed: the time to reload the page. */
  onconfig?(now: string, before: string): void;
  /** For topics of which the hub tells who is there. */
  onpresence?(p: Presence): void;
  /** Every frame as it came, before anything is dropped. */
  onframe?(raw: string): void;
  /** The first frame of every connection, for hubs with AuthenticateFrame. */
  first?(): string;
  /** ID of this client; random. One client must not be in two places. */
  client?: string;
  /** Milliseconds: the first pause (3000) and the longest (300000), each cut short at random. */
  minRetry?: number;
  maxRetry?: number;
  /** Milliseconds without a frame after which a connection is given up (80000). */
  silence?: number;
  WebSocket?: new (url: URL) => unknown;
}

export interface Client {
  readonly state: State;
  readonly stats: Stats;
  cursors(): Record<string, string>;
  subscribe(topic: string, handler?: (m: Message) => void, cursor?: string): void;
  unsubscribe(topic: string): void;
  publish(topic: string, data: unknown): Promise<void>;
  close(): void;
}

export function connect(urls: string | URL | (string | URL)[], options?: Options): Client;

export class Cursor {
  pos: { epoch: string; offset: number };
  seen: { epoch: string; offset: number }[];
  last: string;
  readonly isZero: boolean;
  static parse(text: string): Cursor;
  toString(): string;
  start(at: { epoch: string; offset: number }): void;
  take(at: { epoch: string; offset: number }, gap: boolean, id: string): "show" | "old" | "hole";
}

export function pause(fails: number, low: number, high: number, random?: () => number): number;
