/**
 * The frames of docs/PROTOCOL.md: encodes and decodes them. Pure. Decoding handles every input, leaves no byte
 * unexplained, and copies no bodies.
 *
 * Limitations: message ids are numbers, so an id of 2^53 or more counts as malformed. Dispatchers make none.
 */

const VERSION = 1;
export const HEADER_BYTES = 6;
/** The largest payload of any frame. */
export const MAX_PAYLOAD_BYTES = 12_582_912;
/** The largest WebSocket message, either way. */
export const MAX_MESSAGE_BYTES = MAX_PAYLOAD_BYTES + HEADER_BYTES;
/** The most bytes of message bodies that a dispatcher delivers before it gets answers, and the largest body. */
export const MAX_BODIES_BYTES = 16_777_216;
export const MAX_BODY_BYTES = 8_388_608;
/** The most ids in a list of ids, results in a RESULTS, and so the largest prefetch. */
export const MAX_IDS = 65_536;
/** The longest group name, consumer id, reason and channel. */
export const MAX_TEXT_BYTES = 4_096;
/** The most fields in one result. */
export const MAX_FIELDS = 3_900;

export const PROCESS = 0;
export const ACK = 1;
export const NACK = 2;
export const LEAD = 3;
export const READY = 4;
export const HELD = 5;
export const PROGRESS = 6;
export const RESULT = 7;
export const DRAIN = 8;
export const ERROR = 9;
export const DELIVER = 10;
export const RESULTS = 11;
export const HELLO = 12;
export const RECORDED = 13;
export const CREDIT = 14;

/** Names and largest payloads, by command. */
export const COMMANDS = [
  { name: 'PROCESS', limit: 10 + MAX_BODY_BYTES },
  { name: 'ACK', limit: 8 * MAX_IDS },
  { name: 'NACK', limit: 12 + MAX_TEXT_BYTES },
  { name: 'LEAD', limit: 8 + MAX_TEXT_BYTES },
  { name: 'READY', limit: 5 + MAX_TEXT_BYTES },
  { name: 'HELD', limit: 8 * MAX_IDS },
  { name: 'PROGRESS', limit: 8 * MAX_IDS },
  { name: 'RESULT', limit: MAX_PAYLOAD_BYTES },
  { name: 'DRAIN', limit: 0 },
  { name: 'ERROR', limit: 2 + MAX_TEXT_BYTES },
  { name: 'DELIVER', limit: 12 + MAX_TEXT_BYTES + MAX_BODY_BYTES },
  { name: 'RESULTS', limit: MAX_PAYLOAD_BYTES },
  { name: 'HELLO', limit: MAX_TEXT_BYTES },
  { name: 'RECORDED', limit: 8 * MAX_IDS },
  { name: 'CREDIT', limit: 4 },
];

/** READY's flags. */
export const FLAG_COMMITS = 1;
export const FLAG_CHANNELS = 2;

/** NACK's delay: the dispatcher chooses, or never again. */
export const DELAY_BY_BACKOFF = 0;
export const DELAY_NEVER = 0xffff_ffff;

/** What an ERROR frame names. */
export const CODES = {
  version: 1,
  command: 2,
  tooLarge: 3,
  malformed: 4,
  unexpected: 5,
  stale: 6,
  group: 7,
  overPrefetch: 8,
  unavailable: 9,
  replaced: 10,
};

/** Why bytes are not frames, or why a frame is refused; `code` is for the ERROR that answers. */
export class ProtocolError extends Error {
  /**
   * @param {number} code
   * @param {string} text
   */
  constructor(code, text) {
    super(text);
    this.name = 'ProtocolError';
    this.code = code;
  }
}

/**
 * @typedef {{ name: Buffer, value: Buffer }} Field
 * @typedef {{ id: number, fields: Field[] }} Result
 *
 * @typedef {{ command: 0, id: number, delivery: number, body: Buffer }} Process
 * @typedef {{ command: 10, id: number, delivery: number, channel: Buffer, body: Buffer }} Deliver
 * @typedef {{ command: 1 | 5 | 6 | 13, ids: number[] }} Ids
 * @typedef {{ command: 2, id: number, delay: number, reason: string }} Nack
 * @typedef {{ command: 3, epoch: bigint, group: string }} Lead
 * @typedef {{ command: 4, prefetch: number, flags: number, consumer: string }} Ready
 * @typedef {{ command: 7, id: number, fields: Field[] }} ResultFrame
 * @typedef {{ command: 8 }} Drain
 * @typedef {{ command: 9, code: number, text: string }} ErrorFrame
 * @typedef {{ command: 11, results: Result[] }} Results
 * @typedef {{ command: 12, hello: Record<string, unknown> }} Hello
 * @typedef {{ command: 14, prefetch: number }} Credit
 * @typedef {Process | Deliver | Ids | Nack | Lead | Ready | ResultFrame | Drain | ErrorFrame | Results | Hello | Credit
 *   } Frame
 */

/**
 * The frames of one WebSocket message, in order.
 *
 * @param {Buffer} message
 * @returns {Frame[]}
 * @throws {ProtocolError} if one of them is not a frame
 */
export function decode(message) {
  const frames = [];
  let at = 0;
  while (at < message.length) {
    if (message[at] !== VERSION) {
      const text = `protocol version ${message[at]} is not supported, this side speaks version ${VERSION}`;
      throw new ProtocolError(CODES.version, text);
    }
    if (message.length - at < HEADER_BYTES) {
      const got = message.length - at;
      throw new ProtocolError(CODES.malformed, `frame header cut short: ${got} of ${HEADER_BYTES} bytes`);
    }
    const command = message[at + 1];
    const known = COMMANDS[command];
    if (known === undefined) {
      throw new ProtocolError(CODES.command, `unknown command ${command}`);
    }
    const length = message.readUInt32BE(at + 2);
    if (length > known.limit) {
      const text = `${known.name}: payload length ${length} is over the limit of ${known.limit} bytes`;
      throw new ProtocolError(CODES.tooLarge, text);
    }
    at += HEADER_BYTES;
    if (message.length - at < length) {
      const text = `${known.name}: payload cut short: ${message.length - at} of ${length} bytes`;
      throw new ProtocolError(CODES.malformed, text);
    }
    frames.push(payload(command, new Reader(known.name, message, at, at + length)));
    at += length;
  }
  return frames;
}

/**
 * @param {number} command
 * @param {Reader} reader
 * @returns {Frame}
 */
function payload(command, reader) {
  const frame = form(command, reader);
  if (reader.at !== reader.end) {
    throw reader.malformed('bytes are left over');
  }
  return frame;
}

/**
 * @param {number} command
 * @param {Reader} reader
 * @returns {Frame}
 */
function form(command, reader) {
  switch (command) {
    case PROCESS:
      return { command, id: reader.id(), delivery: reader.u16(), body: reader.rest() };
    case DELIVER: {
      const [id, delivery, length] = [reader.id(), reader.u16(), reader.u16()];
      if (length === 0 || length > MAX_TEXT_BYTES) {
        throw reader.malformed("the channel's name is empty or too long");
      }
      return { command, id, delivery, channel: reader.take(length), body: reader.rest() };
    }
    case ACK:
    case HELD:
    case PROGRESS:
    case RECORDED:
      return { command, ids: reader.ids() };
    case NACK:
      return { command, id: reader.id(), delay: reader.u32(), reason: reader.text() };
    case LEAD:
      return { command, epoch: reader.u64(), group: reader.text() };
    case READY:
      return { command, prefetch: reader.u32(), flags: reader.take(1)[0], consumer: reader.text() };
    case RESULT:
      return { command, ...reader.result() };
    case RESULTS:
      return { command, results: reader.results() };
    case ERROR:
      return { command, code: reader.u16(), text: reader.text() };
    case HELLO:
      return { command, hello: reader.object() };
    case CREDIT:
      return { command, prefetch: reader.u32() };
    default:
      return { command: DRAIN };
  }
}

// A byte order mark is part of a text.
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Reads a payload from its front. */
class Reader {
  /**
   * @param {string} command
   * @param {Buffer} message
   * @param {number} at
   * @param {number} end
   */
  constructor(command, message, at, end) {
    this.command = command;
    this.message = message;
    this.at = at;
    this.end = end;
  }

  /** @param {string} problem */
  malformed(problem) {
    return new ProtocolError(CODES.malformed, `${this.command}: ${problem}`);
  }

  /**
   * Where a value of this many bytes begins.
   *
   * @param {number} bytes
   */
  skip(bytes) {
    const at = this.at;
    if (bytes > this.end - at) {
      throw this.malformed('payload too short');
    }
    this.at = at + bytes;
    return at;
  }

  u16() {
    return this.message.readUInt16BE(this.skip(2));
  }

  u32() {
    return this.message.readUInt32BE(this.skip(4));
  }

  u64() {
    return this.message.readBigUInt64BE(this.skip(8));
  }

  id() {
    const at = this.skip(8);
    const high = this.message.readUInt32BE(at);
    if (high >= 0x20_0000) {
      throw this.malformed('a message id of 2^53 or more');
    }
    return high * 0x1_0000_0000 + this.message.readUInt32BE(at + 4);
  }

  /** @param {number} bytes */
  take(bytes) {
    const at = this.skip(bytes);
    return this.message.subarray(at, at + bytes);
  }

  rest() {
    return this.take(this.end - this.at);
  }

  text() {
    try {
      return strict.decode(this.rest());
    } catch {
      throw this.malformed('text is not UTF-8');
    }
  }

  ids() {
    if ((this.end - this.at) % 8 !== 0) {
      throw this.malformed('the list of ids is not a multiple of 8 bytes');
    }
    const ids = [];
    while (this.at < this.end) {
      ids.push(this.id());
    }
    return ids;
  }

  /** @returns {Result} */
  result() {
    const [id, count] = [this.id(), this.u16()];
    // Each field takes at least its two lengths.
    if (count > (this.end - this.at) / 6) {
      throw this.malformed('more fields announced than the payload can hold');
    }
    const fields = [];
    for (let i = 0; i < count; i++) {
      const name = this.take(this.u16());
      fields.push({ name, value: this.take(this.u32()) });
    }
    return { id, fields };
  }

  results() {
    const results = [];
    do {
      if (results.length === MAX_IDS) {
        throw this.malformed(`more than ${MAX_IDS} results`);
      }
      results.push(this.result());
    } while (this.at < this.end);
    return results;
  }

  /** @returns {Record<string, unknown>} */
  object() {
    const text = this.text();
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      // It is refused below.
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.malformed('not a JSON object');
    }
    return value;
  }
}

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
