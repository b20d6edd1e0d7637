/**
 * The listener: accepts TCP connections, refuses what is no dispatcher, and limits how many there are.
 */
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { WebSocketServer } from 'ws';
import { CODES, MAX_MESSAGE_BYTES, ProtocolError } from '../frames.js';
import { Connection, LEAD_TIMEOUT_MS } from './connection.js';
import { ANSWERS, REASONS, UPGRADE_REQUIRED, headers, refusalOf } from './http.js';
import { SLOW, UNEXPECTED_TLS, isHello, sentence } from './tls.js';

/** The most connections at a time. */
/** With one lane; each further lane adds those of its leader and of the one before. */
const MAX_CONNECTIONS = 64;
const CONNECTIONS_PER_LANE = 2;
const MAX_HEADER_BYTES = 8_192;
/**
 * A message that is a little too large is answered with an ERROR. The library closes the connection, without one, at
 * the first frame that goes beyond this.
 */
const MAX_RECEIVED_BYTES = MAX_MESSAGE_BYTES + 1_048_576;

/**
 * A TCP connection. With TLS, `socket` is the encrypted one, and HTTP begins once it `isReady`.
 *
 * @typedef {{ name: string, socket: import('node:net').Socket, isReady: boolean, isEnded: boolean,
 *   connection: Connection | null }} Peer
 */

export class Server {
  /** Oldest first. @type {Set<Peer>} */
  #peers = new Set();

  /**
   * @param {import('./lanes.js').Lanes} lanes
   * @param {(lane: number, hello: Record<string, unknown>) => void} hello
   * @param {import('../limiter.js').Event} event
   * @param {import('./tls.js').Certificates | null} certificates
   * @param {import('./secret.js').LinkSecret | null} secret
   */
  constructor(lanes, hello, event, certificates, secret) {
    this.lanes = lanes;
    this.hello = hello;
    this.event = event;
    this.secret = secret;
    const options = {
      noDelay: true,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: LEAD_TIMEOUT_MS,
      requestTimeout: LEAD_TIMEOUT_MS,
    };
    this.http = certificates === null ? createServer(options) : this.#tlsServer(certificates, options);
    this.webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: MAX_RECEIVED_BYTES,
      handleProtocols: (offered) => ['oncecast.2', 'oncecast.1'].find((protocol) => offered.has(protocol)) ?? false,
    });
    this.webSockets.on('headers', (lines, request) => {
      lines.push(...(challenges.get(request)?.headers(this.lanes.terms.group) ?? []));
    });
    this.http.on('connection', (socket) => this.#connected(socket, certificates === null));
    this.http.on('clientError', (error, socket) => this.#noHttp(error, socket));
    this.http.on('request', (request, response) => {
      const status = 426;
      this.event('warn', 'handshake-refused', { peer: nameOf(request.socket), status });
      response.writeHead(status, headers(UPGRADE_REQUIRED, status));
      response.end(`${UPGRADE_REQUIRED}\n`);
    });
    this.http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /**
   * @param {import('./tls.js').Certificates} certificates
   * @param {import('node:http').ServerOptions} options
   */
  #tlsServer(certificates, options) {
    let current = certificates.current();
    const requestCert = certificates.authorities !== '';
    // The limit is that of `#connected`; this one is in case that it has no timer any more.
    const handshakeTimeout = 2 * LEAD_TIMEOUT_MS;
    const server = createTlsServer({ ...options, ...current, requestCert, rejectUnauthorized: true, handshakeTimeout });
    // Before the listener of the library, which begins the handshake.
    server.prependListener('connection', () => {
      const latest = certificates.current();
      if (latest !== current) {
        current = latest;
        server.setSecureContext(latest);
      }
    });
    server.on('secureConnection', (socket) => {
      const peer = peerOf(socket);
      if (peer !== undefined) {
        peer.isReady = true;
        peer.socket = socket;
        peers.set(socket, peer);
      }
    });
    server.on('tlsClientError', (error, socket) => {
      const peer = peerOf(socket);
      // One that is ended here was reported, and one that has sent nothing is of no interest.
      if (peer === undefined || (!peer.isEnded && peer.socket.bytesRead > 0)) {
        const reason = sentence(error, socket.authorizationError, certificates.authorities);
        this.event('warn', 'tls-failed', { peer: peer?.name ?? 'unknown', reason });
      }
      socket.destroy();
      peer?.socket.destroy();
    });
    return server;
  }

  /**
   * @param {string} host
   * @param {number} port
   * @returns {Promise<import('node:net').AddressInfo>} where it listens
   */
  listen(host, port) {
    return new Promise((resolve, reject) => {
      this.http.once('error', reject);
      this.http.listen({ host, port, backlog: 2 * MAX_CONNECTIONS }, () => {
        this.http.off('error', reject);
        this.http.on('error', (error) => this.event('warn', 'accept-failed', { reason: error.message }));
        resolve(/** @type {import('node:net').AddressInfo} */ (this.http.address()));
      });
    });
  }

  /**
   * @param {import('node:net').Socket} socket
   * @param {boolean} isReady whether there is no TLS
   */
  #connected(socket, isReady) {
    if (this.#peers.size >= MAX_CONNECTIONS + CONNECTIONS_PER_LANE * (this.lanes.count - 1)) {
      this.#makeRoom();
    }
    /** @type {Peer} */
    const peer = { name: nameOf(socket), socket, isReady, isEnded: false, connection: null };
    this.#peers.add(peer);
    peers.set(socket, peer);
    const timer = setTimeout(() => {
      if (peer.connection === null) {
        if (!peer.isReady) {
          this.event('warn', 'tls-failed', { peer: peer.name, reason: SLOW });
        }
        end(peer);
      } else if (peer.connection.epoch === null) {
        peer.connection.refuse(new ProtocolError(CODES.unexpected, 'no LEAD in time'));
      }
    }, LEAD_TIMEOUT_MS);
    timer.unref();
    socket.on('close', () => {
      clearTimeout(timer);
      this.#peers.delete(peer);
    });
  }

  /** Ends a connection that is closing, or else the oldest that is not active. There is one, as lanes are fewer. */
  #makeRoom() {
    const others = [...this.#peers].filter(({ connection }) => connection?.desk?.active !== connection);
    const ended = others.find(({ connection }) => connection?.isClosing) ?? others[0];
    this.event('warn', 'connection-refused', { peer: ended.name, reason: 'too many connections' });
    this.#peers.delete(ended);
    end(ended);
  }

  /**
   * What came is no HTTP. Answered as the library does by itself.
   *
   * @param {NodeJS.ErrnoException & { rawPacket?: Buffer }} error
   * @param {import('node:stream').Duplex} socket
   */
  #noHttp({ code = '', rawPacket }, socket) {
    if (isHello(rawPacket)) {
      const peer = nameOf(/** @type {import('node:net').Socket} */ (socket));
      this.event('warn', 'tls-failed', { peer, reason: UNEXPECTED_TLS });
    }
    if (socket.writable && code !== 'ECONNRESET') {
      const answer = `HTTP/1.1 ${ANSWERS[code] ?? '400 Bad Request'}\r\nConnection: close\r\n\r\n`;
      socket.end(answer, () => socket.destroy());
    } else {
      socket.destroy();
    }
  }

  /**
   * @param {import('node:http').IncomingMessage} request
   * @param {import('node:stream').Duplex} socket
   * @param {Buffer} head
   */
  #upgrade(request, socket, head) {
    const name = nameOf(request.socket);
    // The library listens for errors from `handleUpgrade` on.
    socket.on('error', () => socket.destroy());
    const refusal = refusalOf(request);
    if (refusal !== null) {
      const [status, text] = refusal;
      this.event('warn', 'handshake-refused', { peer: name, status, reason: text });
      const lines = Object.entries(headers(text, status)).map(([key, value]) => `${key}: ${value}\r\n`);
      socket.end(`HTTP/1.1 ${status} ${REASONS[status]}\r\n${lines.join('')}\r\n${text}\n`);
      return;
    }
    const challenge = this.secret?.challenge(request.headers['oncecast-nonce']);
    if (challenge) {
      challenges.set(request, challenge);
    }
    this.webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const peer = peers.get(request.socket);
      const owner = { hello: this.hello, event: this.event };
      const connection = new Connection(webSocket, name, this.lanes, owner, challenge);
      if (peer !== undefined) {
        peer.connection = connection;
      }
    });
  }

  /** Stops listening and ends all connections, which are given a moment to send what they have. */
  async close() {
    const closed = new Promise((resolve) => {
      this.http.close(resolve);
    });
    /** @type {import('node:net').Socket[]} */
    const leaving = [];
    for (const peer of this.#peers) {
      if (peer.connection === null) {
        end(peer);
      } else {
        peer.connection.close();
        leaving.push(peer.socket);
      }
    }
    // `Connection.close` sets a limit to each, but its timer does not keep this thread alive.
    const limit = setTimeout(() => leaving.forEach((socket) => socket.destroy()), 1_000);
    await closed;
    clearTimeout(limit);
  }
}

/** @type {WeakMap<import('node:http').IncomingMessage, import('./secret.js').Challenge>} */
const challenges = new WeakMap();

/** @type {WeakMap<import('node:net').Socket, Peer>} */
const peers = new WeakMap();

/**
 * TLS begins and may end without an event that has both sockets, so the one below is asked for.
 *
 * @param {import('node:net').Socket & { _parent?: import('node:net').Socket }} socket
 */
function peerOf(socket) {
  return peers.get(socket) ?? (socket._parent === undefined ? undefined : peers.get(socket._parent));
}

/** @param {Peer} peer */
function end(peer) {
  peer.isEnded = true;
  peer.socket.destroy();
}

/** @param {import('node:net').Socket} socket */
function nameOf(socket) {
  return `${socket.remoteAddress}:${socket.remotePort}`;
}
