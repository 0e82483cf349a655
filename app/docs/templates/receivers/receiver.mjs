import express from "express";

const app = express();

app.use(async (request, response, next) => {
  const headers = { authorization: request.get("authorization") ?? "" };
  const signal = AbortSignal.timeout(2000);
  let answer;
  try {
    answer = await fetch("http://127.0.0.1:8000/verify", { headers, signal });
    if (answer.status === 200) request.sender = await answer.json();
  } catch {
    answer = undefined;
  }
  if (request.sender) return next();
  if (![401, 403, 429].includes(answer?.status)) {
    return response.set("Retry-After", "1").sendStatus(503);
  }
  for (const name of ["WWW-Authenticate", "Retry-After"]) {
    if (answer.headers.has(name)) response.set(name, answer.headers.get(name));
  }
  response.sendStatus(answer.status);
});

app.post("/events", (request, response) => {
  response.status(202).json({ from: request.sender.name });
});

app.listen(process.env.PORT ?? 3000, "127.0.0.1");
