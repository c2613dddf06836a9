// Brings the page up to date without flicker; without JavaScript the page reloads itself.
"use strict";
const EVERY_MS = 2000;

async function refresh() {
  const response = await fetch("/", { signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const scrolled = new Map();
  for (const box of document.querySelectorAll("[data-keep]")) scrolled.set(box.dataset.keep, box.scrollLeft);
  for (const part of ["header", "main"]) document.querySelector(part).replaceWith(fresh.querySelector(part));
  for (const box of document.querySelectorAll("[data-keep]")) box.scrollLeft = scrolled.get(box.dataset.keep) ?? 0;
  document.title = fresh.title;
}

async function again() {
  try {
    const reading = !getSelection().isCollapsed;
    if (!document.hidden && !reading) await refresh();
  } catch {
    const badge = document.querySelector("header .badge");
    badge.textContent = "no answer";
    badge.className = "badge bad";
    document.title = "trackd · no answer";
  }
  setTimeout(again, EVERY_MS);
}

setTimeout(again, EVERY_MS);
