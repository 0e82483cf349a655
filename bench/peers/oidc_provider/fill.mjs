// Make tokens by the library's own means and many more rows like theirs, then print the tokens.

import { pool, provider } from "./provider.mjs";

const [rows, keys] = process.argv.slice(2).map(Number);

await pool.query(`
  CREATE TABLE oidc_models (
    model text NOT NULL,
    id text NOT NULL,
    payload jsonb NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (model, id)
  )
`);
const client = await provider.Client.find("resource-server");
const made = [];
for (let n = 0; n < keys; n += 1) {
  made.push(await new provider.ClientCredentials({ client, scope: "send" }).save());
}
await pool.query(
  `INSERT INTO oidc_models (model, id, payload, expires_at)
   SELECT model, 'made-' || n, payload || jsonb_build_object('jti', 'made-' || n), expires_at
   FROM (SELECT * FROM oidc_models LIMIT 1) AS one, generate_series(1, $1::int) AS n`,
  [rows - keys],
);
await pool.query("VACUUM ANALYZE");
await pool.end();
console.log(JSON.stringify(made));
