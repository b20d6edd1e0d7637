/**
 * The lanes of a group: section 5.11 of PROTOCOL.md. Each has a desk of its own, so nothing that is known of one lane
 * has an effect in another. LEAD names the lane; a desk is made for it, and goes when it has had nothing for a while.
 */
import { HEAD_BYTES } from '../outcome.js';
import { CODES, ProtocolError } from '../frames.js';
import { Desk } from './desk.js';

/** The most lanes that are served at a time. */
export const MAX_LANES = 256;
/** How long a lane may have neither a connection nor a message nor a result. */
const IDLE_MS = 300_000;
const MAX_NUMBER = 65_535;
const MAX_NAME_BYTES = 256;
/** The bytes in braces by which Redis Cluster places a key, with what is before and behind them. */
const TAG = /^([^{]*\{[^}]+)(\}.*)$/s;
const LANE = /^[^{]*\{[^}]+\/([1-9][0-9]{0,4})\}/;

/**
 * Which lane of a group has this name.
 *
 * @param {string} group
 * @param {string} name
 * @returns {number | null} 0 for the group's own name, 3 for `{orders/3}` of `{orders}`
 */
export function laneNumber(group, name) {
  if (name === group) {
    return 0;
  }
  const [, before, after] = TAG.exec(group) ?? [];
  if (before === undefined || !name.startsWith(`${before}/`) || !name.endsWith(after)) {
    return null;
  }
  const digits = name.slice(before.length + 1, name.length - after.length);
  // Without a sign or leading zeros.
  const isNumber = /^[1-9][0-9]{0,4}$/.test(digits) && Number(digits) <= MAX_NUMBER;
  return isNumber && Buffer.byteLength(name) <= MAX_NAME_BYTES ? Number(digits) : null;
}

/**
 * Whether a name is that of a lane, other than lane 0, of some group. No group may be named so.
 *
 * @param {string} name
 */
export function isLane(name) {
  const found = LANE.exec(name);
  return found !== null && Number(found[1]) <= MAX_NUMBER;
}

/**
 * @typedef {import('./desk.js').Link} Link
 * @typedef {import('./desk.js').Terms} Terms
 */

/**
 * What the desks ask their owner to do.
 *
 * @typedef {object} LanesOwner
 * @property {(lane: number, id: number, delivery: number, channel: Buffer | null, body: Buffer) => void} deliver
 * @property {(lane: number, pause: boolean) => void} pause start no handlers for a lane, or start them again
 * @property {(active: bigint | null) => void} activated the epoch of a lane's leader, if there is any
 * @property {() => number} now in ms
 */

export class Lanes {
  /** @type {Map<number, { desk: Desk, idleSince: number | null }>} */
  #lanes = new Map();
  #draining = false;

  /**
   * @param {Terms} terms
   * @param {LanesOwner} owner
   */
  constructor(terms, owner) {
    /** @type {Terms} */
    this.terms = terms;
    /** @type {LanesOwner} */
    this.owner = owner;
    this.#make(0);
  }

  get count() {
    return this.#lanes.size;
  }

  get heldCount() {
    return this.#desks().reduce((sum, desk) => sum + desk.heldCount, 0);
  }

  get awaitedCount() {
    return this.#desks().reduce((sum, desk) => sum + desk.awaitedCount, 0);
  }

  #desks() {
    return [...this.#lanes.values()].map(({ desk }) => desk);
  }

  /** @param {number} number */
  #make(number) {
    const { deliver, pause, now } = this.owner;
    /** @type {Desk} */
    const desk = new Desk(this.terms, number, {
      deliver: (...message) => deliver(number, ...message),
      pause: (isPaused) => pause(number, isPaused),
      activated: () => this.owner.activated(this.#desks().find(({ active }) => active !== null)?.active?.epoch ?? null),
      lanes: () => this.#lanes.size,
      now,
    });
    this.#lanes.set(number, { desk, idleSince: null });
    return desk;
  }

  /**
   * LEAD has arrived on this connection, for the first time.
   *
   * @param {Link} link
   * @param {bigint} epoch
   * @param {string} group
   * @returns {Desk} that of the lane
   * @throws {ProtocolError} if it is refused
   */
  lead(link, epoch, group) {
    const number = laneNumber(this.terms.group, group);
    if (number === null) {
      throw new ProtocolError(CODES.group, 'this consumer belongs to another group');
    }
    let desk = this.#lanes.get(number)?.desk;
    if (desk === undefined) {
      if (this.#lanes.size >= MAX_LANES) {
        this.#removeIdle(0);
      }
      if (this.#draining || this.#lanes.size >= MAX_LANES) {
        const why = this.#draining ? 'stops' : 'serves too many lanes';
        throw new ProtocolError(CODES.unavailable, `lane ${number} is not served: this consumer ${why}`);
      }
      desk = this.#make(number);
    }
    desk.lead(link, epoch);
    return desk;
  }

  /**
   * Handlers have ended.
   *
   * @param {ArrayBuffer} block as `Answers` makes it
   */
  answer(block) {
    const bytes = Buffer.from(block);
    /** @type {Set<Desk>} */
    const desks = new Set();
    let at = 0;
    while (at < bytes.length) {
      const end = at + HEAD_BYTES + bytes.readUInt32LE(at + 1);
      // A lane with a message that is held does not go.
      const desk = this.#lanes.get(bytes.readUInt16LE(at + 5))?.desk;
      if (desk !== undefined) {
        desk.take(bytes[at], bytes.subarray(at + HEAD_BYTES, end));
        desks.add(desk);
      }
      at = end;
    }
    desks.forEach((desk) => desk.answer());
  }

  /** @param {boolean} blocked see `Desk.block` */
  block(blocked) {
    this.#desks().forEach((desk) => desk.block(blocked));
  }

  /** To be called each second or more often. */
  tick() {
    this.#desks().forEach((desk) => desk.tick());
    this.#removeIdle(IDLE_MS);
  }

  /** @param {number} limitMs */
  #removeIdle(limitMs) {
    const now = this.owner.now();
    for (const [number, lane] of this.#lanes) {
      if (number === 0 || !lane.desk.isIdle()) {
        lane.idleSince = null;
        continue;
      }
      lane.idleSince ??= now;
      if (now - lane.idleSince >= limitMs) {
        this.#lanes.delete(number);
        // Its messages are paused by its number, which may come back.
        this.owner.pause(number, false);
      }
    }
  }

  /** Accepts nothing from now on. */
  drain() {
    this.#draining = true;
    this.#desks().forEach((desk) => desk.drain());
  }

  isDrained() {
    return this.#desks().every((desk) => desk.isDrained());
  }
}
