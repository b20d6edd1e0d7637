/** Workers for Oncecast. See README.md. */
export { Consumer } from './consumer.js';
export { Delivery } from './delivery.js';
export { Reject, Retry } from './outcome.js';
