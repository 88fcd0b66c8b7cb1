// Numbers for people.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const known = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value, digits = 0) {
  return known(value) ? value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–";
}

export function rate(value) {
  return known(value) ? count(value, value > 0 && value < 10 ? 1 : 0) : "–";
}

// [number, unit]
export function duration(ms) {
  if (!known(ms)) return ["–", ""];
  if (ms > 0 && ms < 10) return [count(ms, 1), "ms"];
  if (ms < 1000) return [count(ms), "ms"];
  return [count(ms / 1000, ms < 10_000 ? 2 : 1), "s"];
}

export function percent(share) {
  if (!known(share)) return ["–", ""];
  const value = share * 100;
  return [count(value, value > 0 && value < 10 ? 1 : 0), "%"];
}

export function money(cents, currency) {
  if (!known(cents)) return "–";
  return (cents / 100).toLocaleString("en", { style: "currency", currency: currency || "EUR", maximumFractionDigits: 0 });
}

export function bytes(value) {
  if (!known(value)) return "–";
  if (value < 1e6) return `${count(value / 1e3)} kB`;
  return `${count(value / 1e6, 1)} MB`;
}

export const time = (seconds) => clock.format(new Date(seconds * 1000));
export const iso = (seconds) => new Date(seconds * 1000).toISOString();

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}
