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

// A form whose answer comes bit by bit into a part of its page; without this it is sent as any other.
function stream(form) {
  const part = document.getElementById(form.dataset.into), stop = form.querySelector("[data-stop]");
  let asking = null;
  stop.addEventListener("click", () => asking && asking.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = new AbortController();
    stop.hidden = false;
    part.classList.remove("stale");
    part.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.dataset.stream, { method: "POST", body, signal: asking.signal });
      const kind = answer.headers.get("content-type") || "";
      // What is no stream is a page that says why.
      if (!kind.startsWith("text/event-stream")) { form.submit(); return; }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const lines = event.split("\n");
          if (lines[0] === "event: over") { again(); return; }
          if (lines[0] !== "event: part") continue;
          part.innerHTML = lines.slice(1).map((line) => line.slice(6)).join("\n");
          localise(part);
        }
      }
    } catch (error) {
      // Stopped by the reader, or cut off: what is there is not the whole.
      part.classList.add("stale");
    } finally {
      asking = null;
      stop.hidden = true;
      part.removeAttribute("aria-busy");
    }
  });
}

localise(document);
for (const form of document.querySelectorAll("form[data-stream]")) stream(form);
for (const part of document.querySelectorAll("[data-live]")) follow(part);

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
