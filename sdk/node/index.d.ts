/** Works on one message. It may be called while others are at work, up to `concurrency` at a time. */
export type Handler = (delivery: Delivery) => Outcome | Promise<Outcome>;

/**
 * What a handler returns. Nothing: the message is done and nothing is recorded. An object or a Map: its fields become
 * the entry in the result stream, in this order, at most 3,900 of them and 12 MiB.
 */
export type Outcome = void | null | undefined | { readonly [name: string]: Value } | ReadonlyMap<Name, Value>;

export type Name = string | Uint8Array;

/**
 * Texts and bytes are recorded as they are; numbers and truth values as text; dates in ISO 8601; `null`, arrays and
 * objects as JSON. A field that is `undefined` is left out.
 */
export type Value = string | Uint8Array | number | bigint | boolean | Date | null | undefined | object;

/** A message as a handler receives it. */
export class Delivery {
  /** Dispatchers deliver messages. A test of a handler makes its own. */
  constructor(
    payload: string | Uint8Array,
    rest?: {
      id?: number; number?: number; channel?: string | Uint8Array | null; consumerId?: string; lane?: number;
    },
  );

  /** Unique in its lane, the same in each delivery, and below 2^53. */
  readonly id: number;
  /** The id as dead letters show it: 16 hexadecimal digits. */
  readonly hexId: string;
  /** The number of the message's lane: 0, unless the group's dispatchers listen to several nodes of a cluster. */
  readonly lane: number;
  /**
   * A name for the message that is unique in the group, the same in each delivery: `hexId`, in other lanes than lane 0
   * with the lane's number and `/` before it.
   */
  readonly key: string;
  /** 1 for the first delivery, 2 for the first redelivery, and so on. */
  readonly number: number;
  /** The channel that the message was published on; null if the group listens to one channel by name. */
  readonly channel: Buffer | null;
  /** The same as text. @throws {TypeError} if it is not UTF-8 */
  readonly channelText: string | null;
  /** What was published: any bytes, or none. */
  readonly payload: Buffer;
  /**
   * The trace context (W3C): the member `traceparent` if the payload is a JSON object and the member is valid. The
   * payload is parsed each time this is read, and never otherwise.
   */
  readonly traceparent: string | undefined;
  /** The id of this consumer. */
  readonly consumerId: string;

  /** The payload as text. @throws {TypeError} if it is not UTF-8 */
  text(): string;
  /** The payload parsed as JSON. @throws {SyntaxError | TypeError} if it is not */
  json(): any;
}

/** Thrown by a handler: deliver the message again. Every other error but `Reject` does the same with its text. */
export class Retry extends Error {
  /** `afterMs`: the wait, 1 ms to 49 days; without it, `retry` of the consumer decides, or else of the dispatchers. */
  constructor(reason: string, options?: { afterMs?: number; cause?: unknown });
  readonly afterMs: number | undefined;
}

/** Thrown by a handler: don't deliver the message again, move it to the dead letters. */
export class Reject extends Error {
  constructor(reason: string, options?: { cause?: unknown });
}

/** Gets one line of `key=value` pairs per event. `console`, pino and winston are such loggers. */
export interface Logger {
  error(line: string): void;
  warn(line: string): void;
  info?(line: string): void;
  debug?(line: string): void;
}

export interface ConsumerOptions {
  /** Where dispatchers connect, HOST:PORT. Port 0: any free one. Default: 127.0.0.1:6969 */
  listen?: string;
  /** The consumer group. Default: messages */
  group?: string;
  /** This consumer's name in logs and dead letters. Default: the address that it listens on */
  consumerId?: string;
  /** Most handlers at a time. Default: 16 */
  concurrency?: number;
  /**
   * Most messages held at a time. For slow handlers choose a small number, so that no message waits here while another
   * consumer is idle. Default: 1024
   */
  prefetch?: number;
  /**
   * A message whose handler has not ended after this time has failed. The handler continues, but what it returns is
   * dropped. 0: no limit. Default: 0
   */
  handlerTimeoutMs?: number;
  /** How long `stop` waits for handlers and for the confirmation of results. Default: 7000 */
  drainTimeoutMs?: number;
  /**
   * How long a message that failed waits for its next delivery, unless the handler threw a `Retry` with `afterMs`:
   * `exponential:200ms..5m*4`, `fixed:5s` or `none`. Default: as the dispatchers' setting `--retry` says
   */
  retry?: string;
  /** Whether the log of failed handlers has the messages' `traceparent`. Default: false */
  trace?: boolean;
  /**
   * A PEM file with this consumer's certificate, followed by those between it and its authority. Dispatchers then need
   * TLS: their addresses for it begin with `wss://`. It and the files below are read again when they have changed.
   * Default: no TLS
   */
  tlsCert?: string;
  /** A PEM file with the certificate's key, not encrypted. */
  tlsKey?: string;
  /**
   * A PEM file with certificates of authorities. Dispatchers then need a certificate that one of them has signed.
   * Default: any dispatcher may connect
   */
  tlsClientCa?: string;
  /**
   * A file with a secret in its only line, the same as the dispatchers'; consumer and dispatchers prove to each other
   * that they know it. In two lines, both count. Default: none
   */
  linkSecretFile?: string;
  /** Default: errors and warnings go to standard error. */
  logger?: Logger;
}

/** Receives messages from the dispatchers of a group, calls the handler for each, and sends back what it returns. */
export class Consumer {
  /** @throws {TypeError | RangeError} that names the wrong setting */
  constructor(handler: Handler, options?: ConsumerOptions);

  /** Starts, stops on SIGTERM or SIGINT (a second signal ends the process at once), and resolves after that. */
  run(): Promise<void>;
  /** Resolves when dispatchers can connect. Catches no signals. */
  start(): Promise<void>;
  /**
   * Accepts no more messages, returns those that no handler has started, waits for the others, and closes the
   * connections. A consumer that was stopped can't be started again.
   */
  stop(): Promise<void>;

  /** Where it listens; null before it does. */
  readonly address: { host: string; port: number } | null;
  readonly consumerId: string;
  /** Whether a dispatcher that leads is connected. */
  readonly isConnected: boolean;
  /** How many messages wait for a handler or are at work. */
  readonly held: number;
}
