-- Let a credential say what it may do, and from where. Null: everything, and from everywhere.

-- The order of a list and the form of an address are the service's. NOT VALID, so that no row is read
-- while the table is locked: all of them are null.
ALTER TABLE credentials
    ADD COLUMN scopes text[],
    ADD COLUMN addresses text[],
    ADD CONSTRAINT credentials_scopes_format CHECK (
        cardinality(scopes) <= 16 AND array_position(scopes, NULL) IS NULL
        AND array_to_string(scopes, ',') ~ '^([a-z][a-z0-9._-]{0,31}(,[a-z][a-z0-9._-]{0,31})*)?$'
    ) NOT VALID,
    ADD CONSTRAINT credentials_addresses_format CHECK (
        cardinality(addresses) BETWEEN 1 AND 50 AND array_position(addresses, NULL) IS NULL
        AND array_to_string(addresses, ',') ~ '^[0-9a-f:.]+(/[0-9]+)?(,[0-9a-f:.]+(/[0-9]+)?)*$'
    ) NOT VALID;
