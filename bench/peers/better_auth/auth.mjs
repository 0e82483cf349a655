// better-auth with its plugin for API keys, on Postgres. libpq's variables name the database.

import { apiKey } from "@better-auth/api-key";
import { betterAuth } from "better-auth";
import pg from "pg";

export const pool = new pg.Pool({ max: 5 });

export const auth = betterAuth({
  baseURL: "http://127.0.0.1",
  secret: "a secret of the benchmark, long enough",
  database: pool,
  logger: { disabled: true },
  telemetry: { enabled: false },
  plugins: [apiKey({ rateLimit: { enabled: false } })],
});
