/**
 * Results on their way to the dispatcher. A result is kept:
 *
 * - by subprotocol oncecast.2, until the dispatcher says that it is recorded, or that it has no effect;
 * - by version 1, which has no confirmation, for 10 s after it was sent, and at most the last 1,000 (fewer with a
 *   prefetch under 1,000) and 16 MiB of them. After the next LEAD it is listed and sent again, once: a leader counts
 *   results for what is no longer pending, over all connections.
 */
import { writeHeader } from '../encode.js';
import { HEADER_BYTES, MAX_IDS, RESULT, RESULTS } from '../frames.js';

/** About as much goes into one WebSocket message; a larger frame travels alone. */
const MESSAGE_BYTES = 131_072;
/** While more than this waits to be written on a connection, results wait here. */
export const MAX_BUFFERED_BYTES = 1_048_576;
/** How long, how many and how much of what was sent is kept by version 1. */
const KEPT_MS = 10_000;
const KEPT_RESULTS = 1_000;
const KEPT_BYTES = 16_777_216;

/**
 * @typedef {import('./desk.js').Link} Link
 * @typedef {{ id: number, body: Buffer, sentOn: Link | null, sentAt: number, again: boolean }} Kept
 */

export class Results {
  /** In the order in which they came. @type {Map<number, Kept>} */
  #kept = new Map();
  /** Of all that are kept. */
  bytes = 0;
  /** Those to send, from `#unsentAt` on. @type {Kept[]} */
  #unsent = [];
  #unsentAt = 0;
  /** Those sent by version 1, oldest first, from `#unconfirmedAt` on. @type {Kept[]} */
  #unconfirmed = [];
  #unconfirmedAt = 0;
  #unconfirmedBytes = 0;

  /**
   * @param {() => number} now in ms
   * @param {number} prefetch
   */
  constructor(now, prefetch) {
    this.now = now;
    /** By version 1. A leader may count each twice, in HELD and as RESULT (docs/PROTOCOL.md, section 5.9). */
    this.most = Math.min(KEPT_RESULTS, Math.floor((prefetch + KEPT_RESULTS) / 2));
  }

  get count() {
    return this.#kept.size;
  }

  /**
   * @param {number} id
   * @param {Buffer} body payload of a RESULT
   */
  add(id, body) {
    const kept = { id, body, sentOn: null, sentAt: 0, again: false };
    this.#kept.set(id, kept);
    this.#unsent.push(kept);
    this.bytes += body.length;
  }

  /**
   * The leader has delivered this message. If its result is here, a leader that confirms results has not read it yet,
   * and will. Another one may have dropped it, so it is sent again.
   *
   * @param {number} id
   * @returns {boolean} whether the result is here
   */
  sendAgain(id) {
    const kept = this.#kept.get(id);
    if (kept?.sentOn?.confirms === false) {
      kept.sentOn = null;
      this.#unsent.push(kept);
    }
    return kept !== undefined;
  }

  /**
   * A new connection: all are sent again. Those beyond `most` are dropped, the oldest first. They belong to version 1,
   * which promises nothing for them.
   *
   * @param {number} most
   * @returns {number[]} their ids
   */
  beginAgain(most) {
    for (const id of this.#kept.keys()) {
      if (this.#kept.size <= most) {
        break;
      }
      this.#forget(id);
    }
    this.#unsent = [...this.#kept.values()];
    this.#unsentAt = 0;
    this.#unconfirmed = [];
    this.#unconfirmedAt = 0;
    this.#unconfirmedBytes = 0;
    for (const kept of this.#unsent) {
      kept.again ||= kept.sentOn?.confirms === false;
      kept.sentOn = null;
    }
    return [...this.#kept.keys()];
  }

  /**
   * The dispatcher needs no longer be told these.
   *
   * @param {Link} link
   * @param {number[]} ids
   */
  recorded(link, ids) {
    for (const id of ids) {
      // A result that waits to be sent may not be the one that this confirms.
      if (this.#kept.get(id)?.sentOn === link) {
        this.#forget(id);
      }
    }
  }

  /**
   * Sends as much as the connection takes.
   *
   * @param {Link} link
   */
  pump(link) {
    while (this.#unsentAt < this.#unsent.length && link.buffered() < MAX_BUFFERED_BYTES) {
      /** @type {Buffer[]} */
      const bodies = [];
      let bytes = 0;
      while (this.#unsentAt < this.#unsent.length && bodies.length < MAX_IDS) {
        const kept = this.#unsent[this.#unsentAt];
        if (bytes > 0 && bytes + kept.body.length > MESSAGE_BYTES) {
          break;
        }
        this.#unsentAt += 1;
        if (this.#kept.get(kept.id) === kept) {
          bodies.push(kept.body);
          bytes += kept.body.length;
          this.#sent(kept, link);
        }
      }
      if (bodies.length > 0) {
        const frames = link.confirms ? [frameOf(RESULTS, bodies)] : bodies.map((body) => frameOf(RESULT, [body]));
        link.put(frames.length === 1 ? frames[0] : Buffer.concat(frames));
      }
    }
    // While the dispatcher reads slowly it may never be empty.
    if (this.#unsentAt === this.#unsent.length || this.#unsentAt > KEPT_RESULTS) {
      this.#unsent = this.#unsent.slice(this.#unsentAt);
      this.#unsentAt = 0;
    }
  }

  /**
   * @param {Kept} kept
   * @param {Link} link
   */
  #sent(kept, link) {
    kept.sentOn = link;
    kept.sentAt = this.now();
    if (!link.confirms && kept.again) {
      this.#forget(kept.id);
    } else if (!link.confirms) {
      this.#unconfirmed.push(kept);
      this.#unconfirmedBytes += kept.body.length;
    }
  }

  /** Drops what was sent by version 1 and need not be kept longer. */
  expire() {
    const oldest = this.now() - KEPT_MS;
    while (this.#unconfirmedAt < this.#unconfirmed.length) {
      const kept = this.#unconfirmed[this.#unconfirmedAt];
      const many = this.#unconfirmed.length - this.#unconfirmedAt > this.most || this.#unconfirmedBytes > KEPT_BYTES;
      if (kept.sentAt > oldest && !many) {
        break;
      }
      this.#unconfirmedAt += 1;
      this.#unconfirmedBytes -= kept.body.length;
      // One that is about to be sent again is kept.
      if (kept.sentOn !== null && this.#kept.get(kept.id) === kept) {
        this.#forget(kept.id);
      }
    }
    if (this.#unconfirmedAt > KEPT_RESULTS) {
      this.#unconfirmed = this.#unconfirmed.slice(this.#unconfirmedAt);
      this.#unconfirmedAt = 0;
    }
  }

  /** @param {number} id */
  #forget(id) {
    const kept = this.#kept.get(id);
    if (kept !== undefined) {
      this.#kept.delete(id);
      this.bytes -= kept.body.length;
    }
  }

  /** How many were not sent, or not confirmed although they will be. */
  awaited() {
    let count = 0;
    for (const { sentOn } of this.#kept.values()) {
      count += sentOn === null || sentOn.confirms ? 1 : 0;
    }
    return count;
  }
}

/**
 * One frame whose payload is these bodies.
 *
 * @param {number} command
 * @param {Buffer[]} bodies
 */
export function frameOf(command, bodies) {
  const length = bodies.reduce((sum, body) => sum + body.length, 0);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + length);
  writeHeader(frame, command, length);
  let at = HEADER_BYTES;
  for (const body of bodies) {
    frame.set(body, at);
    at += body.length;
  }
  return frame;
}
