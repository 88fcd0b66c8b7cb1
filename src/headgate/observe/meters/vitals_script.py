"""The script that browsers run to measure Web Vitals; served by `vitals.VitalsEndpoint`.

How each is found: TTFB from the navigation entry, FCP from the paint entry, LCP as the last
candidate before the first input or the end, CLS as the largest session of shifts (less than a
second between two, less than five altogether), INP as the longest interaction, leaving out one in
fifty. A page that was hidden from the start says nothing about loading.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT"]

SCRIPT: Final = """\
(() => {
  "use strict";
  const script = document.currentScript;
  const beside = new URL(".", script ? script.src : location.href).href;
  const to = (script && script.dataset.to) || beside;
  const page = (script && script.dataset.page) || location.pathname;
  const found = {};
  const seen = new Map();
  let session = 0, first = 0, last = 0, sent = false, count = 0;
  let hiddenAt = document.visibilityState === "hidden" ? 0 : Infinity;
  const start = () => {
    const entry = performance.getEntriesByType("navigation")[0];
    return (entry && entry.activationStart) || 0;
  };
  const hear = (type, take, more) => {
    try {
      const observer = new PerformanceObserver((list) => list.getEntries().forEach(take));
      observer.observe(Object.assign({ type, buffered: true }, more));
      return () => observer.takeRecords().forEach(take);
    } catch (error) {
      return () => {};
    }
  };
  const flushes = [
    hear("paint", (entry) => {
      if (entry.name === "first-contentful-paint" && entry.startTime < hiddenAt) {
        found.FCP = Math.max(0, entry.startTime - start());
      }
    }),
    hear("largest-contentful-paint", (entry) => {
      if (entry.startTime < hiddenAt) found.LCP = Math.max(0, entry.startTime - start());
    }),
    hear("layout-shift", (entry) => {
      if (entry.hadRecentInput) return;
      if (session && entry.startTime - last < 1000 && entry.startTime - first < 5000) {
        session += entry.value;
      } else {
        session = entry.value;
        first = entry.startTime;
      }
      last = entry.startTime;
      found.CLS = Math.max(found.CLS || 0, session);
    }),
    hear("event", (entry) => {
      if (!entry.interactionId) return;
      if (!seen.has(entry.interactionId)) count += 1;
      const longest = Math.max(seen.get(entry.interactionId) || 0, entry.duration);
      seen.set(entry.interactionId, longest);
      if (seen.size > 200) {
        const least = [...seen].reduce((a, b) => (b[1] < a[1] ? b : a));
        seen.delete(least[0]);
      }
    }, { durationThreshold: 16 }),
  ];
  const send = () => {
    if (sent) return;
    flushes.forEach((flush) => flush());
    const entry = performance.getEntriesByType("navigation")[0];
    if (entry && entry.responseStart > 0) {
      found.TTFB = Math.max(0, entry.responseStart - start());
    }
    const slow = [...seen.values()].sort((a, b) => b - a);
    if (slow.length) found.INP = slow[Math.min(slow.length - 1, Math.floor(count / 50))];
    if (found.CLS === undefined && found.FCP !== undefined) found.CLS = 0;
    if (!Object.keys(found).length) return;
    sent = true;
    const body = JSON.stringify({ page, figures: found });
    if (!(navigator.sendBeacon && navigator.sendBeacon(to, body))) {
      fetch(to, { method: "POST", body, keepalive: true, credentials: "omit" }).catch(() => {});
    }
  };
  addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") {
      send();
      hiddenAt = Math.min(hiddenAt, performance.now());
    }
  }, true);
  addEventListener("pagehide", send, true);
})();
"""
