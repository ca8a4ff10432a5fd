"""Schemas of topics, as a schema service has them."""

import json

import fastavro.schema


def avro_fingerprint(definition: str) -> str | None:
    """Fingerprint an Avro schema (CRC-64-AVRO of its canonical form, 16 hex digits); None if it is none."""
    try:
        canonical = fastavro.schema.to_parsing_canonical_form(json.loads(definition))
    except fastavro.schema.SchemaParseException:
        return None
    except (LookupError, RecursionError, TypeError, ValueError):  # what else fastavro stumbles with
        return None
    return str(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
