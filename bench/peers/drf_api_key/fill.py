"""Make keys with the library's own functions and many similar rows, then print the keys."""

import json
import sys

import service  # noqa: F401  configures Django
from django.core.management import call_command
from django.db import connection
from rest_framework_api_key.models import APIKey

rows, keys = int(sys.argv[1]), int(sys.argv[2])

call_command("migrate", verbosity=0)
made = [APIKey.objects.create_key(name=f"Key {n}")[1] for n in range(keys)]
with connection.cursor() as cursor:
    cursor.execute(
        """
        INSERT INTO rest_framework_api_key_apikey (
            id, prefix, hashed_key, name, revoked, created
        )
        SELECT prefix || '.' || hashed_key, prefix, hashed_key, 'Key', false, now()
        FROM (
            SELECT lpad(to_hex(n), 8, '-') AS prefix,
                   'sha512$$' || encode(sha512(n::text::bytea), 'hex') AS hashed_key
            FROM generate_series(1, %s) AS n
        ) AS made
        """,
        [rows - keys],
    )
    cursor.execute("VACUUM ANALYZE")
print(json.dumps(made))
