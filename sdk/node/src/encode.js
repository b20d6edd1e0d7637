/** Encodes frames. Pure. The caller keeps values within their limits. */
import {
  ACK, CREDIT, DELIVER, ERROR, HEADER_BYTES, HELD, HELLO, LEAD, MAX_TEXT_BYTES, NACK, PROCESS, PROGRESS, PROOF,
  READY, RECORDED, RESULT, RESULTS, VERSION,
} from './frames.js';

/**
 * @typedef {import('./frames.js').Frame} Frame
 * @typedef {import('./frames.js').Result} Result
 */

/**
 * One frame. The caller keeps its values within the limits.
 *
 * @param {Frame} frame
 * @returns {Buffer}
 */
export function encode(frame) {
  return framed(frame.command, encodePayload(frame));
}

/**
 * @param {number} command
 * @param {Buffer} bytes
 */
function framed(command, bytes) {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + bytes.length);
  writeHeader(frame, command, bytes.length);
  bytes.copy(frame, HEADER_BYTES);
  return frame;
}

/**
 * @param {Buffer} frame
 * @param {number} command
 * @param {number} length of the payload
 * @param {number} [at]
 */
export function writeHeader(frame, command, length, at = 0) {
  frame[at] = VERSION;
  frame[at + 1] = command;
  frame.writeUInt32BE(length, at + 2);
}

/**
 * @param {Frame} frame
 * @returns {Buffer}
 */
function encodePayload(frame) {
  switch (frame.command) {
    case PROCESS:
      return Buffer.concat([u64(frame.id), u16(frame.delivery), frame.body]);
    case DELIVER: {
      const { id, delivery, channel, body } = frame;
      return Buffer.concat([u64(id), u16(delivery), u16(channel.length), channel, body]);
    }
    case ACK:
    case HELD:
    case PROGRESS:
    case RECORDED: {
      const bytes = Buffer.allocUnsafe(8 * frame.ids.length);
      frame.ids.forEach((id, i) => writeId(bytes, id, 8 * i));
      return bytes;
    }
    case NACK:
      return Buffer.concat([u64(frame.id), u32(frame.delay), Buffer.from(frame.reason)]);
    case LEAD:
      return Buffer.concat([u64(frame.epoch), Buffer.from(frame.group)]);
    case READY:
      return Buffer.concat([u32(frame.prefetch), Buffer.of(frame.flags), Buffer.from(frame.consumer)]);
    case RESULT:
      return result(frame);
    case RESULTS:
      return Buffer.concat(frame.results.map(result));
    case ERROR:
      return Buffer.concat([u16(frame.code), cutText(frame.text)]);
    case HELLO:
      return Buffer.from(JSON.stringify(frame.hello));
    case CREDIT:
      return u32(frame.prefetch);
    case PROOF:
      return frame.proof;
    default:
      return Buffer.alloc(0);
  }
}

/** @param {Result} result */
function result({ id, fields }) {
  /** @type {Buffer[]} */
  const parts = [u64(id), u16(fields.length)];
  for (const { name, value } of fields) {
    parts.push(u16(name.length), name, u32(value.length), value);
  }
  return Buffer.concat(parts);
}

/**
 * @param {Buffer} bytes
 * @param {number} id
 * @param {number} at
 */
export function writeId(bytes, id, at) {
  bytes.writeUInt32BE(Math.floor(id / 0x1_0000_0000), at);
  bytes.writeUInt32BE(id % 0x1_0000_0000, at + 4);
}

/**
 * An id that this package has written or checked.
 *
 * @param {Buffer} bytes
 * @param {number} at
 */
export function readId(bytes, at) {
  return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4);
}

/** @param {number} value */
function u16(value) {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** @param {number} value */
function u32(value) {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** @param {number | bigint} value */
function u64(value) {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/**
 * A text as UTF-8, cut at a character's border if it is longer than the protocol allows.
 *
 * @param {string} text
 * @returns {Buffer}
 */
export function cutText(text) {
  // A text is cut first, because a text of many megabytes need not be encoded. Each UTF-16 unit takes a byte or more.
  const bytes = Buffer.from(text.slice(0, MAX_TEXT_BYTES + 1));
  let end = Math.min(bytes.length, MAX_TEXT_BYTES);
  while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) {
    end -= 1;
  }
  return bytes.subarray(0, end);
}
