"use strict";

// Times in the reader's zone; the exact one, with its zone, on hover.
const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const before = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localise(part) {
  for (const time of part.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    const same = at.toDateString() === new Date().toDateString();
    time.textContent = (same ? today : before).format(at);
    time.title = exact.format(at) + " (" + time.dateTime + ")";
  }
}

// Loads the page anew; what a form did is not done again.
const again = () => location.replace(location.pathname);

// Parts that keep themselves up to date. Whoever had the focus in one keeps it.
function follow(part) {
  const events = new EventSource(part.dataset.live);
  events.addEventListener("part", (event) => {
    const held = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.innerHTML = event.data;
    localise(part);
    if (held) {
      for (const link of part.querySelectorAll("a[href]")) {
        if (link.getAttribute("href") === held) { link.focus(); break; }
      }
    }
  });
  events.addEventListener("over", () => { events.close(); again(); });
  events.addEventListener("error", () => {
    // The browser tries again by itself, but for an answer that says no.
    part.classList.add("stale");
    if (events.readyState === EventSource.CLOSED) setTimeout(again, 2000);
  });
  events.addEventListener("open", () => part.classList.remove("stale"));
  addEventListener("pagehide", () => events.close());
  // What a form comes to is told by its own answer, which loading the page anew would cut off.
  addEventListener("submit", () => events.close());
}

localise(document);
for (const part of document.querySelectorAll("[data-live]")) follow(part);

// Keys that stand beside buttons act while the part that they belong to has the focus, and once.
for (const part of document.querySelectorAll("[data-keys]")) {
  let done = false;
  part.addEventListener("keydown", (event) => {
    if (done || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const button = part.querySelector('[data-key="' + CSS.escape(event.key.toLowerCase()) + '"]');
    if (!button) return;
    done = true;
    event.preventDefault();
    button.click();
  });
  part.focus({ preventScroll: true });
}

// Menus close by Escape and by a click elsewhere.
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.person[open], .menu details[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.person[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
