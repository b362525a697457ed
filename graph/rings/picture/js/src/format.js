// Figures for people. Money is summed by currency, in whole minor units, and never across currencies.

const DAY = new Intl.DateTimeFormat("en-GB", {
  timeZone: "UTC", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
});

/** Microseconds since 1970 as "4 Mar 2026, 12:30". */
export const moment = (us) => (us === null || us === undefined ? "" : DAY.format(us / 1000));

/** Minor units (a BigInt) with the currency's decimals: "1,234.50 EUR". */
export function money(minor, currency, decimals) {
  const places = decimals[currency] ?? 2;
  const digits = String(minor < 0n ? -minor : minor).padStart(places + 1, "0");
  const whole = digits.slice(0, digits.length - places).replace(/\B(?=(\d{3})+$)/g, ",");
  return `${minor < 0n ? "-" : ""}${whole}${places ? `.${digits.slice(-places)}` : ""} ${currency}`;
}

/** Sums by currency of some payments, the largest first: [["EUR", "12.00 EUR"], ...]. */
export function sums(payments, numbers, decimals) {
  const sum = new Map();
  for (const i of numbers) {
    sum.set(payments.currency[i], (sum.get(payments.currency[i]) ?? 0n) + BigInt(payments.minor[i]));
  }
  const major = ([code, minor]) => Number(minor) / 10 ** (decimals[code] ?? 2);
  return [...sum].sort((a, b) => major(b) - major(a)).map(([code, minor]) => [code, money(minor, code, decimals)]);
}

/** "3 payments", "1 payment". */
export const count = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

/** At most `most` characters; the middle goes, since identifiers differ at their ends. */
export function short(text, most = 22) {
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - half)}…${text.slice(-half)}`;
}
