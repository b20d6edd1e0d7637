/**
 * How a message ends: the errors that a handler throws, and how outcomes and errors become bytes.
 */
import { cutText } from './encode.js';
import { DELAY_BY_BACKOFF, DELAY_NEVER, MAX_FIELDS, MAX_PAYLOAD_BYTES } from './frames.js';

/** Thrown by a handler: deliver the message again. */
export class Retry extends Error {
  /**
   * @param {string} reason for people; it stands in the dead letter after the last delivery
   * @param {{ afterMs?: number, cause?: unknown }} [options] `afterMs`: the wait, of at least 1 ms and at most 49 days;
   *   without it the consumer's setting `retry` decides, or else the dispatcher's
   */
  constructor(reason, { afterMs, cause } = {}) {
    super(reason, cause === undefined ? undefined : { cause });
    if (afterMs !== undefined && !(typeof afterMs === 'number' && afterMs >= 0)) {
      throw new TypeError(`afterMs is not a number of milliseconds: ${afterMs}`);
    }
    this.name = 'Retry';
    this.afterMs = afterMs;
  }
}

/** Thrown by a handler: move the message to the dead letters. */
export class Reject extends Error {
  /**
   * @param {string} reason
   * @param {{ cause?: unknown }} [options]
   */
  constructor(reason, { cause } = {}) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = 'Reject';
  }
}

/**
 * The delay and the reason of the NACK for what a handler threw. The reason is never empty, because a draining consumer
 * that sends none says that it has not started the message.
 *
 * @param {unknown} thrown
 * @param {number} [open] the delay if none was asked for
 */
export function failure(thrown, open = DELAY_BY_BACKOFF) {
  try {
    return failureOf(thrown, open);
  } catch {
    return { delay: open, reason: cutText("the handler threw something that can't be shown") };
  }
}

/**
 * @param {unknown} thrown
 * @param {number} open
 */
function failureOf(thrown, open) {
  let delay = open;
  if (thrown instanceof Reject) {
    delay = DELAY_NEVER;
  } else if (thrown instanceof Retry && thrown.afterMs !== undefined) {
    delay = Math.min(Math.max(Math.ceil(thrown.afterMs), 1), DELAY_NEVER - 1);
  }
  return { delay, reason: cutText(reasonOf(thrown) || 'the handler gave no reason') };
}

/**
 * @param {unknown} thrown
 * @returns {string}
 */
function reasonOf(thrown) {
  try {
    if (!(thrown instanceof Error)) {
      return typeof thrown === 'string' ? thrown : `the handler threw ${typeof thrown}: ${String(thrown)}`;
    }
    const plain = thrown instanceof Retry || thrown instanceof Reject || thrown.name === 'Error';
    let reason = plain && thrown.message !== '' ? thrown.message : String(thrown);
    let { cause } = thrown;
    for (let depth = 0; cause instanceof Error && depth < 8; depth++) {
      if (!reason.endsWith(cause.message)) {
        reason += `: ${cause.message}`;
      }
      ({ cause } = cause);
    }
    return reason;
  } catch {
    return 'the handler threw a value without a text';
  }
}

/**
 * Collects answers for the thread of the link in one block of memory, which `take` copies out:
 *
 * ```text
 * kind u8 | length of the payload u32 | lane u16 (little-endian) | payload of a RESULT or a NACK, as PROTOCOL.md has it
 * ```
 */
export class Answers {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #used = 0;

  get length() {
    return this.#used;
  }

  /**
   * The message is done.
   *
   * @param {number} id
   * @param {unknown} outcome what the handler returned
   * @param {number} [lane]
   * @throws {Error} if it can't be recorded; nothing was added then
   */
  done(id, outcome, lane = 0) {
    const begin = this.#begin(RESULT_KIND, id, lane, 2);
    try {
      const count = outcome === undefined || outcome === null ? 0 : this.#fields(outcome);
      this.#bytes.writeUInt16BE(count, begin + HEAD_BYTES + 8);
      this.#end(begin);
    } catch (error) {
      this.#used = begin;
      throw error;
    }
  }

  /**
   * @param {number} id
   * @param {number} delay
   * @param {Buffer} reason empty: the message was not started
   * @param {number} [lane]
   */
  failed(id, delay, reason, lane = 0) {
    const begin = this.#begin(NACK_KIND, id, lane, 4);
    this.#bytes.writeUInt32BE(delay, begin + HEAD_BYTES + 8);
    this.#put(reason);
    this.#end(begin);
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

  /**
   * @param {number} kind
   * @param {number} id
   * @param {number} lane
   * @param {number} more bytes to leave free behind the id
   */
  #begin(kind, id, lane, more) {
    const begin = this.#used;
    this.#room(HEAD_BYTES + 8 + more);
    this.#bytes[begin] = kind;
    this.#bytes.writeUInt16LE(lane, begin + 5);
    const at = begin + HEAD_BYTES;
    this.#bytes.writeUInt32BE(Math.floor(id / 0x1_0000_0000), at);
    this.#bytes.writeUInt32BE(id % 0x1_0000_0000, at + 4);
    this.#used = at + 8 + more;
    return begin;
  }

  /** @param {number} begin */
  #end(begin) {
    const length = this.#used - begin - HEAD_BYTES;
    if (length > MAX_PAYLOAD_BYTES) {
      throw new Reject(`a result of ${length} bytes, more than ${MAX_PAYLOAD_BYTES}`);
    }
    this.#bytes.writeUInt32LE(length, begin + 1);
  }

  /**
   * @param {unknown} outcome
   * @returns {number} how many
   */
  #fields(outcome) {
    // A Set, an Error or a Date has no fields: recording nothing would hide the mistake.
    const isOfFields = outcome instanceof Map || Object.prototype.toString.call(outcome) === '[object Object]';
    if (!isOfFields) {
      const what = typeof outcome === 'object' ? outcome?.constructor.name : typeof outcome;
      throw new TypeError(`the handler returned a value of type ${what}: return an object with fields, or nothing`);
    }
    let count = 0;
    const entries = outcome instanceof Map ? outcome : Object.entries(/** @type {object} */ (outcome));
    for (const [name, value] of entries) {
      if (value === undefined) {
        continue;
      }
      count += 1;
      if (count > MAX_FIELDS) {
        throw new Reject(`a result of more than ${MAX_FIELDS} fields`);
      }
      this.#room(2);
      const at = this.#used;
      this.#used += 2;
      const length = this.#put(name instanceof Uint8Array ? name : String(name));
      if (length > 0xffff) {
        throw new Reject(`a field whose name has ${length} bytes, more than 65535`);
      }
      this.#bytes.writeUInt16BE(length, at);
      this.#value(value);
    }
    return count;
  }

  /** @param {unknown} value */
  #value(value) {
    this.#room(4);
    const at = this.#used;
    this.#used += 4;
    const length = this.#put(bytesOf(value));
    // Only now, because the memory may have been replaced.
    this.#bytes.writeUInt32BE(length, at);
  }

  /**
   * @param {string | Uint8Array} value
   * @returns {number} its length in bytes
   */
  #put(value) {
    let length;
    if (typeof value === 'string') {
      // A UTF-16 unit takes at most three bytes.
      this.#room(value.length > SHORT_TEXT ? Buffer.byteLength(value) : 3 * value.length);
      length = this.#bytes.write(value, this.#used);
    } else {
      length = value.length;
      this.#room(length);
      this.#bytes.set(value, this.#used);
    }
    this.#used += length;
    return length;
  }

  /** @param {number} bytes */
  #room(bytes) {
    const needed = this.#used + bytes;
    if (needed > this.#bytes.length) {
      if (bytes > MAX_PAYLOAD_BYTES) {
        throw new Reject(`a result of more than ${MAX_PAYLOAD_BYTES} bytes`);
      }
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, needed));
      this.#bytes.copy(larger, 0, 0, this.#used);
      this.#bytes = larger;
    }
  }
}

const FIRST_BYTES = 65_536;
/** A block that has grown beyond this is given back. */
const KEPT_BYTES = 1_048_576;
const SHORT_TEXT = 1_024;
export const HEAD_BYTES = 7;
export const RESULT_KIND = 0;
export const NACK_KIND = 1;

/**
 * A field's value. What is neither text, bytes, number nor truth value is stored as its JSON.
 *
 * @param {unknown} value
 * @returns {string | Uint8Array}
 */
function bytesOf(value) {
  switch (typeof value) {
    case 'string':
      return value;
    case 'number':
    case 'bigint':
    case 'boolean':
      return String(value);
    default:
  }
  if (value instanceof Uint8Array) {
    return value;
  }
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  if (value instanceof ArrayBuffer) {
    return new Uint8Array(value);
  }
  if (value instanceof Map || value instanceof Set) {
    throw new TypeError(`a field's value is a ${value.constructor.name}: return an object or an array`);
  }
  if (value instanceof Date) {
    return value.toISOString();
  }
  const json = JSON.stringify(value);
  if (json === undefined) {
    throw new TypeError(`a field's value is a ${typeof value}, which can't be recorded`);
  }
  return json;
}
