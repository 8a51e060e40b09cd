"use strict";
// What all pages share: words, requests, elements. Texts are set as text: names come from outside.
const sincutApp = (() => {
  const texts = JSON.parse(document.getElementById("texts").textContent);
  const byId = (id) => document.getElementById(id);

  // The words of a name, with values in the places of {}.
  const say = (name, ...values) => {
    let text = texts[name] ?? name;
    values.forEach((value) => { text = text.replace("{}", () => String(value)); });
    return text;
  };

  const tell = (problem) => {
    const words = problem ? problem.message ?? String(problem) : "";
    if (byId("told").textContent !== words) byId("told").textContent = words;
    if (words) byId("told").scrollIntoView({ block: "nearest" });
  };

  // JSON from and to the server; what it refuses is thrown as its one line.
  const ask = async (method, path, body) => {
    let answer;
    try {
      const options = { method, headers: { accept: "application/json" } };
      if (body !== undefined) options.body = body instanceof Blob ? body : JSON.stringify(body);
      answer = await fetch(path, options);
    } catch {
      throw Object.assign(new Error(say("no_news")), { unreachable: true });
    }
    const text = await answer.text();
    let found;
    try { found = JSON.parse(text); } catch { found = { error: text.replace(/^Error: /, "") }; }
    if (!answer.ok) throw new Error(found.error);
    return found;
  };

  // Does what a person asked for, and tells what went wrong.
  const doing = (work) => async (event) => {
    const button = event?.currentTarget;
    if (button instanceof HTMLButtonElement) button.disabled = true;
    tell("");
    try { await work(event); } catch (problem) { tell(problem); }
    finally { if (button instanceof HTMLButtonElement) button.disabled = false; }
  };

  const element = (tag, values = {}, ...children) => {
    const made = document.createElement(tag);
    Object.entries(values).forEach(([name, value]) => {
      if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
    });
    made.append(...children);
    return made;
  };

  // Calls again and again, unless nobody looks; `work` says after how many seconds.
  const follow = (work) => {
    let timer = null;
    let lost = false;
    const turn = async () => {
      clearTimeout(timer);
      let next = 3;
      if (!document.hidden) {
        try {
          next = await work();
          if (lost) tell("");
          lost = false;
        } catch (problem) {
          lost = true;
          tell(problem);
        }
      }
      timer = setTimeout(turn, 1000 * next);
    };
    document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
    turn();
    return turn;
  };

  const bytes = (count) => count >= 0.95e9 ? `${(count / 1e9).toFixed(1)} GB`
    : `${(count / 1e6).toFixed(count >= 0.95e6 ? 0 : 1)} MB`;
  const duration = (seconds) => {
    const all = Math.round(seconds);
    const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24,
      Math.floor(all / 60) % 60];
    if (days) return `${days} d ${hours} h`;
    if (hours) return `${hours} h ${minutes} min`;
    return minutes ? `${minutes} min ${all % 60} s` : `${all} s`;
  };
  const path = (...parts) => parts.map((part) => encodeURIComponent(part)).join("/");

  byId("language").addEventListener("change", (event) => {
    const kept = "path=/; max-age=31536000; samesite=strict";
    document.cookie = `sincut-language=${event.target.value}; ${kept}`;
    location.reload();
  });
  return { say, tell, ask, doing, element, follow, bytes, duration, path, byId };
})();
