import httpx
from flask import Flask, Response, g, request

PASSED_ON = ("WWW-Authenticate", "Retry-After")

app = Flask(__name__)
credentials = httpx.Client(base_url="http://127.0.0.1:8000", timeout=2)


@app.before_request
def verify() -> Response | None:
    authorization = request.headers.get("Authorization", "")
    try:
        answer = credentials.get("/verify", headers={"Authorization": authorization})
        if answer.status_code == 200:
            g.sender = answer.json()
            return None
    except (httpx.HTTPError, ValueError):
        answer = None
    if answer is None or answer.status_code not in (401, 403, 429):
        return Response(status=503, headers={"Retry-After": "1"})
    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    return Response(status=answer.status_code, headers=headers)


@app.post("/events")
def receive() -> tuple[dict[str, str], int]:
    return {"from": g.sender["name"]}, 202
