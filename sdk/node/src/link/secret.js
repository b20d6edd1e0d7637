/**
 * The link secret: what a dispatcher and a consumer of a group prove to each other (docs/PROTOCOL.md, section 5.10).
 *
 * A file has the secret in a line, or the new and the old one in two, so that it can be changed without a break.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { FileProblem, Watched, isExposed, read } from './files.js';

const MIN_BYTES = 16;
const MAX_BYTES = 1_024;
const MAX_LINES = 2;
/** Lines and the white space around them. */
const MAX_FILE_BYTES = 65_536;
const NONCE_BYTES = 16;

/** What an ERROR tells a dispatcher. */
export const NO_NONCE = 'this consumer has a link secret; give the dispatcher the same with --link-secret-file';
export const NO_PROOF =
  'this consumer has a link secret, and the first frame is not PROOF; give the dispatcher the same secret';
export const WRONG_PROOF =
  "the dispatcher does not know this consumer's link secret; do both have the same file, or a line of it?";

/**
 * @param {Buffer} secret
 * @param {string} group
 * @param {Buffer} dispatchers its nonce
 * @param {Buffer} consumers its nonce
 */
export function proofOfConsumer(secret, group, dispatchers, consumers) {
  return hmac(secret, ['oncecast consumer\0', ...sized(group), dispatchers, consumers]);
}

/**
 * @param {Buffer} secret
 * @param {string} group
 * @param {bigint} epoch
 * @param {Buffer} dispatchers its nonce
 * @param {Buffer} consumers its nonce
 */
export function proofOfDispatcher(secret, group, epoch, dispatchers, consumers) {
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(epoch);
  return hmac(secret, ['oncecast dispatcher\0', ...sized(group), number, dispatchers, consumers]);
}

/**
 * @param {Buffer} secret
 * @param {(string | Buffer)[]} parts
 */
function hmac(secret, parts) {
  const made = createHmac('sha256', secret);
  for (const part of parts) {
    made.update(part);
  }
  return made.digest();
}

/** @param {string} group */
function sized(group) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(group));
  return [length, group];
}

/** One connection's: the secrets that count for it, and both sides' random numbers. */
export class Challenge {
  /**
   * @param {Buffer[]} secrets
   * @param {Buffer} dispatchers
   * @param {Buffer} consumers
   */
  constructor(secrets, dispatchers, consumers) {
    this.secrets = secrets;
    this.dispatchers = dispatchers;
    this.consumers = consumers;
  }

  /**
   * What is added to the answer of the handshake.
   *
   * @param {string} group
   */
  headers(group) {
    const proofs = this.secrets.map((secret) => proofOfConsumer(secret, group, this.dispatchers, this.consumers));
    const shown = proofs.map((proof) => proof.toString('hex')).join(', ');
    return [`Oncecast-Nonce: ${this.consumers.toString('hex')}`, `Oncecast-Proof: ${shown}`];
  }

  /**
   * Whether a dispatcher that knows one of the secrets has made this proof.
   *
   * @param {Buffer} proof
   * @param {bigint} epoch
   * @param {string} group
   */
  isMet(proof, epoch, group) {
    const matches = this.secrets.filter((secret) => {
      const wanted = proofOfDispatcher(secret, group, epoch, this.dispatchers, this.consumers);
      return proof.length === wanted.length && timingSafeEqual(proof, wanted);
    });
    return matches.length > 0;
  }
}

/** The secrets in the file as it is, or as it was when it could be used last. */
export class LinkSecret {
  #secrets;

  /**
   * @param {string} path
   * @param {import('../limiter.js').Event} event
   * @throws {FileProblem}
   */
  constructor(path, event) {
    this.#secrets = new Watched('link-secret', [path], () => load(path), event);
  }

  /**
   * For a handshake with this value of the header Oncecast-Nonce; null if it is not one nonce.
   *
   * @param {string | string[] | undefined} nonce
   */
  challenge(nonce) {
    // Of a header that comes twice, the values are joined.
    if (typeof nonce !== 'string' || !/^[0-9a-f]{32}$/.test(nonce)) {
      return null;
    }
    return new Challenge(this.#secrets.current(), Buffer.from(nonce, 'hex'), randomBytes(NONCE_BYTES));
  }
}

/**
 * @param {string} path
 * @returns {Buffer[]}
 */
function load(path) {
  /** @param {string} problem */
  const wrong = (problem) => new FileProblem('linkSecretFile', path, problem);
  const content = read('linkSecretFile', path, MAX_FILE_BYTES);
  if (isExposed(path)) {
    throw wrong('every user can read it; take that right away, with chmod o-r');
  }
  // Each byte is one character, so that lines may be any bytes.
  const lines = content.toString('latin1').split('\n').map((line) => line.replace(/^[ \t\r\f]+|[ \t\r\f]+$/g, ''));
  const secrets = lines.filter((line) => line !== '').map((line) => Buffer.from(line, 'latin1'));
  if (secrets.length < 1 || secrets.length > MAX_LINES) {
    throw wrong('write the secret in one line, or the new and the old one in two');
  }
  if (!secrets.every(({ length }) => length >= MIN_BYTES && length <= MAX_BYTES)) {
    throw wrong(`a secret has ${MIN_BYTES} to ${MAX_BYTES} bytes; openssl rand -hex 32 makes one`);
  }
  return secrets;
}
