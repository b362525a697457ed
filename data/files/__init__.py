"""Files and public data sets in Ringwatch's schema."""
