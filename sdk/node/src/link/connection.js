/**
 * One connection of a dispatcher: from the accepted handshake to its end.
 */
import { decode } from '../decode.js';
import { encode } from '../encode.js';
import {
  CODES, DELIVER, ERROR, HELLO, LEAD, MAX_MESSAGE_BYTES, PROCESS, PROOF, ProtocolError, RECORDED, COMMANDS,
} from '../frames.js';
import { NO_NONCE, NO_PROOF, WRONG_PROOF } from './secret.js';

/** The longest wait for LEAD, from the TCP connection on. */
export const LEAD_TIMEOUT_MS = 5_000;
/** The largest message before LEAD. */
const MAX_FIRST_BYTES = 65_536;
/** How long a connection that was closed here may take to end. */
const CLOSE_MS = 1_000;
const GOING_AWAY = 1001;

/** A `Link` of the desk. */
export class Connection {
  /** @type {bigint | null} */
  epoch = null;
  places = 0;
  bytes = 0;
  isClosing = false;
  /** That of its lane, once LEAD was accepted. @type {import('./desk.js').Desk | null} */
  desk = null;
  #ended = false;
  /** The dispatcher's, if it needs one. @type {Buffer | null} */
  #proof = null;

  /**
   * @param {import('ws').WebSocket} socket
   * @param {string} peer
   * @param {import('./lanes.js').Lanes} lanes
   * @param {{ hello: (lane: number, hello: Record<string, unknown>) => void,
   *   event: import('../limiter.js').Event }} owner
   * @param {import('./secret.js').Challenge | null | undefined} challenge what the dispatcher has to prove; undefined:
   *   nothing; null: it can't prove what it has to
   */
  constructor(socket, peer, lanes, owner, challenge) {
    this.socket = socket;
    this.peer = peer;
    this.lanes = lanes;
    this.owner = owner;
    this.challenge = challenge;
    this.confirms = socket.protocol === 'oncecast.2';
    socket.on('message', (data, isBinary) => this.#guard(() => this.#message(/** @type {Buffer} */ (data), isBinary)));
    // Pings come each third of the dispatcher's link timeout. The library has answered this one.
    socket.on('ping', () => this.desk?.progress(this));
    socket.on('error', (error) => owner.event('warn', 'connection-broken', { peer, reason: error.message }));
    socket.on('close', () => this.#end());
    if (challenge === null) {
      this.refuse(new ProtocolError(CODES.notAuthenticated, NO_NONCE));
    }
  }

  /** @param {() => void} action */
  #guard(action) {
    if (this.isClosing) {
      return;
    }
    try {
      action();
    } catch (error) {
      if (!(error instanceof ProtocolError)) {
        throw error;
      }
      this.refuse(error);
    }
  }

  /**
   * All frames of a message are decoded before the first is obeyed.
   *
   * @param {Buffer} data
   * @param {boolean} isBinary
   */
  #message(data, isBinary) {
    if (!isBinary) {
      throw new ProtocolError(CODES.malformed, 'a text message; frames are binary');
    }
    if (data.length > (this.epoch === null ? MAX_FIRST_BYTES : MAX_MESSAGE_BYTES)) {
      throw new ProtocolError(CODES.tooLarge, `a message of ${data.length} bytes`);
    }
    const frames = decode(data);
    /** @type {(import('../frames.js').Process | import('../frames.js').Deliver)[]} */
    const messages = [];
    for (const [i, frame] of frames.entries()) {
      const isGreeted = this.epoch !== null;
      const isProven = !this.challenge || this.#proof !== null;
      if (!isProven && frame.command !== PROOF && frame.command !== ERROR) {
        throw new ProtocolError(CODES.notAuthenticated, NO_PROOF);
      }
      const { desk } = this;
      if ((frame.command === PROCESS || frame.command === DELIVER) && isGreeted) {
        messages.push(frame);
      } else if (frame.command === RECORDED && desk !== null && this.confirms) {
        desk.recorded(this, frame.ids);
      } else if (frame.command === PROOF && !isProven) {
        this.#proof = frame.proof;
      } else if (frame.command === LEAD && !isGreeted) {
        if (this.challenge && !this.challenge.isMet(/** @type {Buffer} */ (this.#proof), frame.epoch, frame.group)) {
          throw new ProtocolError(CODES.notAuthenticated, WRONG_PROOF);
        }
        this.desk = this.lanes.lead(this, frame.epoch, frame.group);
        const { peer, epoch, confirms } = this;
        const { lane, heldCount } = this.desk;
        this.owner.event('info', 'dispatcher-rules', { peer, epoch, lane, confirms, held: heldCount });
      } else if (frame.command === HELLO && desk !== null && this.confirms && i > 0 && frames[i - 1].command === LEAD) {
        this.owner.hello(desk.lane, frame.hello);
      } else if (frame.command === ERROR) {
        this.owner.event('warn', 'dispatcher-error', { peer: this.peer, code: frame.code, reason: frame.text });
        this.close();
        return;
      } else {
        throw new ProtocolError(CODES.unexpected, `${COMMANDS[frame.command].name} has no place here`);
      }
    }
    if (messages.length > 0) {
      this.desk?.accept(this, messages);
    }
  }

  buffered() {
    return this.socket.bufferedAmount;
  }

  /** @param {Buffer} bytes */
  put(bytes) {
    if (!this.isClosing) {
      // An error ends the connection, which is reported there.
      this.socket.send(bytes, (error) => {
        if (!error && !this.isClosing) {
          this.desk?.pump();
        }
      });
    }
  }

  /** @param {ProtocolError} error */
  refuse({ code, message }) {
    if (this.isClosing) {
      return;
    }
    // Replacing a connection is a part of every change of the leader.
    const level = code === CODES.stale || code === CODES.replaced ? 'info' : 'warn';
    this.owner.event(level, 'connection-refused', { peer: this.peer, code, reason: message });
    this.put(encode({ command: ERROR, code, text: message }));
    this.close();
  }

  /** Sends what was put and a close frame. */
  close() {
    if (!this.isClosing) {
      this.isClosing = true;
      this.desk?.leave(this);
      this.socket.close(GOING_AWAY);
      setTimeout(() => this.socket.terminate(), CLOSE_MS).unref();
    }
  }

  #end() {
    this.isClosing = true;
    if (!this.#ended) {
      this.#ended = true;
      if (this.desk?.active === this) {
        this.owner.event('info', 'dispatcher-left', { peer: this.peer, epoch: this.epoch });
      }
      this.desk?.leave(this);
    }
  }
}
