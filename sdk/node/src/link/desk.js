/**
 * What the consumer holds and which connection is active: section 5 of PROTOCOL.md, for a consumer without Redis.
 *
 * All methods run on the link's thread, each to its end. So making a connection active, listing what is held and
 * accepting a message exclude each other. Nothing here does IO: connections are given as `Link`s.
 *
 * A message is held from its acceptance until its handler has ended. Its result is then kept:
 *
 * - by subprotocol oncecast.2, until the dispatcher says that it is recorded, or that it has no effect;
 * - by version 1, which has no confirmation, for 10 s after it was sent, and at most the last 1,000 and 16 MiB of them.
 *
 * Held messages and kept results are listed in HELD, and kept results are sent again behind it.
 */
import { HEAD_BYTES, RESULT_KIND } from '../outcome.js';
import {
  CODES, CREDIT, DELIVER, DRAIN, FLAG_CHANNELS, HEADER_BYTES, HELD, MAX_BODIES_BYTES, MAX_BODY_BYTES, MAX_IDS,
  NACK, PROGRESS, ProtocolError, READY, RESULT, RESULTS, encode, readId, writeHeader,
} from '../frames.js';

/** About as much goes into one WebSocket message; a larger frame travels alone. */
const MESSAGE_BYTES = 131_072;
/** While more than this waits to be written on the active connection, results wait here. */
const MAX_BUFFERED_BYTES = 1_048_576;
/** With more bytes of results here, no handler is started, until there are half as many. */
const MAX_RESULT_BYTES = 67_108_864;
/** How long, how many and how much of what was sent is kept by version 1. */
const KEPT_MS = 10_000;
const KEPT_RESULTS = 1_000;
const KEPT_BYTES = 16_777_216;

/**
 * A connection, as the desk sees it.
 *
 * @typedef {object} Link
 * @property {boolean} confirms whether it speaks oncecast.2
 * @property {bigint | null} epoch that of its accepted LEAD
 * @property {number} places how many of the held messages it delivered
 * @property {number} bytes of their bodies
 * @property {(bytes: Buffer) => void} put sends one WebSocket message
 * @property {(error: ProtocolError) => void} refuse sends ERROR and closes
 * @property {() => number} buffered how many bytes wait to be written
 */

/**
 * What the desk asks its owner to do.
 *
 * @typedef {object} Owner
 * @property {(id: number, delivery: number, channel: Buffer | null, body: Buffer) => void} deliver to a handler
 * @property {(pause: boolean) => void} pause start no handlers, or start them again
 * @property {(active: Link | null) => void} activated
 * @property {() => number} now in ms
 */

/**
 * @typedef {{ id: number, body: Buffer, sentOn: Link | null, sentAt: number }} Kept
 * @typedef {{ group: string, consumerId: string, prefetch: number }} Terms
 */

export class Desk {
  /** @type {Map<number, { link: Link, bytes: number }>} */
  #held = new Map();
  /** Results, by id, in the order in which they were sent. @type {Map<number, Kept>} */
  #kept = new Map();
  /** Those to send, from `#unsentAt` on. @type {Kept[]} */
  #unsent = [];
  #unsentAt = 0;
  /** Those sent by version 1, oldest first, from `#unconfirmedAt` on. @type {Kept[]} */
  #unconfirmed = [];
  #unconfirmedAt = 0;
  #unconfirmedBytes = 0;
  /** NACKs that wait for a connection. @type {Map<number, Buffer>} */
  #failed = new Map();
  #resultBytes = 0;
  #paused = false;
  /** @type {bigint | null} */
  #highest = null;
  /** @type {Link | null} */
  #active = null;
  #draining = false;
  /** Whether the thread of the handlers does not answer. */
  #blocked = false;

  /**
   * @param {Terms} terms
   * @param {Owner} owner
   */
  constructor(terms, owner) {
    this.terms = terms;
    this.owner = owner;
  }

  get active() {
    return this.#active;
  }

  get heldCount() {
    return this.#held.size;
  }

  get keptCount() {
    return this.#kept.size;
  }

  /**
   * LEAD has arrived on this connection, for the first time.
   *
   * @param {Link} link
   * @param {bigint} epoch
   * @param {string} group
   * @throws {ProtocolError} if it is refused
   */
  lead(link, epoch, group) {
    if (group !== this.terms.group) {
      throw new ProtocolError(CODES.group, 'this consumer belongs to another group');
    }
    if (this.#highest !== null && epoch < this.#highest) {
      throw new ProtocolError(CODES.stale, `epoch ${epoch} is over`);
    }
    this.#highest = epoch;
    const replaced = this.#active;
    link.epoch = epoch;
    this.#active = link;
    replaced?.refuse(this.#replacement(replaced));
    this.#expire();
    const consumer = this.terms.consumerId;
    const frames = [
      encode({ command: READY, prefetch: this.#prefetch(link), flags: FLAG_CHANNELS, consumer }),
      encode({ command: HELD, ids: this.#listed() }),
    ];
    // Before the NACKs, which may return messages that were not started.
    if (this.#draining) {
      frames.push(encode({ command: DRAIN }));
    }
    frames.push(...this.#failed.values());
    this.#failed.clear();
    link.put(Buffer.concat(frames));
    this.#unsent = [...this.#kept.values()];
    this.#unsentAt = 0;
    this.#unconfirmed = [];
    this.#unconfirmedAt = 0;
    this.#unconfirmedBytes = 0;
    for (const kept of this.#unsent) {
      kept.sentOn = null;
    }
    this.owner.activated(link);
    this.pump();
  }

  /**
   * What is held, failed or kept. Results that don't fit into a HELD are dropped, the oldest first: they belong to
   * version 1, which promises nothing for them.
   */
  #listed() {
    const ids = [...this.#held.keys(), ...this.#failed.keys()];
    for (const id of this.#kept.keys()) {
      if (ids.length + this.#kept.size <= MAX_IDS) {
        break;
      }
      this.#forget(id);
    }
    for (const id of this.#kept.keys()) {
      ids.push(id);
    }
    return ids.slice(0, MAX_IDS);
  }

  /** @param {Link} link */
  #prefetch(link) {
    return this.#blocked && link.confirms ? 0 : this.terms.prefetch;
  }

  /**
   * While the thread of the handlers does not answer, new messages go to other consumers, if the dispatcher knows how.
   *
   * @param {boolean} blocked
   */
  block(blocked) {
    if (blocked !== this.#blocked) {
      this.#blocked = blocked;
      if (this.#active?.confirms && !this.#draining) {
        this.#active.put(encode({ command: CREDIT, prefetch: this.#prefetch(this.#active) }));
      }
    }
  }

  /** @param {Link} link one that was active */
  #replacement(link) {
    return link.epoch === this.#highest
      ? new ProtocolError(CODES.replaced, `a newer connection of the same epoch ${link.epoch} replaces this one`)
      : new ProtocolError(CODES.stale, 'the connection of a later leader replaces this one');
  }

  /**
   * PROCESS and DELIVER frames of one message have arrived.
   *
   * @param {Link} link
   * @param {(import('../frames.js').Process | import('../frames.js').Deliver)[]} frames
   * @throws {ProtocolError} if they are refused; none is accepted then
   */
  accept(link, frames) {
    if (link !== this.#active) {
      throw this.#replacement(link);
    }
    if (this.#draining) {
      return;
    }
    const before = { places: link.places, bytes: link.bytes };
    const accepted = [];
    for (const frame of frames) {
      const { id, body } = frame;
      if (this.#held.has(id)) {
        continue;
      }
      const kept = this.#kept.get(id);
      if (kept !== undefined) {
        // The leader has not got the result. There is no need to compute it again.
        if (kept.sentOn !== null) {
          kept.sentOn = null;
          this.#unsent.push(kept);
        }
        continue;
      }
      this.#failed.delete(id);
      this.#held.set(id, { link, bytes: body.length });
      link.places += 1;
      link.bytes += body.length;
      accepted.push(frame);
    }
    const problem = this.#excess(link);
    if (problem !== null) {
      for (const { id } of accepted) {
        this.#held.delete(id);
      }
      Object.assign(link, before);
      throw new ProtocolError(CODES.overPrefetch, problem);
    }
    for (const frame of accepted) {
      this.owner.deliver(frame.id, frame.delivery, frame.command === DELIVER ? frame.channel : null, frame.body);
    }
    this.pump();
  }

  /**
   * @param {Link} link
   * @returns {string | null}
   */
  #excess(link) {
    if (link.places > this.terms.prefetch) {
      return `more messages than the prefetch of ${this.terms.prefetch}`;
    }
    // One body more than a dispatcher sends.
    if (link.bytes > MAX_BODIES_BYTES + MAX_BODY_BYTES) {
      return `more than ${MAX_BODIES_BYTES} bytes of messages without an answer`;
    }
    // What was held before this connection counts only here, because the leader may know better who holds it.
    return this.#held.size + this.#failed.size > MAX_IDS ? `more than ${MAX_IDS} messages held` : null;
  }

  /**
   * The dispatcher needs no longer be told the results of these.
   *
   * @param {Link} link
   * @param {number[]} ids
   */
  recorded(link, ids) {
    if (link !== this.#active) {
      return;
    }
    for (const id of ids) {
      const kept = this.#kept.get(id);
      // A result that waits to be sent here may not be the one that this confirms.
      if (kept !== undefined && kept.sentOn === link) {
        this.#forget(id);
      }
    }
    this.#checkPause();
  }

  /**
   * Handlers have ended.
   *
   * @param {ArrayBuffer} block as `Answers` makes it
   */
  answer(block) {
    const bytes = Buffer.from(block);
    const nacks = [];
    let at = 0;
    while (at < bytes.length) {
      const begin = at + HEAD_BYTES;
      const end = begin + bytes.readUInt32LE(at + 1);
      const body = bytes.subarray(begin, end);
      const id = readId(bytes, begin);
      const held = this.#held.get(id);
      if (held !== undefined) {
        this.#held.delete(id);
        held.link.places -= 1;
        held.link.bytes -= held.bytes;
        if (bytes[at] === RESULT_KIND) {
          const kept = { id, body, sentOn: null, sentAt: 0 };
          this.#kept.set(id, kept);
          this.#unsent.push(kept);
          this.#resultBytes += body.length;
        } else {
          nacks.push({ id, frame: frameOf(NACK, [body], body.length) });
        }
      }
      at = end;
    }
    if (this.#active !== null) {
      for (let i = 0; i < nacks.length; i += NACKS_IN_MESSAGE) {
        this.#active.put(Buffer.concat(nacks.slice(i, i + NACKS_IN_MESSAGE).map((nack) => nack.frame)));
      }
    } else {
      for (const { id, frame } of nacks) {
        this.#failed.set(id, frame);
      }
    }
    this.pump();
    this.#checkPause();
  }

  /** Sends results as far as the active connection takes them. */
  pump() {
    const link = this.#active;
    while (link !== null && this.#unsentAt < this.#unsent.length && link.buffered() < MAX_BUFFERED_BYTES) {
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
        link.put(link.confirms ? frameOf(RESULTS, bodies, bytes) : framesOf(RESULT, bodies, bytes));
      }
    }
    if (this.#unsentAt === this.#unsent.length) {
      this.#unsent = [];
      this.#unsentAt = 0;
    }
    this.#expire();
  }

  /**
   * @param {Kept} kept
   * @param {Link} link
   */
  #sent(kept, link) {
    kept.sentOn = link;
    kept.sentAt = this.owner.now();
    if (!link.confirms) {
      this.#unconfirmed.push(kept);
      this.#unconfirmedBytes += kept.body.length;
    }
  }

  /** Drops results that were sent by version 1. */
  #expire() {
    const oldest = this.owner.now() - KEPT_MS;
    while (this.#unconfirmedAt < this.#unconfirmed.length) {
      const kept = this.#unconfirmed[this.#unconfirmedAt];
      const many = this.#unconfirmed.length - this.#unconfirmedAt > KEPT_RESULTS || this.#unconfirmedBytes > KEPT_BYTES;
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
      this.#resultBytes -= kept.body.length;
    }
  }

  #checkPause() {
    const limit = this.#paused ? MAX_RESULT_BYTES / 2 : MAX_RESULT_BYTES;
    if (this.#resultBytes > limit !== this.#paused) {
      this.#paused = !this.#paused;
      this.owner.pause(this.#paused);
    }
  }

  /** To be called each second or more often. */
  tick() {
    this.#expire();
    this.#checkPause();
    if (this.#active !== null) {
      this.progress(this.#active);
    }
  }

  /**
   * Reports what is held.
   *
   * @param {Link} link
   */
  progress(link) {
    // What is not read need not be said again.
    if (link === this.#active && this.#held.size > 0 && link.buffered() < MAX_BUFFERED_BYTES) {
      link.put(encode({ command: PROGRESS, ids: [...this.#held.keys()] }));
    }
  }

  /**
   * The connection has ended.
   *
   * @param {Link} link
   */
  leave(link) {
    if (this.#active === link) {
      this.#active = null;
      this.owner.activated(null);
    }
  }

  /** Accepts nothing from now on. */
  drain() {
    if (!this.#draining) {
      this.#draining = true;
      this.#active?.put(encode({ command: DRAIN }));
    }
  }

  /**
   * Whether there is nothing left to wait for: no handler runs, each result was sent, and by oncecast.2 confirmed. NACKs
   * that no connection takes don't count, as these messages are delivered again anyway.
   */
  isDrained() {
    if (!this.#draining || this.#held.size > 0) {
      return false;
    }
    for (const kept of this.#kept.values()) {
      if (kept.sentOn === null || kept.sentOn.confirms) {
        return false;
      }
    }
    // Without a connection, those sent to the last leader may be needed by the next one.
    return this.#active === null ? this.#kept.size === 0 : this.#active.buffered() === 0;
  }
}

/** A NACK has at most 4,114 bytes. */
const NACKS_IN_MESSAGE = 1_024;

/**
 * One frame whose payload is these bodies.
 *
 * @param {number} command
 * @param {Buffer[]} bodies
 * @param {number} length of all of them
 */
function frameOf(command, bodies, length) {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + length);
  writeHeader(frame, command, length);
  let at = HEADER_BYTES;
  for (const body of bodies) {
    frame.set(body, at);
    at += body.length;
  }
  return frame;
}

/**
 * One frame for each body.
 *
 * @param {number} command
 * @param {Buffer[]} bodies
 * @param {number} length of all of them
 */
function framesOf(command, bodies, length) {
  const frames = Buffer.allocUnsafe(HEADER_BYTES * bodies.length + length);
  let at = 0;
  for (const body of bodies) {
    writeHeader(frames, command, body.length, at);
    frames.set(body, at + HEADER_BYTES);
    at += HEADER_BYTES + body.length;
  }
  return frames;
}
