/** TLS on the links: the certificates, and what its failures mean. */
import { X509Certificate, constants, createPrivateKey } from 'node:crypto';
import { FileProblem, Watched, isExposed, read } from './files.js';

const MAX_FILE_BYTES = 1_048_576;

export const SLOW = 'it did not complete the TLS handshake in time';
export const UNEXPECTED_TLS =
  'it begins with TLS, and this consumer has none; give tlsCert and tlsKey here, or remove wss:// from its address ' +
  'for this consumer';
const NOT_TLS = 'it speaks no TLS on this port; is its address for this consumer without wss:// ?';
const CLOSED = 'it closed the connection during the TLS handshake';

/** @typedef {{ tlsCert: string, tlsKey: string, tlsClientCa: string }} TlsFiles paths, or empty */

/** The consumer's certificate and key, and the authorities of the dispatchers' certificates. */
export class Certificates {
  /** @type {Watched<import('node:tls').SecureContextOptions>} */
  #options;

  /**
   * @param {TlsFiles} files
   * @param {import('../limiter.js').Event} event
   * @throws {FileProblem}
   */
  constructor(files, event) {
    this.authorities = files.tlsClientCa;
    const paths = [files.tlsCert, files.tlsKey, files.tlsClientCa].filter((path) => path !== '');
    this.#options = new Watched('certificates', paths, () => load(files, event), event);
  }

  /** For new connections; the same object as long as the files are the same. */
  current() {
    return this.#options.current();
  }
}

/**
 * @param {TlsFiles} files
 * @param {import('../limiter.js').Event} event
 * @returns {import('node:tls').SecureContextOptions}
 */
function load({ tlsCert, tlsKey, tlsClientCa }, event) {
  const what = 'it must be a PEM file with a certificate, followed by those between it and its authority';
  const cert = certificates('tlsCert', tlsCert, what);
  const key = read('tlsKey', tlsKey, MAX_FILE_BYTES);
  if (isExposed(tlsKey)) {
    const problem = 'every user can read it; take that right away, with chmod o-r';
    event('warn', 'secret-exposed', { setting: 'tlsKey', file: tlsKey, problem });
  }
  let parsed;
  try {
    parsed = createPrivateKey(key);
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    const problem = `it must be a PEM file with the certificate's key, not encrypted (${message})`;
    throw new FileProblem('tlsKey', tlsKey, problem);
  }
  if (!cert.first.checkPrivateKey(parsed)) {
    throw new FileProblem('tlsKey', tlsKey, `it is not the key of the certificate in ${tlsCert}`);
  }
  const authorities = 'it must be a PEM file with the certificates of authorities';
  return {
    cert: cert.content,
    key,
    ...(tlsClientCa === '' ? {} : { ca: certificates('tlsClientCa', tlsClientCa, authorities).content }),
    minVersion: 'TLSv1.2',
    // Any certificate in the file is an authority, also one that another authority signed (Node 20.18, 22.9 and newer).
    allowPartialTrustChain: true,
    // A session that is resumed would not show its certificate again.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}

/**
 * The file and its first certificate. The library would skip what it can't read.
 *
 * @param {string} setting
 * @param {string} path
 * @param {string} what
 */
function certificates(setting, path, what) {
  const content = read(setting, path, MAX_FILE_BYTES);
  const text = content.toString('latin1');
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || blocks.length !== text.split('-----BEGIN CERTIFICATE-----').length - 1) {
    throw new FileProblem(setting, path, what);
  }
  try {
    return { content, first: blocks.map((block) => new X509Certificate(block))[0] };
  } catch (error) {
    throw new FileProblem(setting, path, `${what} (${/** @type {Error} */ (error).message})`);
  }
}

const NOT_TLS_CODES = new Set([
  'ERR_SSL_HTTP_REQUEST', 'ERR_SSL_HTTPS_PROXY_REQUEST', 'ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_BAD_RECORD_TYPE',
  'ERR_SSL_UNEXPECTED_MESSAGE', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'ERR_SSL_UNKNOWN_PROTOCOL',
]);
const NOTHING_IN_COMMON = new Set([
  'ERR_SSL_NO_SHARED_CIPHER', 'ERR_SSL_UNSUPPORTED_PROTOCOL', 'ERR_SSL_VERSION_TOO_LOW',
  'ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM', 'ERR_SSL_NO_SUITABLE_KEY_SHARE', 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
]);
const UNKNOWN_AUTHORITY = new Set([
  'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN',
]);

/**
 * Why a handshake failed, as a sentence about the peer.
 *
 * @param {NodeJS.ErrnoException & { reason?: string }} error
 * @param {unknown} refusal why the peer's certificate is not accepted, if that is so
 * @param {string} authorities the file
 */
export function sentence(error, refusal, authorities) {
  if (refusal !== null && refusal !== undefined) {
    return badClient(refusal instanceof Error ? refusal.message : String(refusal), authorities);
  }
  const code = error.code ?? '';
  if (code === 'ECONNRESET' || code === 'EPIPE') {
    return CLOSED;
  }
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') {
    return SLOW;
  }
  if (NOT_TLS_CODES.has(code)) {
    return NOT_TLS;
  }
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') {
    return 'it showed no certificate; give --tls-cert and --tls-key to the dispatcher';
  }
  if (NOTHING_IN_COMMON.has(code)) {
    return `no TLS version or cipher in common: ${error.reason ?? code}`;
  }
  const alert = /_ALERT_(.+)$/.exec(code)?.[1];
  if (alert !== undefined) {
    const said = alert.toLowerCase().replaceAll('_', ' ');
    return `it refuses our certificate, or what else we said: ${said}; see its log`;
  }
  return `TLS failed: ${error.reason ?? error.message}`;
}

/**
 * @param {string} refusal
 * @param {string} authorities
 */
function badClient(refusal, authorities) {
  if (refusal === 'CERT_HAS_EXPIRED') {
    return 'its certificate, or one between it and its authority, has expired; renew it';
  }
  if (refusal === 'CERT_NOT_YET_VALID') {
    return 'its certificate is not valid yet; is a clock wrong?';
  }
  return UNKNOWN_AUTHORITY.has(refusal)
    ? `its certificate was not signed by an authority in ${authorities}`
    : `its certificate can't be used: ${refusal}`;
}

/** Whether a connection that begins so wants TLS. @param {Buffer | undefined} bytes */
export function isHello(bytes) {
  return bytes !== undefined && bytes[0] === 0x16 && bytes[1] === 0x03;
}
