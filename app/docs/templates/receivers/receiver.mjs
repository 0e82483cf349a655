import express from "express";

const app = express();

app.use(async (request, response, next) => {
  const headers = { authorization: request.get("authorization") ?? "" };
  const signal = AbortSignal.timeout(2000);
  let verification;
  try {
    verification = await fetch("http://127.0.0.1:8000/verify", { headers, signal });
    if (verification.status === 200) request.sender = await verification.json();
  } catch {
    verification = undefined;
  }
  if (request.sender) return next();
  if (![401, 403, 429].includes(verification?.status)) {
    return response.set("Retry-After", "1").sendStatus(503);
  }
  for (const name of ["WWW-Authenticate", "Retry-After"]) {
    if (verification.headers.has(name)) response.set(name, verification.headers.get(name));
  }
  response.sendStatus(verification.status);
});

app.post("/events", (request, response) => {
  response.status(202).json({ from: request.sender.name });
});

app.listen(process.env.PORT ?? 3000, "127.0.0.1");
