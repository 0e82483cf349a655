// oidc-provider with token introspection, and an adapter that keeps its models in Postgres.

import pg from "pg";
import { Provider } from "oidc-provider";

export const pool = new pg.Pool({ max: 5 });

class PostgresAdapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    await pool.query(
      `INSERT INTO oidc_models (model, id, payload, expires_at)
       VALUES ($1, $2, $3, now() + make_interval(secs => $4))
       ON CONFLICT (model, id) DO UPDATE
       SET payload = excluded.payload, expires_at = excluded.expires_at`,
      [this.model, id, payload, expiresIn],
    );
  }

  async find(id) {
    const { rows } = await pool.query({
      name: "find",
      text: `SELECT payload FROM oidc_models
             WHERE model = $1 AND id = $2 AND expires_at > now()`,
      values: [this.model, id],
    });
    return rows[0]?.payload;
  }
}

export const provider = new Provider("http://127.0.0.1", {
  adapter: PostgresAdapter,
  clients: [
    {
      client_id: "resource-server",
      client_secret: "resource-server-secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
  },
  ttl: { ClientCredentials: 24 * 60 * 60 },
});
