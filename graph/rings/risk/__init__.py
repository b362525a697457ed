"""Risk rings: communities of the few risky payments, kept current payment by payment."""
