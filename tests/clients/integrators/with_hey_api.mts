// The whole life of a credential, with the SDK of hey-api (@hey-api/openapi-ts). The arguments are
// the address and a token.

import assert from "node:assert/strict";
import {
  endClientSecret,
  getCredential,
  type IssuedCredential,
  issueCredential,
  listCredentials,
  listEvents,
  listUnitEvents,
  patchCredential,
  revokeCredential,
  rotateCredential,
  updateCredential,
  verify,
} from "./hey_client/index.js";
import { client } from "./hey_client/client.gen.js";

const [baseUrl, token] = process.argv.slice(2);
client.setConfig({ baseUrl, auth: token });

function verifyPair({ client_id, client_secret }: IssuedCredential) {
  return verify({ auth: `${client_id}:${client_secret}` });
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

const rejected = await issueCredential({ body: { name: "" } });
assert.equal(rejected.response?.status, 400);
assert.equal(rejected.error?.detail, "Name must be 1-50 characters");
assert.equal(rejected.error.errors?.[0].pointer, "/name");

const headers = { "Idempotency-Key": crypto.randomUUID() };
const body = { name: "CRM backend" };
const { data: shop } = await issueCredential({ body: { name: "Shop" } });
const { data: issued } = await issueCredential({ headers, body });
assert(shop && issued);
const repeated = await issueCredential({ headers, body });
assert.equal(repeated.data?.client_secret, issued.client_secret);
const path = { secret_id: issued.secret_id };

const filtered = await listCredentials({ query: { name: "crm" } });
assert.deepEqual(filtered.data?.map(({ name }) => name), ["CRM backend"]);
// @ts-expect-error: the list shows no client secret, and its type says so
assert.equal(filtered.data[0].client_secret, undefined);

const names: string[] = [];
let cursor: string | undefined;
do {
  const page = await listCredentials({ query: { limit: 1, cursor } });
  assert(page.data && page.response);
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
  const { data: expiring } = await issueCredential({ body: { name: "x", expires_at } });
  assert(expiring);
  const path = { secret_id: expiring.secret_id };
  await rotateCredential({ path, body: { overlap_seconds: 0, expires_at }, throwOnError: true });
  const { data: shown } = await getCredential({ path });
  assert.deepEqual(shown?.secrets.map(({ expires_at }) => expires_at), [whole]);
  const later = write(soon + day);
  const found = await listCredentials({ query: { expiring_before: later, unused_since: later } });
  assert.deepEqual(found.data?.map(({ secret_id }) => secret_id), [expiring.secret_id]);
  const { data: happened } = await listUnitEvents({
    query: { ...path, since: write(soon - 91 * day), until: write(soon) },
  });
  assert.equal(find(happened, "issued")?.detail.expires_at, whole);
  assert.equal(find(happened, "rotated")?.detail.expires_at, whole);
  await revokeCredential({ path, throwOnError: true });
}

const disabled = await updateCredential({
  path,
  body: { trust_upstream_consent: true, name: "CRM backend (EMEA)", enabled: false },
});
assert.equal(disabled.response?.status, 204);
assert.equal((await verifyPair(issued)).response?.status, 401);
const enabled = await patchCredential({ path, body: { enabled: true } });
assert.equal(enabled.response?.status, 204);

const { data: rotated } = await rotateCredential({ path, body: { overlap_seconds: 60 } });
assert(rotated);
for (const known of [issued, rotated]) {
  const { data: verified } = await verifyPair(known);
  assert.equal(verified?.trust_upstream_consent, true);
}

const { data: credential } = await getCredential({ path });
assert.equal(credential?.name, "CRM backend (EMEA)");
const previous = credential.secrets.find(({ expires_at }) => expires_at !== null);
assert(previous);
assert.equal(previous.hint, issued.client_secret.slice(-4));
const ended = await endClientSecret({ path: { ...path, hint: previous.hint } });
assert.equal(ended.response?.status, 204);
assert.equal((await verifyPair(issued)).response?.status, 401);

for (const { secret_id } of [issued, shop]) {
  const revoked = await revokeCredential({ path: { secret_id } });
  assert.equal(revoked.response?.status, 204);
}
const unknown = await verifyPair(rotated);
assert.equal(unknown.response?.status, 401);
assert.equal(unknown.error?.title, "Unauthorized");

const { data: events } = await listEvents({ path });
assert.equal(find(events, "issued")?.detail.name, "CRM backend");
assert.equal(find(events, "updated")?.detail.name?.to, "CRM backend (EMEA)");
assert.equal(find(events, "rotated")?.detail.overlap_seconds, 60);
assert.equal(find(events, "secret_ended")?.detail.hint, previous.hint);
assert(find(events, "revoked"));

const { data: trail } = await listUnitEvents({ query: { ...path, order: "asc", event: "disabled" } });
assert.equal(find(trail, "disabled")?.secret_id, issued.secret_id);
