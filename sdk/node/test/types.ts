/** Compiled, never run: programs that must have the right types, and some that must not. */
import { Consumer, Delivery, Reject, Retry, type ConsumerOptions, type Handler, type Outcome } from '../index.js';

const handler: Handler = async (delivery) => {
  const order: { id: string } = delivery.json();
  if (delivery.number > 3) {
    throw new Reject('too often', { cause: new Error('why') });
  }
  if (delivery.channelText === null) {
    throw new Retry('no channel', { afterMs: 500 });
  }
  return { id: order.id, bytes: delivery.payload, total: 42, big: 42n, ok: true, at: new Date(), list: [1], none: null };
};

const nothing: Handler = () => {};
const map: Handler = () => new Map([[Buffer.from('name'), 'value']]);
// @ts-expect-error a text is no outcome
const text: Handler = () => 'text';

const options: ConsumerOptions = { group: 'messages', listen: '127.0.0.1:6969', logger: console, prefetch: 4, trace: true };
export const delayed: ConsumerOptions = { retry: 'fixed:5s' };
export const secured: ConsumerOptions = {
  tlsCert: 'c.pem', tlsKey: 'c.key', tlsClientCa: 'ca.pem', linkSecretFile: 's',
};
// @ts-expect-error a path is a text
export const wrongPath: ConsumerOptions = { tlsCert: 7 };
// @ts-expect-error there is no such setting
const misspelt: ConsumerOptions = { prefetsch: 4 };

export async function run(): Promise<string | undefined> {
  const consumer = new Consumer(handler, options);
  await consumer.start();
  const parent: string | undefined = new Delivery('{}').traceparent;
  const port: number | undefined = consumer.address?.port;
  await consumer.stop();
  const outcome: Outcome = await handler(new Delivery('{}', { id: 7, number: 2, channel: 'c', consumerId: 'x' }));
  await new Consumer(nothing).run();
  return `${port} ${parent} ${outcome} ${consumer.held} ${consumer.isConnected} ${text} ${map} ${misspelt}`;
}
