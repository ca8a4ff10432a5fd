"""The words: Avro contracts and the records they describe. No Beam here."""
