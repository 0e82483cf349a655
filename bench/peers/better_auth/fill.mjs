// Make keys by the library's own means and many more rows like theirs, then print the keys.

import { getMigrations } from "better-auth/db/migration";
import { auth, pool } from "./auth.mjs";

const [rows, keys] = process.argv.slice(2).map(Number);

await (await getMigrations(auth.options)).runMigrations();
const context = await auth.$context;
const user = await context.internalAdapter.createUser({ name: "Bench", email: "bench@localhost.test" });
const made = [];
for (let n = 0; n < keys; n += 1) {
  const { key } = await auth.api.createApiKey({ body: { userId: user.id, name: `Key ${n}` } });
  made.push(key);
}
const { rows: found } = await pool.query(
  "SELECT column_name FROM information_schema.columns WHERE table_name = 'apikey' AND column_name NOT IN ('id', 'key')",
);
const columns = found.map(({ column_name: name }) => `"${name}"`).join(", ");
await pool.query(
  `INSERT INTO apikey (id, key, ${columns})
   SELECT 'made-' || n, encode(sha256(n::text::bytea), 'base64'), ${columns}
   FROM (SELECT * FROM apikey LIMIT 1) AS one, generate_series(1, $1::int) AS n`,
  [rows - keys],
);
await pool.query("VACUUM ANALYZE");
await pool.end();
console.log(JSON.stringify(made));
