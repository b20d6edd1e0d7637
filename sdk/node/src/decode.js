/**
 * Decodes frames. Pure. Handles every input, leaves no byte unexplained, and copies no bodies.
 *
 * Limitations: message ids are numbers, so an id of 2^53 or more counts as malformed. Dispatchers make none.
 */
import {
  ACK, CODES, COMMANDS, CREDIT, DELIVER, DRAIN, ERROR, HEADER_BYTES, HELD, HELLO, LEAD, MAX_IDS, MAX_TEXT_BYTES,
  NACK, PROCESS, PROGRESS, PROOF, PROOF_BYTES, ProtocolError, READY, RECORDED, RESULT, RESULTS, VERSION,
} from './frames.js';

/**
 * @typedef {import('./frames.js').Frame} Frame
 * @typedef {import('./frames.js').Result} Result
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
    case PROOF:
      return { command, proof: reader.take(PROOF_BYTES) };
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
