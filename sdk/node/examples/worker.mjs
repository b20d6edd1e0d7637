/**
 * A small worker. Start a dispatcher with `--consumers 127.0.0.1:6969`, then publish JSON on `messages:published`.
 *
 * Under faults: oncecast chaos --consumer-command 'node worker.mjs'
 */
import { Consumer, Reject } from 'oncecast';

function handle(delivery) {
  let message;
  try {
    message = delivery.json();
  } catch (error) {
    throw new Reject(`not JSON: ${error.message}`);
  }
  return { message_id: message.message_id ?? '', delivery: delivery.number };
}

const { ONCECAST_LISTEN, ONCECAST_GROUP, ONCECAST_CONSUMER_ID } = process.env;
await new Consumer(handle, {
  listen: ONCECAST_LISTEN ?? '127.0.0.1:6969',
  group: ONCECAST_GROUP ?? 'messages',
  consumerId: ONCECAST_CONSUMER_ID,
}).run();
