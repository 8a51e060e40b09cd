"use strict";
// The runs of the folder as cards, kept as they are while nothing about them changes.
(() => {
  const { say, tell, ask, doing, element, follow, path, byId } = sincutApp;
  let before = "";

  const stateOf = (run) => {
    const name = run.waiting ? "waiting" : run.state;
    const steps = run.steps && run.state !== "finished" ? ` · ${say("of_steps", run.step, run.steps)}`
      : "";
    return say(`state_${name}`) + steps;
  };
  const rename = (run) => doing(async () => {
    const title = prompt(say("new_name"), run.title);
    if (title === null) return;
    await ask("POST", `/api/runs/${path(run.name)}`, { action: "rename", title });
    again();
  });
  const discard = (run) => doing(async () => {
    if (!confirm(say("sure", run.title))) return;
    const { place } = await ask("DELETE", `/api/runs/${path(run.name)}`);
    tell(say("discarded", place));
    again();
  });
  const card = (run) => {
    const address = `/runs/${path(run.name)}`;
    const shown = run.picture
      ? element("img", { src: `${address}/picture?${run.step}`, alt: "", loading: "lazy" })
      : element("span", { className: "blank" });
    const figures = Object.entries(run.figures).slice(0, 4)
      .map(([name, value]) => `${name} ${Number(value).toFixed(3)}`).join(" · ");
    return element("li", { className: `card ${run.state}` },
      element("a", { className: "shown", href: address, tabIndex: -1, "aria-hidden": "true" }, shown),
      element("div", { className: "about" },
        element("h2", {}, element("a", { href: address, textContent: run.title })),
        element("p", { className: "state", textContent: stateOf(run) }),
        ...(run.why ? [element("p", { className: "why", textContent: run.why })] : []),
        element("p", { className: "soft", textContent: `${run.content} → ${run.style}` }),
        element("p", { className: "soft",
          textContent: [new Date(1000 * run.created).toLocaleString(document.documentElement.lang,
            { dateStyle: "medium", timeStyle: "short" }), figures].filter(Boolean).join(" · ") }),
        element("p", { className: "row" },
          ...(run.state === "finished" || run.state === "stopped"
            ? [element("a", { href: `${address}/result`, textContent: say("result"),
              "aria-label": `${say("result")}: ${run.title}` })] : []),
          element("button", { type: "button", textContent: say("rename"), onclick: rename(run),
            "aria-label": `${say("rename")}: ${run.title}` }),
          element("button", { type: "button", textContent: say("discard"), onclick: discard(run),
            "aria-label": `${say("discard")}: ${run.title}` }))));
  };
  const again = follow(async () => {
    const { runs } = await ask("GET", "/api/runs");
    const now = JSON.stringify(runs);
    if (now !== before) {
      before = now;
      byId("none").hidden = runs.length > 0;
      byId("runs").replaceChildren(...runs.map(card));
    }
    return runs.some((run) => run.state === "running") ? 3 : 10;
  });
})();
