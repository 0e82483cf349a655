// The whole life of a credential, with the types of openapi-typescript and its companion
// openapi-fetch. The arguments are the address and a token.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./openapi.js";

type Schemas = components["schemas"];
type IssuedCredential = Schemas["IssuedCredential"];

const [baseUrl, token] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

function verify({ client_id, client_secret }: IssuedCredential) {
  const headers = { Authorization: `Basic ${btoa(`${client_id}:${client_secret}`)}` };
  return client.GET("/verify", { headers });
}

function nextCursor(response: Response) {
  const link = response.headers.get("Link")?.match(/<(.*)>/)?.[1];
  return new URL(link ?? "", baseUrl).searchParams.get("cursor") ?? undefined;
}

// Returns the first event of a kind that is known. Kinds that are not known are ignored.
function find<Event extends { event: string }, Name extends Event["event"]>(
  events: Event[] | undefined,
  name: Name,
) {
  return events?.find((each): each is Extract<Event, { event: Name }> => each.event === name);
}

const rejected = await client.POST("/secrets", { body: { name: "" } });
assert.equal(rejected.response.status, 400);
const problem: Schemas["Problem"] = rejected.error!;
assert.equal(problem.detail, "Name must be 1-50 characters");
assert.equal(problem.errors?.[0].pointer, "/name");

const header = { "Idempotency-Key": crypto.randomUUID() };
const { data: shop } = await client.POST("/secrets", { body: { name: "Shop" } });
const { data: issued } = await client.POST("/secrets", {
  params: { header },
  body: { name: "CRM backend" },
});
assert(shop && issued);
const repeated = await client.POST("/secrets", { params: { header }, body: { name: "CRM backend" } });
assert.equal(repeated.data?.client_secret, issued.client_secret);
const params = { path: { secret_id: issued.secret_id } };

const filtered = await client.GET("/secrets", { params: { query: { name: "crm" } } });
assert.deepEqual(filtered.data?.map(({ name }) => name), ["CRM backend"]);
// @ts-expect-error: the list shows no client secret, and its type says so
assert.equal(filtered.data[0].client_secret, undefined);

const names: string[] = [];
let cursor: string | undefined;
do {
  const page = await client.GET("/secrets", { params: { query: { limit: 1, cursor } } });
  assert(page.data);
  names.push(...page.data.map(({ name }) => name));
  cursor = nextCursor(page.response);
} while (cursor);
assert.deepEqual(names, ["CRM backend", "Shop"]);

// Times as a program has them: of `toISOString`, to the second, and of another time zone.
const day = 24 * 60 * 60 * 1000;
const soon = Math.floor(Date.now() / 1000) * 1000 + 90 * day + 500;
const whole = toSecond(soon);
const spellings = [iso, toSecond, inIndia];

function iso(time: number) {
  return new Date(time).toISOString();
}

function toSecond(time: number) {
  return iso(time).replace(/\.\d+/, "");
}

function inIndia(time: number) {
  return iso(time + 5.5 * 60 * 60 * 1000).replace("Z", "+05:30");
}

for (const write of spellings) {
  const expires_at = write(soon);
  const { data: expiring } = await client.POST("/secrets", { body: { name: "x", expires_at } });
  assert(expiring);
  const path = { secret_id: expiring.secret_id };
  const rotated = await client.POST("/secrets/{secret_id}/rotate", {
    params: { path },
    body: { overlap_seconds: 0, expires_at },
  });
  assert.equal(rotated.response.status, 200);
  const { data: shown } = await client.GET("/secrets/{secret_id}", { params: { path } });
  assert.deepEqual(shown?.secrets.map(({ expires_at }) => expires_at), [whole]);
  const later = write(soon + day);
  const found = await client.GET("/secrets", {
    params: { query: { expiring_before: later, unused_since: later } },
  });
  assert.deepEqual(found.data?.map(({ secret_id }) => secret_id), [expiring.secret_id]);
  const { data: happened } = await client.GET("/secrets/events", {
    params: { query: { ...path, since: write(soon - 91 * day), until: write(soon) } },
  });
  assert.equal(find(happened, "issued")?.detail.expires_at, whole);
  assert.equal(find(happened, "rotated")?.detail.expires_at, whole);
  await client.DELETE("/secrets/{secret_id}", { params: { path } });
}

const disabled = await client.PUT("/secrets/{secret_id}", {
  params,
  body: { trust_upstream_consent: true, name: "CRM backend (EMEA)", enabled: false },
});
assert.equal(disabled.response.status, 204);
assert.equal((await verify(issued)).response.status, 401);
const enabled = await client.PATCH("/secrets/{secret_id}", { params, body: { enabled: true } });
assert.equal(enabled.response.status, 204);

const { data: rotated } = await client.POST("/secrets/{secret_id}/rotate", {
  params,
  body: { overlap_seconds: 60 },
});
assert(rotated);
for (const known of [issued, rotated]) {
  const { data: verified } = await verify(known);
  assert.equal(verified?.trust_upstream_consent, true);
}

const { data: credential } = await client.GET("/secrets/{secret_id}", { params });
assert.equal(credential?.name, "CRM backend (EMEA)");
const previous = credential.secrets.find(({ expires_at }) => expires_at !== null);
assert(previous);
assert.equal(previous.hint, issued.client_secret.slice(-4));
const ended = await client.DELETE("/secrets/{secret_id}/secrets/{hint}", {
  params: { path: { secret_id: issued.secret_id, hint: previous.hint } },
});
assert.equal(ended.response.status, 204);
assert.equal((await verify(issued)).response.status, 401);

for (const { secret_id } of [issued, shop]) {
  const revoked = await client.DELETE("/secrets/{secret_id}", { params: { path: { secret_id } } });
  assert.equal(revoked.response.status, 204);
}
const unknown = await verify(rotated);
assert.equal(unknown.response.status, 401);
assert.equal(unknown.error?.title, "Unauthorized");

const { data: events } = await client.GET("/secrets/{secret_id}/events", { params });
assert.equal(find(events, "issued")?.detail.name, "CRM backend");
assert.equal(find(events, "updated")?.detail.name?.to, "CRM backend (EMEA)");
assert.equal(find(events, "rotated")?.detail.overlap_seconds, 60);
assert.equal(find(events, "secret_ended")?.detail.hint, previous.hint);
assert(find(events, "revoked"));

const { data: trail } = await client.GET("/secrets/events", {
  params: { query: { secret_id: issued.secret_id, order: "asc", event: "disabled" } },
});
assert.equal(find(trail, "disabled")?.secret_id, issued.secret_id);
