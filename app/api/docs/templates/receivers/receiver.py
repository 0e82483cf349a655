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
    except httpx.HTTPError:
        return Response(status=503, headers={"Retry-After": "1"})
    if answer.status_code != 200:
        status = answer.status_code if answer.status_code in (401, 429) else 503
        headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        return Response(status=status, headers=headers)
    g.sender = answer.json()
    return None


@app.post("/events")
def receive() -> tuple[dict[str, str], int]:
    return {"from": g.sender["name"]}, 202
