"""Make a resource server, access tokens and many similar rows, then print the tokens."""

import json
import secrets
import sys
from datetime import timedelta

import service  # noqa: F401  configures Django
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from oauth2_provider.models import AccessToken, Application

rows, keys = int(sys.argv[1]), int(sys.argv[2])

call_command("migrate", verbosity=0)
application = Application.objects.create(
    name="Resource server",
    client_id="resource-server",
    client_secret="resource-server-secret",
    hash_client_secret=False,  # otherwise each introspection would take a PBKDF2 hash
    client_type=Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
)
made = [secrets.token_urlsafe(32) for _ in range(keys)]
tomorrow = timezone.now() + timedelta(days=1)
for token in made:
    AccessToken.objects.create(token=token, application=application, expires=tomorrow, scope="send")
columns = [
    field.column
    for field in AccessToken._meta.concrete_fields
    if field.column not in {"id", "token", "token_checksum"}
]
with connection.cursor() as cursor:
    cursor.execute(
        f"""
        INSERT INTO oauth2_provider_accesstoken (token, token_checksum, {", ".join(columns)})
        SELECT n::text, encode(sha256(n::text::bytea), 'hex'), {", ".join(columns)}
        FROM oauth2_provider_accesstoken
        JOIN (SELECT max(id) AS id FROM oauth2_provider_accesstoken) AS newest USING (id),
             generate_series(1, %s) AS n
        """,
        [rows - keys],
    )
    cursor.execute("VACUUM ANALYZE")
print(json.dumps(made))
