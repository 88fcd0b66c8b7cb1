// The page: one stream of what changes, drawn as it comes.

import { Chart } from "./charts.js";
import { byId, el, text } from "./dom.js";
import { failures } from "./failures.js";
import * as panels from "./panels.js";
import { ask } from "./session.js";
import { count, duration, percent, rate, time } from "./units.js";

const POINTS = 700;
const LINES = 200;
const AGAIN_MS = 3000;
const QUIET_MS = 20_000;

const board = {};
let points = [];
let lines = [];
let numbers = 0;
let seconds = 180;
let last = "";
let source = null;
let heardAt = 0;
let skew = 0; // the gateway's clock against ours, in seconds
const past = []; // failures that were played: {since, until}

const join = ([value, unit]) => (unit ? `${value} ${unit}` : value);
const charts = [
  new Chart({ title: "Requests per second", series: [{ name: "rps", label: "now", line: "line-1" }], area: "area-1", least: 5, format: rate }),
  new Chart({ title: "Latency", series: [
    { name: "p50", label: "p50", line: "line-1" }, { name: "p95", label: "p95", line: "line-2" }, { name: "p99", label: "p99", line: "line-3" },
  ], least: 20, format: (value) => join(duration(value)) }),
  new Chart({ title: "Errors", series: [{ name: "errors", label: "now", line: "line-3" }], area: "area-3", least: 0.02, format: (value) => join(percent(value)) }),
  new Chart({ title: "Cache hits", series: [{ name: "hits", label: "now", line: "line-1" }], area: "area-1", max: 1, format: (value) => join(percent(value)) }),
];
byId("charts").append(...charts.map((chart) => chart.element));

const now = () => Date.now() / 1000 + skew;

// -- the stream ----------------------------------------------------------------------------------

function connect() {
  source?.close();
  source = new EventSource(`/operations/live${last ? `?after=${encodeURIComponent(last)}` : ""}`);
  source.addEventListener("open", () => link("ok", "live"));
  source.addEventListener("board", (event) => {
    last = event.lastEventId;
    heardAt = Date.now();
    link("ok", "live");
    take(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    // A stream that ends is taken up again by the browser itself; one that is refused is not.
    if (source.readyState === EventSource.CLOSED) refusedStream();
    else if (Date.now() - heardAt > 5000) link("warn", "connecting again");
  });
}

async function refusedStream() {
  let isThere = false;
  if (Date.now() - heardAt > 5000) link("down", "not connected");
  try {
    const answer = await ask("/operations/board", { headers: { accept: "application/json" } });
    if (answer.status === 401 || answer.status === 403) {
      banner("You are signed out, or no admin any more. ", el("a", { href: "/signin?next=/operations/" }, "Sign in"));
      return;
    }
    isThere = answer.ok && Date.now() - heardAt < QUIET_MS;
  } catch {
    // the gateway itself is away; ask again
  }
  setTimeout(connect, isThere ? 0 : AGAIN_MS);
}

function link(state, said) {
  byId("link").dataset.state = state;
  text(byId("link-text"), said);
  if (state === "ok") byId("banner").hidden = true;
}

function banner(...said) {
  const place = byId("banner");
  place.replaceChildren(...said);
  place.hidden = false;
}

function take(news) {
  const isFirst = lines.length === 0;
  if (news.whole) {
    for (const name of Object.keys(board)) delete board[name];
    lines = [];
  }
  if (news.refilled) points = [];
  Object.assign(board, news.parts);
  points = points.concat(news.points).slice(-POINTS);
  lines = lines.concat(news.log.map((line) => ({ ...line, n: ++numbers }))).slice(-LINES);
  const newest = news.points.at(-1);
  if (newest) skew = newest.t - Date.now() / 1000;
  if ("failures" in news.parts) remember(news.parts.failures);
  draw(news, isFirst);
}

function remember(running) {
  for (const one of past) {
    if (one.until === null && !running.some((each) => each.id === one.id && each.since === one.since)) one.until = now();
  }
  for (const each of running) {
    if (!past.some((one) => one.id === each.id && one.since === each.since)) past.push({ id: each.id, since: each.since, until: null });
  }
  while (past.length > 40) past.shift();
}

// -- drawing -------------------------------------------------------------------------------------

function draw(news, isFirst) {
  const parts = news.parts;
  const has = (name) => name in parts && board[name] !== null && board[name] !== undefined;
  if (has("services")) panels.services(board.services);
  if (has("breakers")) panels.breakers(board.breakers);
  if (has("splits")) panels.splits(board.splits);
  if (has("alerts")) panels.alerts(board.alerts);
  if (has("orders")) panels.orders(board.orders);
  if (has("integrations")) panels.integrations(board.integrations);
  if (has("queue")) panels.queue(board.queue);
  if (has("sources")) panels.sources(board.sources);
  if (has("mails")) panels.mails(board.mails, openMail);
  if (has("doing")) panels.doing(board.doing);
  if (news.log.length || isFirst) panels.log(lines, isFirst);
  panels.figures(board, points.at(-1));
  panels.overall(board);
  drawFailures();
  drawCharts();
}

function drawFailures() {
  if (board.catalogue) failures(board.catalogue, board.failures ?? [], board.stage, now());
}

function drawCharts() {
  const t = points.length ? Math.max(points.at(-1).t, now() - 3) : now();
  for (const chart of charts) chart.take(points, past, t, seconds);
}

setInterval(() => {
  drawFailures();
  if (heardAt && Date.now() - heardAt > QUIET_MS) {
    link("warn", `nothing heard for ${count((Date.now() - heardAt) / 1000)} s`);
    heardAt = Date.now();
    connect();
  }
}, 1000);

// -- mails ---------------------------------------------------------------------------------------

async function openMail(id) {
  const dialog = byId("mail");
  const answer = await ask(`/operations/mails/${encodeURIComponent(id)}`).catch(() => null);
  const mail = answer?.ok ? await answer.json() : null;
  text(byId("mail-subject"), mail ? mail.subject || "(no subject)" : "This mail cannot be shown");
  const rows = mail ? [["From", mail.from], ["To", [].concat(mail.to ?? []).join(", ")], ["At", mail.at ? time(mail.at) : ""]] : [];
  byId("mail-head").replaceChildren(...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value ?? "")]));
  const body = byId("mail-body");
  if (!mail) body.replaceChildren();
  else if (mail.has_html) body.replaceChildren(el("iframe", { src: `/operations/mails/${encodeURIComponent(id)}/page`, sandbox: true, title: "The mail as its reader sees it" }));
  else body.replaceChildren(el("pre", { tabindex: 0 }, mail.text ?? ""));
  dialog.showModal();
}

byId("mail").addEventListener("close", () => byId("mail-body").replaceChildren());

// -- what is kept in this browser ------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = byId("theme");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function showTheme() {
  theme.setAttribute("aria-pressed", String(isDark()));
}

theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem("operations-theme", document.documentElement.dataset.theme);
  showTheme();
});
const kept = localStorage.getItem("operations-theme");
if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
dark.addEventListener("change", showTheme);
showTheme();

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    seconds = Number(button.dataset.span);
    for (const each of document.querySelectorAll("[data-span]")) each.setAttribute("aria-pressed", String(each === button));
    drawCharts();
  });
}

connect();
