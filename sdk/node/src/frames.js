/** The numbers and limits of docs/PROTOCOL.md, and what a frame holds. `decode.js` and `encode.js` know the bytes. */

export const VERSION = 1;
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
export const PROOF = 15;

export const PROOF_BYTES = 32;

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
  { name: 'PROOF', limit: PROOF_BYTES },
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
  notAuthenticated: 11,
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
 * @typedef {{ command: 15, proof: Buffer }} Proof
 * @typedef {Process | Deliver | Ids | Nack | Lead | Ready | ResultFrame | Drain | ErrorFrame | Results | Hello | Credit
 *   | Proof} Frame
 */
