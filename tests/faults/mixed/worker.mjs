/** A consumer of the Node package, with the settings of its environment. */
import { Consumer } from '../../../sdk/node/src/index.js';

const { ONCECAST_LISTEN: listen, ONCECAST_CONSUMER_ID: consumerId, ONCECAST_GROUP: group } = process.env;
const handle = (delivery) => ({ message_id: delivery.json().message_id });
await new Consumer(handle, { listen, consumerId, group, concurrency: 2, prefetch: 256, logger: console }).run();
