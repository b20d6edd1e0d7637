/**
 * What the consumer holds of one lane and which connection is active there: section 5 of PROTOCOL.md, for a consumer
 * without Redis.
 *
 * All methods run on the link's thread, each to its end. So making a connection active, listing what is held and
 * accepting a message exclude each other. Nothing here does IO: connections are given as `Link`s.
 *
 * A message is held from its acceptance until its handler has ended. Then its result is kept for a while
 * (`results.js`). Held messages and kept results are listed in HELD, and kept results are sent again behind it.
 */
import { RESULT_KIND } from '../outcome.js';
import { encode, readId } from '../encode.js';
import {
  CODES, CREDIT, DELIVER, DRAIN, FLAG_CHANNELS, HELD, MAX_BODIES_BYTES, MAX_BODY_BYTES, MAX_IDS, NACK, PROGRESS,
  ProtocolError, READY,
} from '../frames.js';
import { MAX_BUFFERED_BYTES, Results, frameOf } from './results.js';

/**
 * With more bytes of results here, no handler is started, until there are half as many. Lanes have even shares of it.
 */
const MAX_RESULT_BYTES = 67_108_864;
/** A NACK has at most 4,114 bytes. */
const NACKS_IN_MESSAGE = 1_024;
/** How far ahead of this clock an epoch may be. */
const MAX_AHEAD_MS = 86_400_000;

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
 * @property {() => void} activated another connection is active, or none
 * @property {() => number} lanes how many lanes share what is limited
 * @property {() => number} now in ms
 */

/**
 * @typedef {{ group: string, consumerId: string, prefetch: number }} Terms
 */

export class Desk {
  /** @type {Map<number, { link: Link, bytes: number }>} */
  #held = new Map();
  #results;
  /** NACKs of handlers that have ended, until `answer`. @type {{ id: number, frame: Buffer }[]} */
  #nacks = [];
  /** NACKs that wait for a connection; none while there is one. @type {Map<number, Buffer>} */
  #failed = new Map();
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
   * @param {number} lane
   * @param {Owner} owner
   */
  constructor(terms, lane, owner) {
    this.terms = terms;
    this.lane = lane;
    this.owner = owner;
    this.#results = new Results(owner.now, terms.prefetch);
  }

  get active() {
    return this.#active;
  }

  get heldCount() {
    return this.#held.size;
  }

  /** Results that were not sent, or not confirmed although they will be. */
  get awaitedCount() {
    return this.#results.awaited();
  }

  /**
   * LEAD has arrived on this connection, for the first time.
   *
   * @param {Link} link
   * @param {bigint} epoch
   * @throws {ProtocolError} if it is refused
   */
  lead(link, epoch) {
    if (this.#highest !== null && epoch < this.#highest) {
      throw new ProtocolError(CODES.stale, `epoch ${epoch} is over`);
    }
    if (epoch > BigInt(Date.now() + MAX_AHEAD_MS)) {
      // Epochs follow the clock of Redis, in ms. This one would keep out every true leader.
      throw new ProtocolError(CODES.stale, `epoch ${epoch} is more than a day ahead of this consumer's clock`);
    }
    this.#highest = epoch;
    const replaced = this.#active;
    link.epoch = epoch;
    this.#active = link;
    replaced?.refuse(this.#replacement(replaced));
    this.#results.expire();
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
    this.owner.activated();
    this.pump();
  }

  /** What is held, failed or kept. */
  #listed() {
    const ids = [...this.#held.keys(), ...this.#failed.keys()];
    return [...ids, ...this.#results.beginAgain(MAX_IDS - ids.length)];
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
      // There is no need to compute a result again.
      if (this.#held.has(id) || this.#results.sendAgain(id)) {
        continue;
      }
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
    return this.#held.size > MAX_IDS ? `more than ${MAX_IDS} messages held` : null;
  }

  /**
   * The dispatcher needs no longer be told the results of these.
   *
   * @param {Link} link
   * @param {number[]} ids
   */
  recorded(link, ids) {
    if (link === this.#active) {
      this.#results.recorded(link, ids);
      this.#checkPause();
    }
  }

  /**
   * A handler has ended. `answer` must follow.
   *
   * @param {number} kind
   * @param {Buffer} body of its RESULT or NACK
   */
  take(kind, body) {
    const id = readId(body, 0);
    const held = this.#held.get(id);
    if (held !== undefined) {
      this.#held.delete(id);
      held.link.places -= 1;
      held.link.bytes -= held.bytes;
      if (kind === RESULT_KIND) {
        this.#results.add(id, body);
      } else {
        this.#nacks.push({ id, frame: frameOf(NACK, [body]) });
      }
    }
  }

  /** Sends what was taken, as far as there is a connection that takes it. */
  answer() {
    const nacks = this.#nacks;
    this.#nacks = [];
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
    if (this.#active !== null) {
      this.#results.pump(this.#active);
    }
    this.#results.expire();
  }

  #checkPause() {
    const share = MAX_RESULT_BYTES / this.owner.lanes();
    const limit = this.#paused ? share / 2 : share;
    if (this.#results.bytes > limit !== this.#paused) {
      this.#paused = !this.#paused;
      this.owner.pause(this.#paused);
    }
  }

  /** To be called each second or more often. */
  tick() {
    this.#results.expire();
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
      this.owner.activated();
    }
  }

  /** Whether there is nothing that a leader could still need. */
  isIdle() {
    return this.#active === null && this.#held.size + this.#failed.size + this.#results.count === 0;
  }

  /** Accepts nothing from now on. */
  drain() {
    if (!this.#draining) {
      this.#draining = true;
      this.#active?.put(encode({ command: DRAIN }));
    }
  }

  /**
   * Whether there is nothing left to wait for: no handler runs, each result was sent, and by oncecast.2 confirmed.
   * NACKs that no connection takes don't count, as these messages are delivered again anyway.
   */
  isDrained() {
    if (!this.#draining || this.#held.size > 0 || this.#results.awaited() > 0) {
      return false;
    }
    // Without a connection, those sent to the last leader may be needed by the next one.
    return this.#active === null ? this.#results.count === 0 : this.#active.buffered() === 0;
  }
}
