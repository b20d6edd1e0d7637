// A server of a test: the message says what it wants to be answered, the first time.

import { createServer } from "node:http";

const answers = {
  busy: (response) => response.writeHead(429, { "Retry-After": "1" }).end("busy"),
  date: (response) => response.writeHead(503, { "Retry-After": new Date(Date.now() + 2000).toUTCString() }).end(),
  failure: (response) => response.writeHead(500).end("out of order"),
  elsewhere: (response) => response.writeHead(302, { Location: "/other" }).end(),
  half: (response) => {
    response.writeHead(200, { "Content-Length": "100" });
    response.write("half", () => response.destroy());
  },
  nothing: (response) => response.destroy(),
};
const always = {
  unknown: (response) => response.writeHead(404, { "Content-Type": "text/plain" }).end("no such order\n"),
  empty: (response) => response.writeHead(204).end(),
  large: (response) => response.end(Buffer.alloc(10 << 20, "x")),
  binary: (response) => response.end(Buffer.from([0, 255, 10, 13, 254])),
};

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const { message_id, want } = JSON.parse(Buffer.concat(chunks));
    const delivery = Number(request.headers["oncecast-delivery"]);
    const answer = always[want] ?? (delivery === 1 ? answers[want] : undefined);
    if (answer) return answer(response);
    const { "idempotency-key": key, traceparent = null, tracestate = null } = request.headers;
    response.end(JSON.stringify({ message_id, delivery, key, nested: { a: [1] }, traceparent, tracestate }));
  });
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"));
