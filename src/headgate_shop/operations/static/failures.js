// The prepared failures: a button for each, what runs, and how to undo it.

import { byId, el, mark, reconcile, text } from "./dom.js";
import { ask } from "./session.js";
import { span } from "./units.js";

const csrf = document.documentElement.dataset.csrf;
const busy = new Set();
const refused = new Map();
const chosen = new Map();
let redraw = () => {};

async function send(method, id, body) {
  busy.add(id);
  refused.delete(id);
  redraw();
  try {
    const answer = await ask(`/operations/failures/${encodeURIComponent(id)}`, {
      method,
      headers: { "content-type": "application/json", "x-csrf-token": csrf },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      refused.set(id, problem.detail ?? `it was answered with ${answer.status}`);
    }
  } catch (error) {
    refused.set(id, `it could not be sent: ${error.message}`);
  } finally {
    busy.delete(id);
    redraw();
  }
}

// `true` if the one who is asked says so. Escape, and the other button, leave it.
function confirmed(words) {
  const dialog = byId("confirm");
  text(byId("confirm-text"), words);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function begin(failure, li) {
  const choice = li.querySelector("select")?.value ?? "";
  if (failure.confirm && !(await confirmed(failure.confirm.replace("{choice}", choice)))) return;
  await send("POST", failure.id, { choice });
}

function make(failure) {
  const id = `failure-${failure.id}`;
  const li = el("li", {},
    el("h3", { id }, mark(), failure.title),
    el("p", { class: "does" }, failure.does),
    el("p", { class: "expect" }));
  const act = el("div", { class: "act" });
  if (failure.choices.length) {
    const select = el("select", { "aria-label": `${failure.title}: which service`, onchange: () => {
      chosen.set(failure.id, select.value);
      redraw();
    } }, ...failure.choices.map((name) => el("option", { value: name }, name)));
    const first = failure.id === "kill" || failure.id === "outage" ? "products" : failure.choices[0];
    select.value = chosen.get(failure.id) ?? first;
    act.append(select);
  }
  const button = el("button", { type: "button", class: "quiet", "aria-describedby": id, onclick: () => {
    if (li.dataset.running === "1") send("DELETE", failure.id);
    else begin(failure, li);
  } }, failure.button);
  act.append(button, el("span", { class: "status", role: "status" }), el("span", { class: "refused", role: "alert", hidden: true }));
  li.append(act);
  return li;
}

function update(li, failure, running, why, now) {
  const one = running.find((each) => each.id === failure.id);
  const select = li.querySelector("select");
  const button = li.querySelector("button");
  const status = li.querySelector(".status");
  const no = li.querySelector(".refused");
  li.dataset.state = one ? "play" : "unknown";
  li.dataset.running = one ? "1" : "";
  if (select) {
    if (one) select.value = one.choice;
    select.disabled = Boolean(one);
  }
  const choice = select?.value ?? "";
  text(li.querySelector(".expect"), `Expect: ${lower(failure.expects[choice] ?? failure.expect)}`);
  const canUndo = failure.id !== "kill";
  button.hidden = Boolean(one) && !canUndo;
  button.className = one ? "quiet undo" : "quiet";
  text(button, one ? "Undo" : failure.button);
  button.disabled = busy.has(failure.id) || (!one && Boolean(why));
  if (one) {
    const left = one.until - now;
    text(status, canUndo ? `running for ${span(now - one.since)}, ends by itself in ${span(left)}` : `killed ${span(now - one.since)} ago, waiting for it to be back`);
  } else {
    text(status, why);
  }
  const said = refused.get(failure.id) ?? "";
  text(no, said);
  no.hidden = !said;
}

const lower = (said) => said.charAt(0).toLowerCase() + said.slice(1);

// Why a failure cannot be played here; "" if it can.
function reason(failure, stage) {
  if (failure.needs === "nothing") return "";
  if (!stage) return "not here: no stage runs this shop";
  if (failure.needs === "redis" && !stage.redis) return "not here: this shop runs without a Redis (start it by headgate demo --with redis)";
  return "";
}

export function failures(catalogue, running, stage, now) {
  redraw = () => failures(catalogue, running, stage, now);
  reconcile(byId("failure-list"), catalogue, (failure) => failure.id, make,
    (li, failure) => update(li, failure, running, reason(failure, stage), now));
}
