"""What comes in: schemas, files, public data, the payment world and the journal."""
