"use strict";
// A training as it goes on, or as it ended. The page keeps what its reader is at.
(() => {
  const { say, tell, ask, doing, element, follow, bytes, duration, path, byId } = sincutApp;
  const name = byId("title").dataset.name;
  const api = `/api/runs/${path(name)}`;
  const address = `/runs/${path(name)}`;
  let known = null;
  let chosen = null; // step of the preview to stay at; null: the newest
  let wanted = "";
  let drawn = "";
  let stopping = false;
  const labels = { Step: "step", "Warm start": "phase_warm", Speed: "speed",
    "Time left": "time_left", "Time so far": "time_so_far" };

  const phase = (run) => {
    if (run.waiting) return say("state_waiting");
    if (run.state !== "running") return say(`state_${run.state}`);
    if (stopping) return say("stopping");
    if (!run.live.running) return say("phase_preparing");
    return say({ "warm start": "phase_warm", reporting: "phase_reporting" }[run.live.state]
      ?? "phase_training");
  };
  const facts = (run) => {
    const live = run.state === "running" && run.live.running;
    const found = live ? run.live.facts : [["Step", `${run.step} of ${run.steps || "–"}`]];
    const shown = found.map(([label, value]) =>
      [say(labels[label] ?? label), String(value).replace(" of ", " / ")]);
    if (run.state === "running" && !live && run.estimate) {
      shown.push([say("time_left"), duration(run.estimate.seconds)]);
    }
    return shown;
  };

  const showPreview = () => {
    const { previews } = known;
    const last = previews.length - 1;
    byId("seen").hidden = last < 0;
    byId("none").hidden = last >= 0;
    if (last < 0) return;
    const found = previews.indexOf(chosen);
    const index = found < 0 ? last : found;
    const step = previews[index];
    byId("scrubber").max = last;
    byId("scrubber").value = index;
    byId("scrubber").setAttribute("aria-valuetext", say("of_steps", step, known.steps));
    byId("shown").textContent = `${step} (${index + 1} / ${last + 1})`;
    byId("newest").disabled = found < 0;
    const source = `${address}/previews/${step}?${known.live.session ?? ""}`;
    if (wanted === source) return;
    wanted = source;
    const next = new Image(); // decoded first, so that nothing flickers
    next.src = source;
    const place = () => {
      if (wanted !== source) return;
      byId("after").src = source;
      byId("after").alt = say("preview_alt", step);
    };
    next.decode().then(place, place);
    // A preview of folders is a sheet, which shows contents and results by itself.
    byId("dividing").hidden = known.folders;
    byId("compare").classList.toggle("sheet", known.folders);
    if (!known.folders && !byId("before").getAttribute("src")) byId("before").src = `${address}/pictures/content`;
  };
  const divide = (share) => {
    byId("divide").value = share;
    byId("compare").style.setProperty("--at", `${share}%`);
  };
  byId("divide").addEventListener("input", (event) => divide(event.target.value));
  const drag = (event) => {
    const box = byId("compare").getBoundingClientRect();
    divide(Math.min(Math.max(100 * (event.clientX - box.left) / box.width, 0), 100));
  };
  byId("compare").addEventListener("pointerdown", (event) => {
    event.preventDefault();
    byId("compare").setPointerCapture(event.pointerId);
    drag(event);
  });
  byId("compare").addEventListener("pointermove", (event) => {
    if (byId("compare").hasPointerCapture(event.pointerId)) drag(event);
  });
  byId("scrubber").addEventListener("input", (event) => {
    const at = +event.target.value;
    chosen = at === known.previews.length - 1 ? null : known.previews[at];
    showPreview();
  });
  byId("newest").addEventListener("click", () => {
    chosen = null;
    showPreview();
    byId("scrubber").focus();
  });

  const showCurves = () => {
    const charts = known.live.charts ?? [];
    byId("no-curves").hidden = charts.length > 0;
    const now = JSON.stringify(charts);
    const held = byId("curves").contains(document.activeElement) || byId("curves").matches(":hover");
    if (now === drawn || (held && drawn)) return;
    drawn = now;
    byId("curves").style.minHeight = `${byId("curves").offsetHeight}px`;
    sincutCurves(byId("curves"), charts);
    byId("curves").style.minHeight = "";
  };

  const siblings = async () => {
    byId("siblings").hidden = known.variations.length < 2;
    if (known.variations.length < 2) return;
    const { runs } = await ask("GET", "/api/runs");
    const mine = known.variations.map((each) => runs.find((run) => run.name === each)).filter(Boolean);
    byId("siblings").querySelector("ul").replaceChildren(...mine.map((run) => element("li",
      { className: `card${run.name === name ? " here" : ""}` },
      element("a", { href: `/runs/${path(run.name)}`, className: "shown",
        ...(run.name === name ? { "aria-current": "page" } : {}) },
      run.picture ? element("img", { src: `/runs/${path(run.name)}/picture?${run.step}`, alt: "" })
        : element("span", { className: "blank" }),
      element("span", { textContent: run.title })),
      element("span", { className: "soft", textContent: say(`state_${run.waiting ? "waiting"
        : run.state}`) }),
      element("button", { type: "button", disabled: run.chosen,
        textContent: say(run.chosen ? "used" : "use_this"),
        "aria-label": `${say("use_this")}: ${run.title}`,
        onclick: doing(() => use(run, mine)) }))));
  };
  const use = async (run, all) => {
    await Promise.all(all.map((each) => ask("POST", `/api/runs/${path(each.name)}`,
      { action: "choose", chosen: each === run })));
    location.href = `/runs/${path(run.name)}/result`;
  };

  const show = (run) => {
    known = run;
    if (run.state !== "running") stopping = false;
    if (byId("title").textContent !== run.title) byId("title").textContent = run.title;
    document.title = `${run.title} · sincut`;
    const state = run.why ? `${phase(run)}: ${run.why}` : phase(run);
    if (byId("state").textContent !== state) byId("state").textContent = state;
    byId("state").className = run.state;
    const live = run.live;
    const done = live.running || run.state !== "running";
    byId("progress").max = Math.max(live.of ?? run.steps, 1);
    if (done) byId("progress").value = run.state === "finished" ? byId("progress").max
      : live.done ?? run.step;
    else byId("progress").removeAttribute("value");
    byId("facts").replaceChildren(...facts(run).map(([label, value]) => element("div", {},
      element("dt", { textContent: label }), element("dd", { textContent: value }))));
    const running = run.state === "running";
    byId("stop").hidden = !running && !run.waiting;
    byId("stop").disabled = stopping;
    byId("resume").hidden = running || run.waiting || run.state === "finished";
    byId("extend").hidden = running || !run.resumable || !run.steps;
    byId("to-result").hidden = !run.model || run.state === "failed";
    byId("report").hidden = !run.report;
    byId("card").hidden = !run.card;
    byId("model").hidden = !run.model;
    byId("place").textContent = run.folder;
    byId("command").textContent = run.command;
    byId("notices").replaceChildren(...run.notices.map((each) =>
      element("li", { textContent: each })), ...(run.estimate ? [element("li", {
      textContent: `${duration(run.estimate.seconds)}, ${bytes(run.estimate.peak_bytes)}` })] : []));
    showPreview();
    showCurves();
  };
  const change = (body) => doing(async () => {
    show(await ask("POST", api, body()));
    again();
  });
  byId("stop").addEventListener("click", change(() => {
    stopping = true;
    return { action: "stop" };
  }));
  byId("resume").addEventListener("click", change(() => ({ action: "resume" })));
  byId("lengthen").addEventListener("click", change(() => (
    { action: "resume", more: Math.round(+byId("more").value) })));
  byId("rename").addEventListener("click", doing(async () => {
    const title = prompt(say("new_name"), known.title);
    if (title !== null) show(await ask("POST", api, { action: "rename", title }));
  }));
  byId("discard").addEventListener("click", doing(async () => {
    if (!confirm(say("sure", known.title))) return;
    await ask("DELETE", api);
    location.href = "/";
  }));
  const again = follow(async () => {
    show(await ask("GET", api));
    await siblings();
    return known.state === "running" || known.waiting ? 2 : 10;
  });
  divide(50);
  tell("");
})();
