/** A message as a handler receives it. */

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const REPLACEMENT = '\ufffd';
/** version-traceid-parentid-flags. Neither id is zero, ff is no version, and those after 00 may add to it. */
const TRACEPARENT =
  /^(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[0-9a-z-]{0,72})?$/;

export class Delivery {
  /**
   * Dispatchers deliver messages. A test of a handler makes its own.
   *
   * @param {string | Uint8Array} payload
   * @param {{ id?: number, number?: number, channel?: string | Uint8Array | null, consumerId?: string,
   *   lane?: number }} [rest]
   */
  constructor(payload, { id = 1, number = 1, channel = null, consumerId = 'test', lane = 0 } = {}) {
    this.id = id;
    this.number = number;
    this.channel = channel === null ? null : bytes(channel);
    this.payload = bytes(payload);
    this.consumerId = consumerId;
    this.lane = lane;
  }

  /** The id as dead letters and members in Redis show it: 16 hexadecimal digits. */
  get hexId() {
    return this.id.toString(16).padStart(16, '0');
  }

  /** A name that is unique in the group: the id, in other lanes than lane 0 with the lane's number before it. */
  get key() {
    return this.lane === 0 ? this.hexId : `${this.lane}/${this.hexId}`;
  }

  get channelText() {
    return this.channel === null ? null : text(this.channel);
  }

  /** Parses the payload each time it is read. */
  get traceparent() {
    let message;
    try {
      message = this.json();
    } catch {
      return undefined;
    }
    // Of an array or a text this is undefined, too.
    const value = message?.traceparent;
    return typeof value === 'string' && TRACEPARENT.test(value) ? value : undefined;
  }

  text() {
    return text(this.payload);
  }

  json() {
    return JSON.parse(this.text());
  }
}

/**
 * @param {string | Uint8Array} value
 * @returns {Buffer}
 */
function bytes(value) {
  if (Buffer.isBuffer(value)) {
    return value;
  }
  return typeof value === 'string' ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.length);
}

/**
 * @param {Buffer} value
 * @returns {string}
 * @throws {TypeError} if it is not UTF-8
 */
function text(value) {
  // Faster than the strict decoder, which is needed only to tell a true replacement character from an error.
  const quick = value.toString();
  return quick.includes(REPLACEMENT) ? strict.decode(value) : quick;
}
