/** What HTTP requests get for an answer that are no handshakes of dispatchers. */

const FORBIDDEN = 'a handshake with an Origin header comes from a web page; only dispatchers may connect here';
const NOT_FOUND = 'the path for dispatchers is /';
export const UPGRADE_REQUIRED =
  'this is the port of an Oncecast consumer, where dispatchers connect by WebSocket (version 13)';

/** By the code of an error. @type {Record<string, string>} */
export const ANSWERS = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
};

/** @type {Record<number, string>} */
export const REASONS = { 403: 'Forbidden', 404: 'Not Found', 426: 'Upgrade Required' };

/**
 * @param {import('node:http').IncomingMessage} request
 * @returns {[number, string] | null}
 */
export function refusalOf(request) {
  if (request.method !== 'GET' || request.headers.upgrade?.toLowerCase() !== 'websocket') {
    return [426, UPGRADE_REQUIRED];
  }
  // A page of any site may open a WebSocket to any address that the browser reaches, and browsers send this header.
  if (request.headers.origin !== undefined) {
    return [403, FORBIDDEN];
  }
  const path = (request.url ?? '').replace(/^\w+:\/\/[^/]*/, '').replace(/[?#].*$/s, '');
  if (path !== '/' && path !== '') {
    return [404, NOT_FOUND];
  }
  return request.headers['sec-websocket-version']?.trim() === '13' ? null : [426, UPGRADE_REQUIRED];
}

/**
 * @param {string} text
 * @param {number} status
 * @returns {Record<string, string>}
 */
export function headers(text, status) {
  const upgrade = status === 426;
  return {
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(text) + 1),
    'X-Content-Type-Options': 'nosniff',
    Connection: upgrade ? 'Upgrade, close' : 'close',
    ...(upgrade ? { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13' } : {}),
  };
}
