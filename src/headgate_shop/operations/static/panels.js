// What stands in the panels, each made from one part of the board.

import { byId, el, mark, reconcile, text } from "./dom.js";
import { bytes, count, duration, iso, money, percent, rate, span, time } from "./units.js";

const WORDS = { ok: "well", warn: "in doubt", down: "down", unknown: "not known" };
const join = ([value, unit]) => (unit ? `${value} ${unit}` : value);

function stateCell(state, word, why) {
  return [el("span", { class: "state", "data-state": state }, mark(), word), why ? el("span", { class: "why" }, why) : null];
}

// A cell is made anew only where what it says has changed.
function cell(element, key, children) {
  if (element.dataset.said === key) return;
  element.dataset.said = key;
  element.replaceChildren(...children.filter(Boolean));
}

export function services(rows) {
  const breakerOf = (row) => {
    const found = row.breakers ?? [];
    const worst = found.find((one) => !["closed", "disabled", "metrics_only"].includes(one.state));
    return worst ? worst.state : found.length ? "closed" : "";
  };
  reconcile(byId("services"), rows, (row) => row.name,
    (row) => el("tr", {}, el("th", { scope: "row" }, row.name), el("td"), el("td", { class: "n" }), el("td", { class: "n" }), el("td", { class: "n" }), el("td"), el("td", { class: "n" })),
    (tr, row) => {
      const cells = tr.children;
      cell(cells[1], `${row.state} ${row.why}`, stateCell(row.state, WORDS[row.state] ?? row.state, row.why));
      text(cells[2], row.of ? `${row.up} of ${row.of}` : "–");
      text(cells[3], rate(row.rps));
      text(cells[4], join(duration(row.p95_ms)));
      const breaker = breakerOf(row);
      cell(cells[5], breaker, breaker ? [breakerState(breaker)] : ["–"]);
      text(cells[6], row.process ? count(row.process.restarts) : "–");
    });
  const bad = rows.filter((row) => row.state === "down").length;
  const doubtful = rows.filter((row) => row.state === "warn").length;
  text(byId("services-hint"), bad || doubtful ? `${bad} down, ${doubtful} in doubt, of ${rows.length}` : `all ${rows.length} are well`);
}

function breakerState(state) {
  const said = {
    open: ["down", "open"], forced_open: ["down", "held open"], half_open: ["warn", "on trial"], closed: ["ok", "closed"],
  }[state] ?? ["unknown", state.replace("_", " ")];
  return el("span", { class: "state", "data-state": said[0] }, mark(), said[1]);
}

export function breakers(rows) {
  const order = { open: 0, forced_open: 0, half_open: 1 };
  const sorted = [...rows].sort((a, b) => (order[a.state] ?? 2) - (order[b.state] ?? 2) || a.name.localeCompare(b.name));
  reconcile(byId("breakers"), sorted, (row) => `${row.at} ${row.name}`,
    (row) => el("tr", {}, el("th", { scope: "row" }, row.name.replace(/ https?:\/\//, " ")), el("td", {}, row.at), el("td"), el("td", { class: "n" }), el("td", { class: "n" })),
    (tr, row) => {
      cell(tr.children[2], row.state, [breakerState(row.state)]);
      text(tr.children[3], join(percent(row.failure_rate)));
      text(tr.children[4], count(row.rejected));
    });
}

export function splits(rows) {
  const shown = rows.filter((row) => Object.keys(row.shares).length > 1);
  reconcile(byId("splits"), shown, (row) => row.route,
    (row) => el("div", {}, el("p", { class: "split-name" }, "Route ", el("b", {}, row.route), " is split"), el("div", { class: "split" })),
    (div, row) => {
      const shares = Object.entries(row.shares);
      cell(div.children[1], JSON.stringify(shares), shares.map(([name, share]) => {
        const part = el("span", {}, `${name} ${Math.round(share * 100)} %`);
        part.style.flexGrow = String(Math.max(share, 0.34));
        part.style.flexBasis = "0";
        return part;
      }));
    });
}

export function alerts(all) {
  const list = byId("alerts");
  const rows = all.filter((row) => row.state === "firing");
  const about = all.length - rows.length;
  text(byId("alerts-hint"), about ? `${about} more, if it goes on` : "");
  if (!rows.length) return empty(list, "Nothing fires.");
  reconcile(list, rows, (row) => row.id + row.level,
    (row) => el("li", { "data-state": row.level === "critical" ? "down" : "warn" }, mark(),
      el("span", {}, el("span", { class: "words" }), el("span", { class: "why" }, `${row.rule}, ${row.level}${row.since ? `, since ${time(row.since)}` : ""}`))),
    (li, row) => text(li.querySelector(".words"), row.summary || row.rule));
}

export function empty(list, said) {
  if (list.children.length === 1 && list.firstElementChild.textContent === said) return;
  list.replaceChildren(el(list.tagName === "TBODY" ? "tr" : "li", { class: "empty" }, list.tagName === "TBODY" ? el("td", { colspan: 9 }, said) : said));
}

export function orders(rows) {
  const list = byId("orders");
  const names = ["pending", "paid", "shipped", "cancelled", "refused"];
  const sorted = [...rows].sort((a, b) => names.indexOf(a.status) - names.indexOf(b.status));
  list.replaceChildren(...sorted.flatMap((row) => [el("dt", {}, row.status), el("dd", {}, `${count(row.count)} · ${money(row.total)}`)]));
  if (!sorted.length) list.replaceChildren(el("dt", {}, "orders"), el("dd", {}, "none yet"));
}

export function integrations(rows) {
  const list = byId("integrations");
  if (!rows.length) return empty(list, "None is known.");
  reconcile(list, rows, (row) => row.name + row.state + row.error,
    (row) => el("li", { "data-state": row.state }, mark(), el("b", {}, row.name), `\u00a0${row.health}`, row.error ? el("span", { class: "why" }, row.error) : null));
}

export function queue(said) {
  text(byId("queue-hint"), `${count(said.ready)} ready, ${count(said.in_flight)} in work, ${count(said.dead)} dead`);
  const rows = said.groups ?? [];
  if (!rows.length) return empty(byId("queue"), "Nothing has been sent yet.");
  reconcile(byId("queue"), rows, (row) => row.group,
    (row) => el("tr", {}, el("th", { scope: "row" }, row.group), ...Array.from({ length: 5 }, () => el("td", { class: "n" }))),
    (tr, row) => {
      [count(row.ready), count(row.delayed), count(row.in_flight), count(row.dead), rate(row.done_per_s)]
        .forEach((value, i) => text(tr.children[i + 1], value));
    });
}

export function sources(rows) {
  const names = {
    gateway: "Gateway: services, breakers, alerts", overview: "Gateway: live traffic", events: "Gateway: events",
    history: "Gateway: history", stage: "Stage: processes", mails: "Stage: mails", queue: "Queue", orders: "Orders", sales: "Analytics", integrations: "Integrations",
  };
  const list = Object.entries(rows).sort(([a], [b]) => Object.keys(names).indexOf(a) - Object.keys(names).indexOf(b));
  reconcile(byId("sources"), list, ([name, row]) => `${name}${row.ok}${row.why}`,
    ([name, row]) => el("li", { "data-state": row.ok ? "ok" : "warn" }, mark(), el("span", {}, names[name] ?? name),
      row.ok ? el("span", { class: "vh" }, ": heard") : el("span", { class: "why" }, `not heard since ${time(row.since)}: ${row.why}`)));
}

export function mails(said, open) {
  const rows = said.mails ?? [];
  text(byId("mails-hint"), said.total ? `${count(said.total)} so far` : "");
  if (!rows.length) return empty(byId("mails"), "None yet.");
  reconcile(byId("mails"), rows.slice(0, 30), (row) => row.id,
    (row) => el("li", {}, el("button", { type: "button", onclick: () => open(row.id) },
      el("time", { datetime: iso(row.at) }, time(row.at)), el("span", { class: "subject" }, row.subject || "(no subject)"), el("span", { class: "to" }, [].concat(row.to ?? []).join(", ")))));
}

const TONES = { bad: "down", good: "ok", note: "note", play: "play" };

export function log(lines, isFirst) {
  const list = byId("log");
  if (!lines.length) return empty(list, "Nothing yet.");
  const sorted = [...lines].sort((a, b) => b.at - a.at || b.n - a.n).slice(0, 120);
  reconcile(list, sorted, (line) => line.n,
    (line) => el("li", { class: isFirst ? null : "fresh" }, el("time", { datetime: iso(line.at) }, time(line.at)),
      el("span", { class: "what", "data-state": TONES[line.tone] ?? "note" }, mark(), line.text)));
}

export function doing(said) {
  const names = { retries: "tried again", fallbacks: "answered from elsewhere", rejected: "kept away by breakers", stale: "stale answers", shed: "shed", limited: "over a limit" };
  const found = Object.entries(names).filter(([name]) => said[name] >= 1).map(([name, word]) => `${count(said[name])} ${word}`);
  text(byId("doing"), found.length ? `In the last minute: ${found.join(", ")}` : "");
}

export function figures(board, point) {
  const said = board.sales ?? {};
  const queueSaid = board.queue ?? {};
  const firing = (board.alerts ?? []).filter((row) => row.state === "firing");
  const memory = (board.cache?.stores ?? []).find((row) => row.kind === "memory");
  const p = point ?? {};
  const rows = [
    { name: "Requests", value: [rate(p.rps), "/s"], more: `${count(board.in_flight)} under way` },
    { name: "95th percentile", value: duration(p.p95), more: `p99 ${join(duration(p.p99))}`, state: p.p95 > 1000 ? "down" : p.p95 > 400 ? "warn" : "" },
    { name: "Errors", value: percent(p.errors), more: "answers with 5xx", state: p.errors >= 0.05 ? "down" : p.errors >= 0.01 ? "warn" : "" },
    { name: "Cache hits", value: percent(p.hits), more: memory ? `${count(memory.entries)} kept, ${bytes(memory.bytes)}` : "" },
    { name: "Orders today", value: [count(said.orders), ""], more: `conversion ${join(percent(said.conversion))}` },
    { name: "Revenue today", value: [money(said.revenue, said.currency), ""], more: `${money(said.average_order, said.currency)} each` },
    { name: "Queue", value: [count(queueSaid.ready), "ready"], more: `${count(queueSaid.dead)} dead`, state: queueSaid.dead > 0 ? "warn" : "" },
    { name: "Alerts", value: [count(firing.length), "firing"], more: firing[0]?.rule ?? "nothing fires", state: firing.some((row) => row.level === "critical") ? "down" : firing.length ? "warn" : "" },
  ];
  reconcile(byId("figures"), rows, (row) => row.name,
    (row) => el("div", {}, el("dt", {}, row.name), el("dd", { class: "value" }), el("dd", { class: "more" })),
    (div, row) => {
      div.dataset.state = row.state || "calm";
      const [value, unit] = row.value;
      cell(div.children[1], `${value} ${unit}`, [value, unit ? el("span", { class: "unit" }, unit) : null]);
      text(div.children[2], row.more);
    });
}

export function overall(board) {
  const down = (board.services ?? []).filter((row) => row.state === "down");
  const doubt = (board.services ?? []).filter((row) => row.state === "warn");
  const firing = (board.alerts ?? []).filter((row) => row.state === "firing");
  const running = (board.failures ?? []).length;
  const parts = [];
  if (down.length) parts.push(`${down.map((row) => row.name).join(", ")} down`);
  if (doubt.length) parts.push(`${doubt.length} in doubt`);
  if (firing.length) parts.push(`${firing.length} ${firing.length > 1 ? "alerts" : "alert"}`);
  if (running) parts.push(`${running} ${running > 1 ? "failures" : "failure"} running`);
  const state = !board.services ? "unknown" : down.length ? "down" : doubt.length || firing.length || running ? "warn" : "ok";
  byId("overall").dataset.state = state;
  text(byId("overall-text"), parts.length ? parts.join(" · ") : state === "ok" ? "All is well" : "nothing is heard yet");
}

export { span };
