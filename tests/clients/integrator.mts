// Code that uses the generated TypeScript client. Its arguments are the address and a token.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./openapi.js";

type IssuedCredential = components["schemas"]["IssuedCredential"];
type Problem = components["schemas"]["Problem"];
type BadRequest = paths["/secrets"]["post"]["responses"][400]["content"]["application/problem+json"];

const [baseUrl, token] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

function verify({ client_id, client_secret }: IssuedCredential) {
  const headers = { Authorization: `Basic ${btoa(`${client_id}:${client_secret}`)}` };
  return client.GET("/verify", { headers });
}

const rejected = await client.POST("/secrets", { body: { name: "" } });
assert.equal(rejected.response.status, 400);
const problem: Problem = rejected.error as BadRequest;
assert.equal(problem.detail, "Name must be 1-50 characters");

const { data: issued } = await client.POST("/secrets", { body: { name: "CRM backend" } });
assert(issued);
const params = { path: { secret_id: issued.secret_id } };

const { data: listed } = await client.GET("/secrets");
assert.deepEqual(listed?.map(({ name }) => name), ["CRM backend"]);
// @ts-expect-error: the list shows no client secret, and its type says so
assert.equal(listed[0].client_secret, undefined);

const updated = await client.PUT("/secrets/{secret_id}", {
  params,
  body: { trust_upstream_consent: true },
});
assert.equal(updated.response.status, 204);

const { data: rotated } = await client.POST("/secrets/{secret_id}/rotate", {
  params,
  body: { overlap_seconds: 60 },
});
assert(rotated);
assert.notEqual(rotated.client_secret, issued.client_secret);

const { data: credential } = await client.GET("/secrets/{secret_id}", { params });
const previous = credential?.secrets.find(({ expires_at }) => expires_at !== null);
assert.equal(previous?.hint, issued.client_secret.slice(-4));

for (const known of [issued, rotated]) {
  const { data: verified } = await verify(known);
  assert.equal(verified?.trust_upstream_consent, true);
}

const revoked = await client.DELETE("/secrets/{secret_id}", { params });
assert.equal(revoked.response.status, 204);
const unknown = await verify(rotated);
assert.equal(unknown.response.status, 401);
assert.equal(unknown.error?.title, "Unauthorized");

const { data: events } = await client.GET("/secrets/{secret_id}/events", { params });
assert.deepEqual(
  events?.map(({ event }) => event),
  ["revoked", "rotated", "updated", "issued"],
);
