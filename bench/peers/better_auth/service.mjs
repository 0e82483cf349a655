// One process of node:http that asks better-auth whether the API key of a request is valid.

import { createServer } from "node:http";
import { auth } from "./auth.mjs";

const server = createServer(async (request, response) => {
  const { valid } = await auth.api.verifyApiKey({ body: { key: request.headers["x-api-key"] ?? "" } });
  const body = JSON.stringify({ valid });
  response.writeHead(valid ? 200 : 401, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
});
server.listen(Number(process.env.PORT), "127.0.0.1");
