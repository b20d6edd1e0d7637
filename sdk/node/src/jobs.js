/**
 * Messages on their way from the thread of the link to the handlers: many in one block of memory, which changes its
 * thread without being copied.
 *
 * ```text
 * id f64 | delivery u16 | channel length u16, 0: none | body length u32 | lane u16 | channel | body (little-endian)
 * ```
 */
import { Delivery } from './delivery.js';

const HEAD_BYTES = 18;
const FIRST_BYTES = 65_536;
/** A block that has grown beyond this is given back. */
const KEPT_BYTES = 1_048_576;

/** Collects messages. */
export class Jobs {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #used = 0;

  get length() {
    return this.#used;
  }

  /**
   * @param {number} lane
   * @param {number} id
   * @param {number} delivery
   * @param {Buffer | null} channel
   * @param {Buffer} body
   */
  add(lane, id, delivery, channel, body) {
    const channelLength = channel === null ? 0 : channel.length;
    const needed = this.#used + HEAD_BYTES + channelLength + body.length;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, needed));
      this.#bytes.copy(larger, 0, 0, this.#used);
      this.#bytes = larger;
    }
    let at = this.#used;
    this.#bytes.writeDoubleLE(id, at);
    this.#bytes.writeUInt16LE(delivery, at + 8);
    this.#bytes.writeUInt16LE(channelLength, at + 10);
    this.#bytes.writeUInt32LE(body.length, at + 12);
    this.#bytes.writeUInt16LE(lane, at + 16);
    at += HEAD_BYTES;
    if (channel !== null) {
      this.#bytes.set(channel, at);
      at += channelLength;
    }
    this.#bytes.set(body, at);
    this.#used = needed;
  }

  /** Everything so far, in memory of its own. */
  take() {
    const taken = this.#bytes.buffer.slice(0, this.#used);
    this.#used = 0;
    if (this.#bytes.length > KEPT_BYTES) {
      this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
    }
    return /** @type {ArrayBuffer} */ (taken);
  }
}

/**
 * Appends the messages of a block to a queue.
 *
 * @param {ArrayBuffer} block
 * @param {string} consumerId
 * @param {{ push: (delivery: Delivery) => unknown }} queue
 */
export function unpack(block, consumerId, queue) {
  const bytes = Buffer.from(block);
  let at = 0;
  while (at < bytes.length) {
    const id = bytes.readDoubleLE(at);
    const number = bytes.readUInt16LE(at + 8);
    const channelEnd = at + HEAD_BYTES + bytes.readUInt16LE(at + 10);
    const end = channelEnd + bytes.readUInt32LE(at + 12);
    const channel = channelEnd > at + HEAD_BYTES ? bytes.subarray(at + HEAD_BYTES, channelEnd) : null;
    const lane = bytes.readUInt16LE(at + 16);
    queue.push(new Delivery(bytes.subarray(channelEnd, end), { id, number, channel, consumerId, lane }));
    at = end;
  }
}
